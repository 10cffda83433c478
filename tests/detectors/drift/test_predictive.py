from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest

from detectors.account import SumAccount
from detectors.base import Alarm, Batch, Cell, Context, Evidence, Explanation, Latch, Page, StateError, Verdict, Views
from detectors.drift.params import Params
from detectors.drift.predictive import PredictiveDrift
from tests.detectors import streams
from tests.detectors.streams import SCORE

MONTH = 30 * 86_400.0
AT = 20_000


@dataclass
class Run:
    """A detector with its account, and all it said."""

    rows: int = 1_000
    seed: int = 1
    params: Params = field(default_factory=Params)

    def __post_init__(self) -> None:
        reference = streams.reference(self.seed, self.rows)
        self.context = Context("model:/simulated", reference, streams.PER_DAY)
        self.detector = PredictiveDrift(self.context, self.params)
        self.account = SumAccount(1.0, MONTH)
        d = self.detector
        self.account.register(d.name, d.streams(), d.bets(), d.share, reference.outputs)
        self.log_e: list[bytes] = []
        self.elapsed: list[float] = []
        self.positions: list[int] = []
        self.alarms: list[tuple[Alarm, Explanation]] = []
        self.recoveries: list[tuple[int, Latch]] = []
        self.stored: dict[str, Page] = {}

    def feed(self, batches: Iterable[Batch]) -> Run:
        for batch in batches:
            for evidence in self.detector.update(batch, Views(batch, self.context)):
                self._settle(evidence, batch)
        return self

    def save(self) -> None:
        self.stored |= self.detector.dirty()

    def _settle(self, evidence: Evidence, batch: Batch) -> None:
        verdict = self.account.judge(evidence)
        assert (evidence.position - batch.start == evidence.row).all() and (evidence.row >= 0).all()
        if evidence.role == "alarm":
            self.log_e += [row.tobytes() for row in evidence.log_e[: verdict.consumed]]
            self.elapsed += evidence.elapsed[: verdict.consumed].tolist()
            self.positions += evidence.position[: verdict.consumed].tolist()
        self.detector.react(verdict)
        if verdict.alarm is not None:
            self.alarms.append((verdict.alarm, self.detector.explain(verdict.alarm.streams, verdict.alarm.block)))
        self.recoveries += [(int(evidence.position[0]), latch) for latch in verdict.recovered]

    def fields(self, i: int = 0) -> list[str]:
        watched = self.detector.streams()
        return [f for s in self.alarms[i][0].streams for f in watched[s].fields]

    def kind(self, i: int = 0) -> str:
        return self.detector.streams()[self.alarms[i][0].leading].kind


@cache
def shifted(drift: str, seed: int, at: int = AT, after: int = 1_500) -> Batch:
    return streams.join(streams.shifted(seed, at + after, at, drift))


