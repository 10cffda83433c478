"""Target, bets, onset, recovery and noise, each alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import nbinom

from detectors.base import F64, Bool, Context
from detectors.drift.bets import BETS, FACTORS, PAIR_BETS, ChangeBets, log_e_values
from detectors.drift.design_effect import FLOOR, FLOOR_BLOCKS, DesignEffect, ascending
from detectors.drift.null import Null, memory_of
from detectors.drift.onset import best_split
from detectors.drift.recovery import gain_of_count, gain_of_sum
from detectors.drift.scores import BLOCK, FAMILIES
from detectors.drift.season import slipping_swing
from detectors.drift.target import Target, target
from detectors.numeric import exact_factors
from monitor.intake.columns import build_reference, infer_schema
from monitor.intake.events import Event, EventType
from tests.detectors import streams


@pytest.fixture(scope="module")
def compiled() -> Target:
    return target(Context("model:/simulated", streams.reference(1)))


def test_the_target_is_compiled_once_and_its_streams_have_unique_names() -> None:
    context = Context("model:/simulated", streams.reference(1))
    assert target(context) is target(context)
    names = [s.name for s in target(context).streams]
    assert len(set(names)) == len(names)


def test_block_sums_are_those_of_the_scores(compiled: Target) -> None:
    index = compiled.binning.index(streams.join(streams.clean(3, 75)))
    sums, squares, counts = compiled.block_sums(index)
    for i, score in enumerate(compiled.scores):
        if score.family == "pair":
            both = [_factors(compiled, c)[index[:, c]] for c in (score.column, score.other)]
            each = both[0] * both[1]
        else:
            each = score.table[index[:, score.column]]
        each = each.reshape(3, BLOCK)
        if i < compiled.sums:
            assert sums[:, i].tolist() == each.sum(axis=1).tolist()
            assert squares[:, i] == pytest.approx((each**2).sum(axis=1), abs=BLOCK * 2.0**-11)
        else:
            assert counts[:, i - compiled.sums].tolist() == each.sum(axis=1).tolist()


def _factors(compiled: Target, column: int) -> F64:
    """Scores of a column as pairs take them: of unit variance under the target, 0 where there is no number."""
    score = next(s for s in compiled.scores if s.column == column and s.family == "loc")
    share = score.share[:-2] / score.share[:-2].sum()
    mean = share @ score.table[:-2]
    scaled = (score.table[:-2] - mean) / np.sqrt(share @ (score.table[:-2] - mean) ** 2)
    return np.concatenate([exact_factors(scaled), [0.0, 0.0]])


def test_sums_of_products_are_exact_at_their_largest() -> None:
    """The largest scores there are, in blocks of 25, must not be rounded."""
    largest = exact_factors(np.array([9.0, 4.991]))
    block = np.resize(largest, (2, BLOCK))
    exact = sum(int(x * 128) * int(y * 128) for x, y in block.T)
    assert float((block.astype(np.float32) @ block.T.astype(np.float32))[0, 1]) == exact / 128**2
    square = sum(int(x * 128) ** 2 * int(y * 128) ** 2 for x, y in block.T)
    assert float((block**2 @ (block**2).T)[0, 1]) * 128**4 == square


def test_sums_have_mean_and_variance_of_the_target(compiled: Target) -> None:
    index = compiled.binning.index(streams.reference(1).rows)
    sums, squares, _ = compiled.block_sums(index)
    rarer = np.array([s.label == "rarer values" for s in compiled.scores[: compiled.sums]])
    assert rarer.any()
    assert sums.sum(axis=0)[~rarer] / 1_000 == pytest.approx(compiled.mean[~rarer])
    assert squares.sum(axis=0)[~rarer] / 1_000 == pytest.approx(compiled.second[~rarer])


def test_of_rarer_values_those_that_occur_once_will_be_new() -> None:
    """Of an id per event nothing is seen again; of a category with a tenth of singletons the rest is."""
    rows = [{"id": f"u{i}", "sku": f"s{i % 20 if i % 10 else 1_000 + i}"} for i in range(500)]
    events = [Event(EventType.PREDICTION, float(i), features=row) for i, row in enumerate(rows)]
    made = target(Context("model:/m", build_reference(events, infer_schema(events), "file", "model:/m")))
    share = {s.stream.name: made.share[i] for i, s in enumerate(made.scores)}
    assert share["id:new value"] == pytest.approx(488 / 500) and "id:rarer values" not in share
    assert share["sku:new value"] == pytest.approx(0.1)
    assert share["sku:rarer values"] == pytest.approx(0.9 - 12 * 25 / 500)


def test_weights_sum_to_one(compiled: Target) -> None:
    bets = ChangeBets(compiled)
    assert bets.weight.sum() == pytest.approx(1.0) and (bets.weight >= 0).all()
    of_stream = np.bincount(bets.stream, bets.weight, len(compiled.scores))
    assert (of_stream > 0).all()


def test_bets_on_counts_are_e_values_under_the_predictive_law(compiled: Target) -> None:
    """Rate ~ Gamma(a, b), count of a block | rate Poisson: E[E] = 1 exactly where v = 1."""
    bets, null, noise = ChangeBets(compiled), Null(compiled, 4_000.0), DesignEffect(compiled, 0.0)
    null.k[:], null.b[:] = 30.0, 3_000.0
    odds = bets.odds(null, bets.prices(noise, np.zeros(compiled.sums), np.ones(compiled.counts)))
    k = np.arange(120)
    p = nbinom.pmf(k, 30.0, 3_000 / (3_000 + BLOCK))
    for j in range(len(FACTORS)):
        slope, base = (x[_on_counts(bets, compiled)][j] for x in odds.line[1:3])
        assert p @ np.exp(k * slope + base) == pytest.approx(1.0, rel=1e-6)


def test_bets_on_sums_are_e_values_for_independent_events(compiled: Target) -> None:
    """Blocks drawn from the target against a null worth infinitely many rows."""
    bets, null, noise = ChangeBets(compiled), Null(compiled, 4_000.0), DesignEffect(compiled, 0.0)
    null.s1, null.s2 = 1e9 * compiled.mean, 1e9 * compiled.second
    null.m[:] = 1e9
    rng = np.random.default_rng(1)
    rows = streams.reference(1).rows
    index = compiled.binning.index(rows)[rng.integers(len(rows), size=BLOCK * 8_000)]
    for j, column in enumerate(compiled.binning.category, len(compiled.binning.numeric)):
        rarer = np.flatnonzero(index[:, j] == len(column.top))
        unseen = column.singletons / max(int((compiled.binning.index(rows)[:, j] == len(column.top)).sum()), 1)
        index[rarer[rng.random(len(rarer)) < unseen], j] += 1  # fresh rows of the law have values that nobody has seen
    sums, _, counts = compiled.block_sums(index)
    prices = bets.prices(noise, np.zeros(compiled.sums), np.ones(compiled.counts))
    odds = bets.odds(null, prices)
    seen = np.hstack([sums, counts])
    bets.look(odds, sums / BLOCK, counts, seen[:, : compiled.sums], np.empty(seen.shape, np.float32))
    log_e = log_e_values(odds.line, seen)
    pairs = compiled.sums - compiled.linear
    bet = np.concatenate([np.tile(BETS, compiled.linear), np.tile(PAIR_BETS, pairs)])
    small = np.abs(bet) <= 2.0  # larger bets have a mean that no sample shows
    e = np.exp(log_e[:, : len(bet)][:, small])
    error = e.std(axis=0) / np.sqrt(len(e))
    assert (e.mean(axis=0) <= 1 + 5 * error).all() and e.mean() > 0.9


def _on_counts(bets: ChangeBets, compiled: Target) -> Bool:
    chosen: Bool = bets.stream >= compiled.sums
    return chosen


def test_there_is_no_bet_where_the_null_is_too_small(compiled: Target) -> None:
    bets, null, noise = ChangeBets(compiled), Null(compiled, 4_000.0), DesignEffect(compiled, 0.0)
    null.k[:], null.b[:] = 1.0, 60.0
    odds = bets.odds(null, bets.prices(noise, np.zeros(compiled.sums), np.ones(compiled.counts)))
    bold = list(FACTORS).index(15.0)
    slope, base = (x[_on_counts(bets, compiled)].reshape(-1, len(FACTORS))[:, bold] for x in odds.line[1:3])
    assert (slope == 0).all() and (base == 0).all()


def test_the_null_forgets_beyond_its_memory(compiled: Target) -> None:
    null = Null(compiled, 1_000.0)
    everything = np.ones(len(compiled.scores), np.bool_)
    for _ in range(100):
        null.absorb(4, 100 * compiled.mean + 50, 100 * compiled.second, np.zeros(compiled.counts), everything)
    assert null.m == pytest.approx(1_000.0)
    assert null.mean_and_spread()[0] == pytest.approx(compiled.mean + 0.5, abs=1e-3)


def test_counts_are_absorbed_late(compiled: Target) -> None:
    null = Null(compiled, 8_000.0)
    null.b[:] = 1e6
    null._count_memory[:] = 1e9
    everything = np.ones(len(compiled.scores), np.bool_)
    before = null.k.copy()
    ones = np.ones(compiled.counts)
    for _ in range(5):
        null.absorb(4, compiled.mean, compiled.second, ones, everything)
    assert (null.k == before).all()
    null.absorb(4, compiled.mean, compiled.second, ones, everything)
    assert (null.k == before + 1).all()


def test_memory_follows_the_daily_volume() -> None:
    assert [memory_of(x) for x in (100, 1e5, 1e9)] == [1_000, 4_000, 8_000]


def test_a_swing_slips_past_a_long_memory_only() -> None:
    assert slipping_swing(np.array([0.3]), 4_000, 1e5) == 0.0
    assert slipping_swing(np.array([0.3]), 1_000, 1_000) == pytest.approx(0.3, abs=0.08)


def test_the_best_split_is_where_the_change_began() -> None:
    rng = np.random.default_rng(1)
    for blocks in (1, 5, 20):
        path = rng.standard_normal(40)
        path[-blocks:] += 4.0
        found = best_split(path)
        assert abs(found.blocks - blocks) <= 1 and found.shift == pytest.approx(path[-found.blocks :].mean())
        assert found.fewest <= found.blocks <= found.most
    assert best_split(np.zeros(0)) == (0, 0.0, 0, 0)


def test_recovery_gains_under_the_old_law_and_loses_under_the_fault() -> None:
    rng = np.random.default_rng(2)
    for shift in (0.05, 0.6, -3.0):
        assert np.mean([gain_of_sum(z, shift) for z in rng.standard_normal(4_000)]) > 0
        faulty = max(abs(shift), 0.3) * np.sign(shift)
        assert np.mean([gain_of_sum(z + faulty, shift) for z in rng.standard_normal(4_000)]) < 0
    for rate, null in ((0.06, 0.01), (0.01, 0.06)):
        assert np.mean([gain_of_count(k, rate, null) for k in rng.poisson(25 * null, 4_000)]) > 0
        assert np.mean([gain_of_count(k, rate, null) for k in rng.poisson(25 * rate, 4_000)]) < 0


def test_a_recovery_is_an_e_value_under_the_fault() -> None:
    """Evidence for recovery has mean at most 1 while the fault lasts."""
    rng = np.random.default_rng(3)
    z = rng.standard_normal(200_000) + 2.0
    assert np.mean(np.exp([gain_of_sum(x, 2.0) for x in z])) <= 1.02


def test_the_design_effect_starts_at_its_floor_and_learns(compiled: Target) -> None:
    noise = DesignEffect(compiled, 1.0)
    quiet, loud = np.zeros(compiled.counts), np.full(compiled.counts, 5.0)
    noise.refresh(0, quiet)
    assert noise.v[:, 0] == pytest.approx(np.maximum(FLOOR, noise.v[:, 0]))
    rng = np.random.default_rng(4)
    free = np.zeros(len(compiled.scores), np.bool_)
    for _ in range(1_500):
        noise.learn(rng.standard_normal((1, len(compiled.scores))), free)
    noise.refresh(FLOOR_BLOCKS, loud)
    assert noise.v[0].mean() == pytest.approx(1.0, abs=0.1)
    shared = DesignEffect(compiled, 1.0)
    for _ in range(400):
        burst = rng.standard_normal(len(compiled.scores))
        shared.learn(np.tile(burst, (4, 1)), free)
    shared.refresh(FLOOR_BLOCKS, loud)
    assert shared.v[-1].mean() > 2.5


def test_a_reference_of_the_same_traffic_is_worth_more() -> None:
    file, same = (
        Target(r, target(Context("x", r)).binning)
        for r in (streams.reference(1), streams.reference(1, origin="same_traffic"))
    )
    assert file.effective < 100 < same.effective < 1_000


def test_an_empty_reference_is_refused() -> None:
    reference = streams.reference(1)
    empty = replace(reference, rows=streams.part(reference.rows, 0, 0))
    with pytest.raises(ValueError, match="the reference has no rows"):
        target(Context("x", empty))


def test_sums_wait_before_the_null_takes_them(compiled: Target) -> None:
    null, everything = Null(compiled, 4_000.0), np.ones(len(compiled.scores), np.bool_)
    null.m[:], null.b[:] = 4_000.0, 4_000.0
    before = null.s1.copy()
    for _ in range(2):
        null.absorb(4, np.ones(compiled.sums), np.ones(compiled.sums), np.zeros(compiled.counts), everything)
    assert (null.s1 == before).all() and (null.m == 4_000.0).all()
    other = Null(compiled, 4_000.0)
    other.load(null.page())
    for each in (null, other):
        each.absorb(4, np.ones(compiled.sums), np.ones(compiled.sums), np.zeros(compiled.counts), everything)
        assert (each.s1 != before).all()
    assert (null.s1 == other.s1).all()
    null.drop_waiting()
    assert not len(null.page()["late_sums"])


def test_streams_that_differ_by_chance_only_share_a_design_effect_and_one_that_stands_out_does_not(
    compiled: Target,
) -> None:
    noise, rng = DesignEffect(compiled, 1.0), np.random.default_rng(7)
    own = np.flatnonzero(compiled.family == FAMILIES.index("loc"))
    residuals = rng.standard_normal((4 * 200, len(compiled.scores)))
    residuals[:, own[0]] += 0.9 * np.repeat(rng.standard_normal(100), 8)
    for group in residuals.reshape(200, 4, -1):
        noise.learn(group, np.zeros(len(compiled.scores), np.bool_))
    noise.refresh(FLOOR_BLOCKS, np.full(compiled.counts, 5.0))
    assert noise.v[4, own[0]] > 2.5
    assert noise.v[4, own[1:]].max() < 1.35


@given(st.lists(st.floats(0.5, 5.0), min_size=7, max_size=7), st.lists(st.floats(1, 400), min_size=7, max_size=7))
def test_the_closest_ascending_values_are_those_of_isotonic_regression(
    values: list[float], weights: list[float]
) -> None:
    pools: list[list[float]] = []  # [mean, weight, values]: adjacent violators are pooled
    for value, weight in zip(values, weights, strict=True):
        pools.append([value, weight, 1])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            (a, p, m), (b, q, n) = pools[-2:]
            pools[-2:] = [[(a * p + b * q) / (p + q), p + q, m + n]]
    wanted = np.repeat([p[0] for p in pools], [int(p[2]) for p in pools])
    made = ascending(np.array(values)[:, None], np.array(weights))[:, 0]
    np.testing.assert_allclose(made, wanted, rtol=1e-9)


def test_a_model_without_any_sum_to_watch_stores_what_it_has() -> None:
    """One number that never varies, and nothing predicted: there are counts only."""
    rows = [Event(EventType.PREDICTION, float(i), model="m", features={"a": 1.0}) for i in range(50)]
    made = target(Context("model:/m", build_reference(rows, infer_schema(rows), "file", "model:/m")))
    assert made.sums == 0 and made.counts > 0
    null, nothing = Null(made, 4_000.0), np.zeros(0)
    for _ in range(40):
        null.absorb(4, nothing, nothing, np.zeros(made.counts), np.ones(made.counts, np.bool_))
        page = null.page()
    assert page["late_sums"].shape == (0, 2, 0) and len(page["late"]) < 40
    again = Null(made, 4_000.0)
    again.load(page)
    assert (again.page()["k"] == page["k"]).all()
