"""The family against the target alone: its bets, its tolerance, and since when."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.base import F64, Context
from detectors.drift.bets import log_e_values
from detectors.drift.departure import Departure
from detectors.drift.design_effect import DesignEffect
from detectors.drift.onset import best_split
from detectors.drift.runs import Runs
from detectors.drift.scores import BLOCK
from detectors.drift.target import Target, target
from detectors.drift.target_bets import TargetBets
from tests.detectors import streams


@pytest.fixture(scope="module")
def compiled() -> Target:
    return target(Context("model:/simulated", streams.reference(1)))


def seen(compiled: Target, bets: TargetBets, sums: F64, counts: F64) -> F64:
    return np.hstack([sums, counts, bets.look(sums)])


def test_weights_sum_to_one_and_pairs_have_none(compiled: Target) -> None:
    bets = TargetBets(compiled, np.full(len(compiled.scores), 0.3), np.zeros(len(compiled.scores)))
    assert bets.weight.sum() == pytest.approx(1.0) and (bets.weight > 0).all()
    families = {compiled.scores[i].family for i in bets.stream.tolist()}
    assert families == {"loc", "scale", "cat", "rare", "new", "missing", "range", "type"}


def test_bets_lose_while_traffic_is_like_the_target_and_win_outside_the_tolerance(compiled: Target) -> None:
    bets, noise = (
        TargetBets(compiled, np.full(len(compiled.scores), 0.3), np.zeros(len(compiled.scores))),
        DesignEffect(compiled, 0.0),
    )
    line = bets.line(noise, None)
    rng = np.random.default_rng(1)
    rows = streams.reference(1).rows
    index = compiled.binning.index(rows)[rng.integers(len(rows), size=BLOCK * 4_000)]
    sums, _, counts = compiled.block_sums(index)
    log_e = log_e_values(line, seen(compiled, bets, sums, counts))
    e = np.exp(log_e)
    assert (e.mean(axis=0) <= 1 + 5 * e.std(axis=0) / np.sqrt(len(e))).all()
    inside, outside = (sums + d * BLOCK * compiled.spread for d in (0.3, 0.8))
    on_sums = bets.stream < compiled.sums
    means = [log_e_values(line, seen(compiled, bets, x, counts))[:, on_sums].mean(axis=0) for x in (inside, outside)]
    assert (means[0] < 0).all() and means[1].max() > 0.1


def test_four_blocks_together_are_the_product_of_each(compiled: Target) -> None:
    bets, noise = (
        TargetBets(compiled, np.full(len(compiled.scores), 0.3), np.zeros(len(compiled.scores))),
        DesignEffect(compiled, 0.0),
    )
    line = bets.line(noise, None)
    index = compiled.binning.index(streams.join(streams.clean(3, 4 * BLOCK)))
    sums, _, counts = compiled.block_sums(index)
    each = log_e_values(line, seen(compiled, bets, sums, counts)).sum(axis=0)
    assert bets.joint(line, 4, sums.sum(axis=0), counts.sum(axis=0)) == pytest.approx(each)


def test_what_the_first_days_have_shown_is_tolerated(compiled: Target) -> None:
    bets, noise = (
        TargetBets(compiled, np.full(len(compiled.scores), 0.3), np.zeros(len(compiled.scores))),
        DesignEffect(compiled, 0.0),
    )
    usual = np.zeros(len(bets.sums))
    usual[0] = 0.4
    first = bets.stream == bets.sums[0]
    calm, wide, start = (bets.line(noise, x).base[first] for x in (np.zeros(len(usual)), usual, None))
    assert (wide < start).all() and (start < calm).all()


def test_a_steady_model_learns_no_wider_range_later() -> None:
    departure = Departure(2, 1)
    far, everything = np.array([0.5, 0.0]), np.ones(2, np.bool_)
    for i in range(200):
        departure.learn(4, far, everything, float(i))
    assert departure.usual is None and departure.range == pytest.approx([0.5, 0.0], abs=0.01)
    departure.settle(True)
    for i in range(200):
        departure.learn(4, 2 * far, everything, float(i))
    assert departure.usual == pytest.approx([0.5, 0.0], abs=0.01)
    assert departure.range == pytest.approx([0.5, 0.0], abs=0.01)


def test_nothing_is_learnt_of_latched_streams() -> None:
    departure = Departure(2, 1)
    for i in range(100):
        departure.learn(4, np.ones(2), np.array([True, False]), float(i))
    assert departure.range[0] > 0.9 and departure.range[1] == 0


def test_a_departure_begins_where_its_bet_began_to_gain() -> None:
    departure, own = Departure(1, 2), np.array([0, 1])
    for i in range(10):
        gain = 1.0 if i >= 6 else -1.0
        departure.follow(np.array([gain, gain - 1.5]), 100.0 * i)
    assert departure.since(0, own, None) == (600.0, 600.0, 600.0)
    departure.restart(np.array([True, True]))
    departure.follow(np.ones(2), 1_000.0)
    assert departure.since(0, own, None)[0] == 1_000.0


def test_a_run_remembers_its_beginning_however_long_it_lasts() -> None:
    rng = np.random.default_rng(6)
    runs = Runs(2)
    for i in range(300):
        z = rng.standard_normal((4, 2)).sum(axis=0)
        runs.follow(z + np.array([-4.0 if i >= 100 else 0.0, 0.0]), 4, float(i))
    began = runs.since(0, -1.0)
    assert began is not None and 90 <= began <= 104 and runs.since(0, 1.0) is None
    runs.restart(np.array([True, False]))
    assert runs.since(0, -1.0) is None


def test_the_interval_of_a_split_covers_the_truth() -> None:
    rng = np.random.default_rng(5)
    covered, widths = 0, []
    for _ in range(300):
        path = rng.standard_normal(40)
        path[-12:] += 1.5
        found = best_split(path)
        covered += found.fewest <= 12 <= found.most
        widths.append(found.most - found.fewest)
    assert covered >= 270 and np.median(widths) <= 8
    sure, unsure = best_split(path), best_split(path, v=4.0)
    assert unsure.fewest <= sure.fewest and unsure.most >= sure.most
