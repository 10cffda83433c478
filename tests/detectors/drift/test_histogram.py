"""Whole histograms: cells and their noise, fills that no moment shows, what is said of them, and recovery."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detectors.base import F64, Finding, Rows, Views, registry
from detectors.drift.cell_noise import LAG, LONGEST, STRETCH, CellNoise
from detectors.drift.cell_null import CellNull
from detectors.drift.cells import GROUP, CellBets, Cells
from detectors.drift.histogram import HistogramDrift
from detectors.views.bins import NumericColumn
from monitor.cli.reference_paging import with_reference
from monitor.intake.columns import build_reference, infer_schema
from monitor.intake.events import Event, EventType
from monitor.lineup import PanelSettings
from monitor.panel import Panel
from tests.long import simulated
from tests.long.simulated import PER_DAY, Law, Table, Watch, batches, drawn, reference

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


class Both:
    """Moments and histograms of a model, as a daemon runs them."""

    def __init__(self, law: Law, seed: int) -> None:
        settings = {name: {"enabled": name in ("predictive_drift", NAME)} for name in registry()}
        target = replace(reference(law, seed, 1_000), version="both")
        self.panel = Panel("model:/simulated", "simulated", target, PanelSettings(detectors=settings))
        self.found: list[Finding] = []

    def feed(self, table: Table) -> Both:
        for one in batches(table):
            self.panel.detect(one, self.report)
        assert self.panel.failures == []
        return self

    def report(self, finding: Finding, _: Rows) -> None:
        self.found.append(finding)

    @property
    def whole(self) -> HistogramDrift:
        found = next(r.detector for r in self.panel._runners if r.detector.name == NAME)
        assert isinstance(found, HistogramDrift)
        return found


def test_a_column_that_moves_is_one_alarm_in_large_batches_too() -> None:
    """The histogram is latched with its column, and does not judge what came before its recovery once that is known."""
    table = drawn("iid", 7, 20_000)
    table.numeric[10_000:14_000, 0] += 1.0
    both = Both("iid", 7).feed(table)
    assert [f.detector for f in both.found] == ["predictive_drift"] and 10_000 <= both.found[0].position < 10_200
    assert both.panel.account.latches == () and not both.whole._latched.any()


def test_reference_show_says_how_long_it_waits() -> None:
    """Noise is learnt in stretches: after most of the events a few are still missing."""
    for events, waits in ((3_500, True), (5_900, True), (6_100, False)):
        both = Both("iid", 9).feed(drawn("iid", 9, events))
        told = next(row for row in with_reference(both.panel, events, ()) if row["detector"] == NAME)
        assert (told["can_page"], "events more" in told["reason"]) == (("no", True) if waits else ("yes", False))


def test_a_fill_that_ends_at_another_hour_is_one_alarm() -> None:
    """While it lasts the day goes on, and nulls do not."""
    table = spoilt(drawn("diurnal", 3, 87_000), 25_000, 75_000, 0.1)
    both = Both("diurnal", 3).feed(table)
    assert [f.detector for f in both.found] == [NAME] and both.panel.account.latches == ()


def test_an_early_alarm_of_another_column_blinds_neither_detector() -> None:
    table = spoilt(drawn("iid", 6, 9_000), 6_500, 9_000, 0.3)
    table.numeric[300:, 5] += 1.5
    both = Both("iid", 6).feed(table)
    assert [(f.detector, f.measures[0].field) for f in both.found] == [("predictive_drift", "n5"), (NAME, "n0")]
    assert both.whole.waits_for == 0


def test_a_value_that_was_gone_for_long_is_not_impossible() -> None:
    cells = uniform_cells()
    null = CellNull(cells, Watch(reference("iid", 1, 100)).drift._target, 4_000.0)
    x = cells.joined(np.array([0.0, *np.full(15, 25.0), 0.0, 0.0]))
    for _ in range(5_000):
        null.absorb(x, np.full(1, 375.0), np.ones(1, np.bool_))
        null.forget()
    assert null.share[16] == pytest.approx(0.5 / 4_000) and null.b[0] == pytest.approx(4_000)


def test_a_column_is_worth_the_numbers_that_it_has() -> None:
    """Of 500 rows, of which 1 % hold one: five events, not a hundred."""
    sparse = UNIFORM * 0.01
    sparse[-2] = 0.99
    made = [NumericColumn(f"x{i}", False, EDGES) for i in range(3)]
    cells = Cells(made, [sparse, UNIFORM, np.array([*np.zeros(18), 1.0, 0.0])], 500)
    null = CellNull(cells, Watch(reference("iid", 1, 100)).drift._target, 4_000.0)
    assert null.b[0] == pytest.approx(0.5 + 1 / (1 / 5 + 0.01)) and null.b[1] == pytest.approx(0.5 + 1 / 0.012)
    assert null.b[2] == 0.5 and np.isfinite(null.share).all()


def test_a_model_without_numeric_columns_has_none() -> None:
    events = [
        Event(EventType.PREDICTION, 1e9 + i, features={"region": ("EU", "US")[i % 2]}, prediction="yes")
        for i in range(200)
    ]
    whole = build_reference(events, infer_schema(events), "file", "model:/m")
    panel = Panel("model:/m", "m", whole, PanelSettings())
    assert panel.off[NAME] == "no numeric field has several values in the reference"


def test_values_with_a_bin_each_are_called_by_name() -> None:
    """Of n9, a small whole number, one value becomes frequent."""
    table = drawn("iid", 8, 12_000)
    table.numeric[9_000:, 9] = np.where(np.arange(3_000) % 3 == 0, 2.0, table.numeric[9_000:, 9])
    watch = Watch(reference("iid", 8, 1_000), name=NAME)
    alarm = next(watch.alarms(batches(table)))
    assert watch.detector.explain(alarm.streams, alarm.block).measures[0].statistic == "values at 2"
