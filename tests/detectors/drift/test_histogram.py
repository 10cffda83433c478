"""Whole histograms: cells and their noise, fills that no moment shows, what is said of them, and recovery."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detectors.base import F64, Finding, Views, registry
from detectors.drift.cell_noise import LAG, LONGEST, STRETCH, CellNoise
from detectors.drift.cells import GROUP, CellBets, Cells
from detectors.drift.histogram import HistogramDrift
from detectors.views.bins import NumericColumn
from monitor.lineup import PanelSettings
from monitor.panel import Panel
from tests.long import simulated
from tests.long.simulated import PER_DAY, Table, Watch, batches, drawn, reference

NAME = "histogram_drift"
EDGES = np.linspace(0.0, 1.0, 17)
UNIFORM = np.array([0.0, *np.full(16, 1 / 16), 0.0, 0.0, 0.0])


def uniform_cells(columns: int = 1) -> Cells:
    """Columns of 16 equal bins."""
    made = [NumericColumn(f"x{i}", False, EDGES) for i in range(columns)]
    return Cells(made, [UNIFORM] * columns, 1_000)


def spoilt(table: Table, since: int, until: int, share: float) -> Table:
    """From event `since` to `until` a share of n0 is its most usual value."""
    on = np.arange(len(table.score))
    hit = (on >= since) & (on < until) & (np.random.default_rng(1).random(len(on)) < share)
    numeric = table.numeric.copy()
    numeric[hit, 0] = 0.0
    return replace(table, numeric=numeric)


def test_eighths_join_the_bins_and_counts_are_those_of_every_group() -> None:
    cells = uniform_cells(2)
    assert cells.fine == 2 * 18 and len(cells.column) == 2 * 18 + 2 * 8
    bins = np.random.default_rng(0).integers(0, 20, (3 * GROUP, 2)).astype(np.int16)
    counts = cells.counts(bins)
    for g in range(3):
        part = bins[g * GROUP : (g + 1) * GROUP]
        for c in range(2):
            expected = np.bincount(part[:, c], minlength=20)[:18]
            np.testing.assert_array_equal(counts[g, c * 18 : (c + 1) * 18], expected)
            assert cells.numbers(counts[g])[c] == expected.sum()
    joined = cells.joined(counts)
    np.testing.assert_array_equal(joined[:, 36:44].sum(axis=1), cells.numbers(counts)[:, 0])
    assert not cells.on[[0, 17]].any() and cells.on[1:17].all()


@pytest.mark.parametrize("numbers", [100, 40, 1])
@pytest.mark.parametrize("known", [300.0, 4_000.0])
def test_no_bet_expects_to_gain_without_a_change(numbers: int, known: float) -> None:
    """Over Poisson counts at a rate that is Gamma distributed by what was seen E has mean 1 at most, exactly 1 in full
    groups where the bet is on."""
    cells = uniform_cells()
    bets = CellBets(cells)
    k = cells.of_reference * known + 0.5
    odds = bets.odds(k, np.array([known]), np.ones(len(k)), np.ones(len(k)))
    on = odds.slope != 0
    assert on.any() and (on.all() or known == 300.0)
    drift = numbers * (bets.factor[on] - 1) / known
    mean = (1 - drift) ** -k[bets.cell][on] * np.exp(numbers * odds.base[on])
    assert (mean <= 1 + 1e-9).all()
    if numbers == GROUP:
        np.testing.assert_allclose(mean, 1)
    log = bets.log_e(odds, np.full((1, len(k)), 2.0), np.full((1, 1), float(numbers)))[0]
    np.testing.assert_allclose(log, 2 * odds.slope + numbers * odds.base)


def test_noise_is_that_of_counts_and_grows_with_bursts() -> None:
    def learnt(burst: int) -> F64:
        cells, rng = uniform_cells(4), np.random.default_rng(5)
        noise = CellNoise(cells)
        share = cells.of_reference[:18]
        wanted = cells.joined(np.tile(share * GROUP, 4))
        for stretch in range(60):
            groups = [
                np.concatenate([rng.multinomial(GROUP // burst, share) * burst for _ in range(4)]) for _ in "1234"
            ]
            apart = cells.joined(np.array(groups, np.float64)) - wanted
            noise.learn(stretch, apart, STRETCH * wanted, np.full(4, 1e6), np.zeros(4, np.bool_))
        assert noise.windows == (60 - LAG) // LONGEST
        return noise.v[cells.on]

    assert learnt(1).max() < 2.0 and np.median(learnt(1)) < 1.3
    assert 3.0 < np.median(learnt(4)) < 7.0


@pytest.mark.parametrize(("share", "most"), [(0.05, 900), (0.1, 400)])
def test_a_fill_that_no_moment_shows_is_found_and_told(share: float, most: int) -> None:
    table = spoilt(drawn("iid", 3, 14_000), 10_000, 14_000, share)
    watch = Watch(reference("iid", 3, 1_000), name=NAME)
    alarm = next(watch.alarms(batches(table)))
    assert 10_000 <= alarm.position < 10_000 + most
    told = watch.detector.explain(alarm.streams, alarm.block)
    assert abs(told.onset - (simulated.START + 10_000 * 86_400 / PER_DAY)) < 200
    measure = told.measures[0]
    assert measure.field == "n0" and measure.unit == "share" and measure.profile is not None
    assert measure.statistic.startswith("values above") and " up to " in measure.statistic
    low, high = (float(x) for x in measure.statistic.removeprefix("values above ").split(" up to "))
    assert low < 0.0 <= high
    assert measure.expected < 0.03 and measure.observed > measure.expected + 0.6 * share
    assert told.effects["n0"] > 0.15
    assert list(Watch(reference("iid", 3, 1_000)).alarms(batches(table))) == []  # moments do not see it


def test_it_recovers_and_finds_the_next_fill() -> None:
    table = spoilt(spoilt(drawn("iid", 4, 20_000), 8_000, 10_000, 0.1), 15_000, 20_000, 0.1)
    watch = Watch(reference("iid", 4, 1_000), name=NAME)
    alarms, opened = [], []
    for one in batches(table):
        for evidence in watch.detector.update(one, Views(one, watch.context)):
            verdict = watch.account.judge(evidence)  # type: ignore[arg-type]
            watch.detector.react(verdict)
            alarms += [] if verdict.alarm is None else [verdict.alarm.position]
            opened += [one.start] * bool(verdict.recovered)
    assert len(alarms) == 2 and 8_000 < alarms[0] < 9_000 and 15_000 < alarms[1] < 16_000
    assert len(opened) == 1 and 10_000 < opened[0] < 14_000


def test_what_changes_from_group_to_group_and_evens_out_is_noise() -> None:
    """The weekday of half-hourly events: a group knows two of them, a stretch all."""
    cells = uniform_cells()
    noise = CellNoise(cells)
    wanted = cells.joined(cells.of_reference[:18] * GROUP)
    for stretch in range(40):
        fine = np.zeros((STRETCH, 18))
        for g in range(STRETCH):
            fine[g, 1 + 4 * g : 5 + 4 * g] = GROUP / 4
        noise.learn(stretch, cells.joined(fine) - wanted, STRETCH * wanted, np.full(1, 1e6), np.zeros(1, np.bool_))
    assert noise.v[cells.on].min() > 10


def test_nothing_is_bet_before_the_noise_was_seen() -> None:
    table = spoilt(drawn("iid", 5, 7_000), 3_000, 7_000, 0.3)
    watch = Watch(reference("iid", 5, 1_000), name=NAME)
    assert watch.detector.waits_for == GROUP * STRETCH * (3 * LONGEST + LAG) == 6_000
    for one in batches(table.rows(np.arange(5_900))):
        for evidence in watch.detector.update(one, Views(one, watch.context)):
            assert not evidence.log_e.any()  # type: ignore[union-attr]
            watch.detector.react(watch.account.judge(evidence))  # type: ignore[arg-type]


def test_a_daily_swing_and_missing_values_are_none_of_its_business() -> None:
    table = drawn("diurnal", 6, 30_000)
    table.numeric[np.random.default_rng(0).random(30_000) < np.where(np.arange(30_000) < 12_000, 0, 0.3), 2] = np.nan
    watch = Watch(reference("diurnal", 6, 1_000), 10.0, name=NAME)
    assert list(watch.alarms(batches(table))) == []


def test_a_column_that_moves_is_one_alarm_in_large_batches_too() -> None:
    """The histogram is latched with its column, and does not judge what came before its recovery once that is known."""
    reference_ = replace(reference("iid", 7, 1_000), version="moved")
    settings = {name: {"enabled": name in ("predictive_drift", NAME)} for name in registry()}
    panel = Panel("model:/simulated", "simulated", reference_, PanelSettings(detectors=settings))
    found: list[Finding] = []
    table = drawn("iid", 7, 20_000)
    table.numeric[10_000:14_000, 0] += 1.0
    for one in batches(table):
        panel.detect(one, lambda finding, rows: found.append(finding))
    assert len(found) == 1 and found[0].detector == "predictive_drift"
    assert 10_000 <= found[0].position < 10_200 and panel.failures == [] and panel.account.latches == ()
    whole = next(r.detector for r in panel._runners if r.detector.name == NAME)
    assert isinstance(whole, HistogramDrift) and not whole._latched.any()