def cut(batch: Batch, size: int) -> list[Batch]:
    return list(streams.cut(batch, [size] * (-(-len(batch) // size))))


def delay(drift: str, seed: int, rows: int = 1_000) -> tuple[int, Run]:
    run = Run(rows, seed).feed(cut(shifted(drift, seed), 1_024))
    assert run.alarms, f"{drift} was not found"
    return run.alarms[0][0].position + 1 - AT, run


# --- what it finds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [200, 1_000])
def test_no_alarm_without_drift(rows: int) -> None:
    assert Run(rows, seed=11).feed(streams.clean(11, 20_000)).alarms == []


@pytest.mark.parametrize(("drift", "column", "kind", "bound"), [
    ("mean.5", "n0", "feature_drift", 250),
    ("scale1.5", "n0", "feature_drift", 220),
    ("new5", "c2", "data_quality", 220),
    ("missing5", "n1", "data_quality", 600),
    ("cat10pp", "c3", "feature_drift", 600),
    ("unit10", "n3", "feature_drift", 50),
    ("corr.6", "n11", "multivariate_drift", 250),
    ("prior20", SCORE, "prediction_drift", 400),
])  # fmt: skip
def test_it_finds_a_change_soon_and_names_it(drift: str, column: str, kind: str, bound: int) -> None:
    delays = []
    for seed in (21, 22, 23):
        events, run = delay(drift, seed)
        delays.append(events)
        named = run.fields()
        assert column in named or (drift == "prior20" and set(named) <= {SCORE, "prediction.class"})
        assert drift == "unit10" or run.kind() in (kind, "prediction_drift")
        explanation = run.alarms[0][1]
        change = streams.START + AT * 86_400 / streams.PER_DAY
        assert abs(explanation.onset - change) < 150 * 86_400 / streams.PER_DAY
        assert explanation.onset_interval[0] <= explanation.onset <= explanation.onset_interval[1]
    assert 0 < sorted(delays)[1] <= bound


def test_a_small_reference_is_no_slower_once_traffic_was_seen() -> None:
    assert delay("mean.5", 21, rows=200)[0] <= delay("mean.5", 21, rows=1_000)[0] + 75


def test_measures_are_in_the_units_of_the_field() -> None:
    _, run = delay("unit10", 21)
    measure = next(m for m in run.alarms[0][1].measures if m.field == "n3")
    raw = streams.reference(21).rows.numeric
    mean = raw.values[:, 3].mean()
    assert measure.unit in ("mean", "sd", "share") and measure.n % 25 == 0
    wanted = {"mean": mean, "sd": raw.values[:, 3].std()}.get(measure.unit)
    if wanted is not None:
        assert measure.expected == pytest.approx(wanted, rel=1e-9)
        assert 5 < measure.observed / measure.expected < 15
    _, run = delay("missing5", 21)
    measure = run.alarms[0][1].measures[0]
    assert (measure.field, measure.statistic, measure.unit) == ("n1", "missing", "share")
    since = round((measure.since - streams.START) * streams.PER_DAY / 86_400)
    lost = shifted("missing5", 21).numeric.status[since : since + measure.n, 1] == Cell.NULL
    assert measure.observed == pytest.approx(lost.mean())
    assert measure.expected == pytest.approx((raw.status[:, 1] == Cell.NULL).mean())


@pytest.mark.parametrize("where", ["reference", "traffic", "both"])
def test_what_is_told_is_that_of_the_other_values_where_one_is_absurd(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    batch, sound = shifted("mean1", 21), Run(1_000, 21)
    sound.feed(cut(batch, 1_024))
    column = streams.NUMERIC.index(sound.fields()[0])
    if where != "traffic":
        taught = streams.reference(21)
        taught = replace(taught, rows=streams.with_cell(taught.rows, 100, column, 1e308))
        monkeypatch.setattr(streams, "reference", lambda *_: taught)
    if where != "reference":
        batch = streams.with_cell(batch, AT + 30, column, 1e308)
    run = Run(1_000, 21)
    run.feed(cut(batch, 1_024))
    wanted = {m.statistic: m for m in sound.alarms[0][1].measures if m.field == sound.fields()[0]}
    told = {m.statistic: m for m in run.alarms[0][1].measures if m.field == sound.fields()[0]}
    assert "mean" in told and {"median", "wasserstein"} <= told.keys()
    for name in told.keys() & wanted.keys():
        assert told[name].observed == pytest.approx(wanted[name].observed, abs=0.5)
        assert told[name].expected == pytest.approx(wanted[name].expected, abs=0.1)
        profile = told[name].profile
        assert profile is None or max(map(abs, profile.edges)) < 1e3


def test_a_pair_is_explained_by_its_correlation() -> None:
    _, run = delay("corr.6", 21)
    alarm, explanation = run.alarms[0]
    assert run.detector.streams()[alarm.leading].fields == ("n0", "n11")
    measure = explanation.measures[0]
    since = round((measure.since - streams.START) * streams.PER_DAY / 86_400)
    moved = shifted("corr.6", 21).numeric.values[since : since + measure.n]
    assert (measure.field, measure.statistic, measure.unit) == ("n0 × n11", "correlation", "correlation")
    assert measure.expected == pytest.approx(0.0, abs=0.1) and measure.n % 25 == 0
    assert measure.observed == pytest.approx(np.corrcoef(moved[:, 0], moved[:, 11])[0, 1], abs=0.05)


@pytest.mark.parametrize("drift", ["unit10", "corr.6"])
def test_mean_scores_come_back_from_residuals(drift: str) -> None:
    """Also where the residuals are far beyond what bets take."""
    _, run = delay(drift, 21)
    d, compiled = run.detector, run.detector._target
    first, end = d._block - 20, d._block
    index = compiled.binning.index(shifted(drift, 21))[first * 25 : end * 25]
    sums = compiled.block_sums(index)[0]
    found = [d._history.mean(i, first, end) for i in range(compiled.sums)]
    assert found == pytest.approx(sums.mean(axis=0) / 25, abs=1e-4)


def gap(events: int, after: int = 0) -> Batch:
    """A mean that is wrong from the first of `events` events, and right for `after` more."""
    bad = streams.join(streams.shifted(5, events, 0, "mean1"))
    if not after:
        return bad
    good = streams.join(streams.clean(6, events + after))
    return streams.join([bad, streams.part(good, events, events + after)])


def test_a_gap_from_the_first_event_is_found_against_the_target_and_recovers() -> None:
    run = Run(seed=5).feed(cut(gap(9_000, 4_000), 1_024))
    assert len(run.alarms) == 1 and len(run.recoveries) == 1
    alarm, explanation = run.alarms[0]
    assert 1_000 < alarm.position < 9_000 and "n0" in run.fields()
    assert alarm.leading_bet >= run.detector._split
    assert explanation.onset < streams.START + 500 * 86_400 / streams.PER_DAY
    measure = explanation.measures[0]
    assert measure.field == "n0" and measure.n == 1_000 and measure.observed == pytest.approx(1.0, abs=0.1)
    assert measure.expected == pytest.approx(0.0, abs=0.1)
    assert 9_000 < run.recoveries[0][0] < 10_500


def test_a_slow_drift_is_found_with_an_interval_that_begins_early() -> None:
    whole = streams.join(streams.shifted(7, 32_000, 2_000, "slow2"))
    run = Run(seed=7).feed(cut(whole, 1_024))
    assert run.alarms and run.fields()[0] == "n0" and 2_000 < run.alarms[0][0].position < 17_000
    explanation = run.alarms[0][1]
    events = [(t - streams.START) * streams.PER_DAY / 86_400 for t in explanation.onset_interval]
    assert 0 <= events[0] < 8_000 and events[0] <= events[1] < run.alarms[0][0].position


def test_a_latched_field_recovers_and_can_alarm_again() -> None:
    bad = streams.join(streams.shifted(5, 3_000, 0, "mean1"))
    good = streams.join(streams.clean(6, 13_000))
    whole: list[Batch] = []
    position = 0
    early, late = streams.part(good, 0, 10_000), streams.part(good, 10_000, 13_000)
    for piece in (early, bad, late, bad):
        whole += cut(_moved(piece, position), 1_000)
        position += len(piece)
    run = Run(seed=5).feed(whole)
    assert len(run.alarms) >= 2 and len(run.recoveries) >= 1
    first, again = run.alarms[0][0], run.alarms[-1][0]
    assert 10_000 <= first.position < 10_200 and "n0" in run.fields(0)
    assert 13_000 <= run.recoveries[0][0] < 13_400
    assert 16_000 <= again.position < 16_400 and "n0" in run.fields(len(run.alarms) - 1)
    assert not any(11_000 <= x.position < 13_000 or 13_400 <= x.position < 16_000 for x, _ in run.alarms)


def test_the_season_goes_on_while_an_incident_keeps_the_null_as_it_was() -> None:
    """Without that one chance alarm under a daily swing was followed by up to eight more, of the other fields."""
    run = Run()
    calm = run.detector._season.copy()
    run.feed(cut(shifted("mean.5", 1, after=2_500), 500))
    assert run.alarms and run.detector._age > 1_000
    assert (run.detector._season > calm).all()
    run.save()
    again = Run()
    again.detector.restore(run.stored)
    assert (again.detector._season == run.detector._season).all()


def test_nothing_is_learnt_while_an_incident_is_fresh() -> None:
    run = Run(seed=21).feed(cut(shifted("mean.5", 21), 1_024))
    assert run.alarms
    before = run.detector._null.snapshot()
    position = len(shifted("mean.5", 21))
    run.feed([_moved(streams.part(shifted("mean.5", 21), AT, AT + 1_000), position)])
    after = run.detector._null.snapshot()
    assert all((before[name] == after[name]).all() for name in before)


# --- hostile numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e12, 1e308, -1e308])
def test_one_hostile_number_neither_alarms_nor_blinds(value: float) -> None:
    status = Cell.VALID if np.isfinite(value) else Cell.NOT_FINITE
    whole = shifted("mean.5", 21)
    for row in (5, 9_000, AT - 30, AT + 20):
        whole = streams.with_cell(whole, row, 0, value if status == Cell.VALID else 0.0, status)
    run = Run(seed=21).feed(cut(whole, 1_024))
    found, clean = run.alarms[0][0].position + 1 - AT, delay("mean.5", 21)[0]
    assert 0 < found <= max(1.1 * clean, clean + 25)
    assert all(np.isfinite([m.observed, m.expected]).all() for m in run.alarms[0][1].measures)


def test_floods_of_hostile_numbers_are_survived_and_found() -> None:
    whole = streams.join(streams.clean(7, 4_000))
    values = whole.numeric.values.copy()
    values[3_000:, 4] = np.resize([1e308, -1e308, 1e12], 1_000)
    run = Run(seed=7).feed(cut(replace(whole, numeric=replace(whole.numeric, values=values)), 500))
    assert run.alarms and "n4" in run.fields() and run.alarms[0][0].position < 3_100


# --- cuts and state -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [37, 1_024])
def test_evidence_against_the_target_is_byte_equal_for_any_cut(size: int) -> None:
    run, other = Run(seed=5).feed([gap(6_000, 2_000)]), Run(seed=5).feed(cut(gap(6_000, 2_000), size))
    assert run.alarms and run.recoveries and run.log_e == other.log_e
    assert [e for _, e in run.alarms] == [e for _, e in other.alarms]


@pytest.mark.parametrize("size", [1, 7, 25, 1_024])
def test_evidence_is_byte_equal_for_any_cut(size: int) -> None:
    whole = shifted("mean1", 31, 2_000, 800)
    run, other = Run(seed=31).feed([whole]), Run(seed=31).feed(cut(whole, size))
    assert run.alarms and run.log_e == other.log_e and run.positions == other.positions and run.elapsed == other.elapsed
    assert [(replace(a, row=0, block=0), e) for a, e in run.alarms] == [
        (replace(a, row=0, block=0), e) for a, e in other.alarms
    ]
    assert run.positions == list(range(24, 2_800, 25))


def test_elapsed_is_known_before_the_block_begins() -> None:
    run = Run().feed(cut(streams.join(streams.clean(1, 500)), 60))
    second = 86_400 / streams.PER_DAY
    assert run.elapsed[:3] == pytest.approx([0.0, 24 * second, 25 * second])


def test_time_that_runs_backwards_adds_nothing() -> None:
    whole = streams.join(streams.clean(1, 500))
    backwards = replace(whole, time=whole.time[::-1].copy())
    assert Run().feed([backwards]).elapsed == [0.0] * 20


@pytest.mark.parametrize("stop", [10, 1_033, 2_010, 2_099, 2_137, 2_500])
def test_a_restored_detector_goes_on_as_the_old_one(stop: int) -> None:
    whole = shifted("mean1", 31, 2_000, 800)
    one, two = Run(seed=31), Run(seed=31)
    for batch in cut(streams.part(whole, 0, stop), 90):
        one.feed([batch])
        one.save()
    two.feed(cut(streams.part(whole, 0, stop), 90))
    two.detector = PredictiveDrift(two.context, two.params)
    two.detector.restore({name: {k: v.copy() for k, v in page.items()} for name, page in one.stored.items()})
    one.feed([streams.part(whole, stop, len(whole))])
    two.feed([streams.part(whole, stop, len(whole))])
    assert one.log_e == two.log_e and one.alarms == two.alarms and one.alarms
    assert _equal(one.detector.dirty()["state"], two.detector.dirty()["state"])


@pytest.mark.parametrize("stop", [90, 3_020, 5_990, 6_120])
def test_a_restored_detector_compares_with_the_target_as_the_old_one(stop: int) -> None:
    whole = gap(6_000, 2_000)
    one = Run(seed=5, params=Params(season_hours=0.5)).feed(cut(streams.part(whole, 0, stop), 90))
    one.save()
    two = Run(seed=5, params=Params(season_hours=0.5)).feed(cut(streams.part(whole, 0, stop), 90))
    two.detector = PredictiveDrift(two.context, two.params)
    two.detector.restore({name: {k: v.copy() for k, v in page.items()} for name, page in one.stored.items()})
    for run in (one, two):
        run.feed([streams.part(whole, stop, len(whole))])
    assert one.log_e == two.log_e and one.alarms == two.alarms and one.alarms
    assert one.recoveries == two.recoveries
    assert _equal(one.detector.dirty()["state"], two.detector.dirty()["state"])


def test_a_quiet_model_writes_only_what_changed() -> None:
    run = Run().feed(streams.clean(1, 2_000))
    assert run.detector.dirty() and not run.detector.dirty()
    run.feed([streams.part(streams.join(streams.clean(1, 2_010)), 2_000, 2_010)])
    assert set(run.detector.dirty()) == {"state"}


def test_pages_of_another_reference_are_refused_and_nothing_changes() -> None:
    run, other = Run(seed=1).feed(streams.clean(1, 500)), Run(rows=150, seed=2)
    other.feed(streams.clean(2, 300))
    with pytest.raises(StateError, match="does not fit the reference"):
        other.detector.restore(run.detector.dirty())
    assert len(other.feed(streams.clean(2, 300)).log_e) == 24


def test_an_alarm_of_another_detector_latches_and_its_recovery_opens() -> None:
    run = Run().feed(streams.clean(1, 1_000))
    name = run.detector.name
    alarm = Alarm("other", (0,), 0, 0, 0, 1_000, 9.0)
    latch = Latch("1:x", name, (0, 1), 0)
    run.detector.react(Verdict("other", 1, alarm, (latch,)))
    assert run.detector._latched.nonzero()[0].tolist() == [0, 1]
    run.feed([_moved(streams.join(streams.clean(2, 200)), 1_000)])
    run.detector.react(Verdict("other", 1, recovered=(latch,)))
    assert not run.detector._latched.any()


def test_an_ordered_reference_lowers_the_floor_at_the_start() -> None:
    plain = Run().detector
    ordered = replace(streams.reference(1), ordered=True)
    warmed = PredictiveDrift(Context("model:/simulated", ordered, streams.PER_DAY), Params())
    for detector in (plain, warmed):
        detector._open_group()
    assert warmed._noise.v.mean() < plain._noise.v.mean()


def test_a_column_without_valid_reference_values_is_watched_for_range() -> None:
    reference = streams.reference(1)
    status = reference.rows.numeric.status.copy()
    status[:, 2] = Cell.NULL
    empty = replace(reference, rows=replace(reference.rows, numeric=replace(reference.rows.numeric, status=status)))
    context = Context("model:/simulated", empty, streams.PER_DAY)
    detector = PredictiveDrift(context, Params())
    names = [s.name for s in detector.streams() if s.fields == ("n2",)]
    assert names == ["n2:out of range", "n2:missing", "n2:not a number"]


def _moved(batch: Batch, start: int) -> Batch:
    time = streams.START + (start + np.arange(len(batch))) * 86_400 / streams.PER_DAY
    return replace(batch, start=start, time=time)


def _equal(one: Mapping[str, np.ndarray], two: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[k], two[k], equal_nan=True) for k in one)
