"""The traffic of one subject: what alarms, what does not, and that neither cut nor restart changes anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from detectors.base import F64, Bool, Finding, Page, StateError, SubjectRef
from detectors.traffic.subject import Role, Traffic, TrafficSettings
from detectors.traffic.windows import Happened

START = 1_763_596_800.0
DAY = 86_400.0
Change = Callable[[Happened, Any], Happened]


def requests(days: float, seed: int, rate: float = 0.1, swing: float = 0.5) -> Happened:
    """Poisson requests with a daily swing, one error in a hundred, log-normal latency."""
    rng = np.random.default_rng(seed)
    n = rng.poisson(days * DAY * rate * (1 + swing))
    time = np.sort(rng.uniform(0, days * DAY, n))
    kept = rng.uniform(0, 1 + swing, n) < 1 + swing * np.sin(2 * np.pi * time / DAY)
    time = START + time[kept]
    error = (rng.uniform(size=len(time)) < 0.01).astype(np.float64)
    return Happened(time, error, rng.lognormal(3, 0.3, len(time)), np.full(len(time), np.nan))


def metric(days: float, seed: int, step: float = 300.0) -> Happened:
    """A metric with a season and an AR(1) of its own."""
    rng = np.random.default_rng(seed)
    time = START + np.arange(days * DAY / step) * step
    noise = np.zeros(len(time))
    for i, e in enumerate(rng.normal(0, 1, len(time)).tolist()):
        noise[i] = 0.7 * noise[i - 1] + e
    none = np.full(len(time), np.nan)
    return Happened(time, none, none, 50 + 5 * np.sin(2 * np.pi * time / DAY) + noise)


class Run:
    """A subject that notes what it finds, as a pipeline would."""

    def __init__(self, role: Role = "requests") -> None:
        self.traffic = Traffic(SubjectRef("route", "access"), role, TrafficSettings())
        self.found: list[Finding] = []
        self.pages: dict[str, Page] = {}

    def report(self, finding: Finding) -> str:
        self.found.append(finding)
        return f"incident at {finding.time}"

    def feed(self, events: Happened, cut: int = 1_024) -> Run:
        for begin in range(0, len(events), cut):
            self.traffic.add(events.part(begin, begin + cut), self.report)
            self.pages |= self.traffic.dirty()
        return self

    @property
    def opened(self) -> list[Finding]:
        return [f for f in self.found if f.action == "open"]


def after(events: Happened, day: float) -> Bool:
    made: Bool = events.time >= START + day * DAY
    return made


def changed(events: Happened, **columns: F64) -> Happened:
    return Happened(*(columns.get(name, getattr(events, name)) for name in ("time", "error", "latency", "value")))


def failing(events: Happened) -> Happened:
    late = after(events, 6) & (np.arange(len(events)) % 3 == 0)
    return changed(events, error=np.where(late, 1.0, events.error))


def slower(events: Happened) -> Happened:
    return changed(events, latency=np.where(after(events, 6), events.latency * 2, events.latency))


def busier(events: Happened) -> Happened:
    late = np.flatnonzero(after(events, 6))
    order = np.sort(np.concatenate([np.arange(len(events)), late, late]))
    return Happened(*(getattr(events, name)[order] for name in ("time", "error", "latency", "value")))


def shifted(events: Happened) -> Happened:
    return changed(events, value=np.where(after(events, 6), events.value + 12, events.value))


def quieter(events: Happened) -> Happened:
    rows = np.flatnonzero(~after(events, 6) | (np.arange(len(events)) % 5 == 0))
    return Happened(*(getattr(events, name)[rows] for name in ("time", "error", "latency", "value")))


@pytest.mark.parametrize(
    ("change", "kind"),
    [(failing, "error_burst"), (slower, "latency_anomaly"), (busier, "traffic_anomaly"), (quieter, "traffic_anomaly")],
)
def test_a_change_of_requests_is_one_finding_of_its_kind_with_numbers(
    change: Callable[[Happened], Happened], kind: str
) -> None:
    opened = Run().feed(change(requests(7, 1))).opened
    assert [f.kind for f in opened][:1] == [kind]
    assert START + 6 * DAY <= opened[0].time <= START + 6 * DAY + 7_200
    assert abs(opened[0].onset - START - 6 * DAY) <= 3_600
    assert opened[0].severity == "warning" and opened[0].account == "traffic"
    assert all(np.isfinite([m.observed, m.expected]).all() for m in opened[0].measures)


def clockwork(role: Role, rows: int = 20_160) -> Happened:
    """A request each thirty seconds, or a sample each five minutes, that never differ in anything."""
    time = START + np.arange(float(rows)) * (300 if role == "metric" else 30)
    none = np.full(rows, np.nan)
    return Happened(time, none, none, none + 5) if role == "metric" else requests_at(time)


def requests_at(time: F64) -> Happened:
    return Happened(time, np.zeros(len(time)), np.full(len(time), 10.0), np.full(len(time), np.nan))


CHANGES: dict[str, Callable[[Happened, int], Happened]] = {
    "every answer an error": lambda e, at: changed(e, error=np.where(np.arange(len(e)) < at, 0.0, 1.0)),
    "every second answer an error": lambda e, at: changed(
        e, error=np.where(np.arange(len(e)) < at, 0.0, np.arange(len(e)) % 2)
    ),
    "slow": lambda e, at: changed(e, latency=np.where(np.arange(len(e)) < at, 10.0, 500.0)),
    "ten times as many": lambda e, at: requests_at(
        np.concatenate([e.time[:at], e.time[at] + np.arange(10.0 * (len(e) - at)) * 3])
    ),
    "nobody asks": lambda e, at: requests_at(np.concatenate([e.time[:at], e.time[-20:]])),
    "another value": lambda e, at: changed(e, value=np.where(np.arange(len(e)) < at, 5.0, 100.0)),
}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("every answer an error", "error_burst"), ("every second answer an error", "error_burst"),
        ("slow", "latency_anomaly"), ("ten times as many", "traffic_anomaly"), ("nobody asks", "traffic_anomaly"),
        ("another value", "traffic_anomaly"),
    ],
)  # fmt: skip
def test_a_change_after_a_history_without_any_variation_is_found(change: str, kind: str) -> None:
    role: Role = "metric" if change == "another value" else "requests"
    at = 1_000 if role == "metric" else 16_000
    events = CHANGES[change](clockwork(role, at + at // 4), at)
    opened = Run(role).feed(events).opened
    assert [f.kind for f in opened] == [kind]
    assert 0 < opened[0].time - events.time[at - 1] <= 2 * 3_600


def test_the_share_of_errors_of_an_outage_is_told_as_it_is() -> None:
    opened = Run().feed(CHANGES["every answer an error"](clockwork("requests", 17_000), 16_000)).opened
    measure = opened[0].measures[0]
    assert measure.expected == 0 and measure.observed == pytest.approx(20 / 30)


@pytest.mark.parametrize("every", [10**9, 100])
@pytest.mark.parametrize("times", [10, 0.1])
def test_errors_are_no_burst_while_their_share_stays(every: int, times: float) -> None:
    """Ten times as many requests, or a tenth, none or one in a hundred of them an error throughout."""
    before, since = (
        (np.full(16_000, 30.0), np.full(80_000, 3.0)) if times > 1 else (np.full(30_000, 3.0), np.full(3_000, 30.0))
    )
    time = START + np.cumsum(np.concatenate([before, since]))
    rng = np.random.default_rng(3)
    events = changed(requests_at(time), error=(rng.integers(0, every, len(time)) == 0).astype(np.float64))
    assert {f.kind for f in Run().feed(events).opened} == {"traffic_anomaly"}


def test_errors_that_become_fewer_are_no_alarm() -> None:
    time = START + np.arange(30_000.0) * 30
    error = (np.random.default_rng(4).uniform(size=30_000) < 0.2) & (np.arange(30_000) < 20_000)
    assert Run().feed(changed(requests_at(time), error=error.astype(np.float64))).opened == []


def test_a_metric_that_shifts_is_found() -> None:
    opened = Run("metric").feed(shifted(metric(7, 1))).opened
    assert opened and START + 6 * DAY <= opened[0].time <= START + 6 * DAY + 3_600
    measure = opened[0].measures[0]
    assert 5 < measure.observed - measure.expected < 15


@pytest.mark.parametrize("seed", range(3))
def test_honest_traffic_with_a_daily_swing_is_quiet(seed: int) -> None:
    assert Run().feed(requests(14, 100 + seed)).found == []


def test_honest_metrics_keep_to_their_budget() -> None:
    """One false alarm in 30 days: of 8 · 20 days at most 9, the 95 % bound of a Poisson law of 5.3."""
    assert sum(len(Run("metric").feed(metric(20, 100 + seed)).opened) for seed in range(8)) <= 9


@pytest.mark.parametrize("seed", range(2))
def test_an_unusual_day_is_found_though_a_worse_one_was_told_a_week_ago(seed: int) -> None:
    events = metric(30, seed, 1_800.0)
    day = (events.time - START) / DAY
    events = changed(events, value=events.value - 8.0 * ((day >= 20) & (day < 21)) - 6.0 * ((day >= 26) & (day < 27)))
    between = int(np.flatnonzero(day >= 25)[0])
    run, again = Run("metric").feed(events.part(0, between)), Run("metric")
    again.traffic.restore(run.pages)
    for each in (run, again):
        each.feed(events.part(between, len(events)))
        assert any(26 <= (f.time - START) / DAY <= 27.1 for f in each.opened)
    assert any(20 <= (f.time - START) / DAY <= 21.1 for f in run.opened)
    assert [f for f in run.found if f.time > START + 25 * DAY] == again.found


@pytest.mark.parametrize("seed", range(2))
def test_a_jump_is_found_at_once_where_the_season_is_large_and_all_else_small(seed: int) -> None:
    events = metric(27, seed, 1_800.0)
    day = (events.time - START) / DAY
    values = events.value + 15 * np.sin(2 * np.pi * day) + 12.0 * ((day >= 26) & (day < 26.25))
    late = [f.time for f in Run("metric").feed(changed(events, value=values)).opened if f.time > START + 26 * DAY]
    assert late and late[0] - START - 26 * DAY <= 3_600


def test_what_comes_every_eighth_day_becomes_usual() -> None:
    events = metric(80, 2, 1_800.0)
    day = (events.time - START) / DAY
    events = changed(events, value=events.value + 8.0 * ((day >= 20) & (day % 8 < 1)))
    told = [(f.time - START) / DAY for f in Run("metric").feed(events).opened]
    assert sum(20 <= t < 60 for t in told) >= 2
    assert sum(t >= 60 for t in told) <= 1


def test_silence_is_found_by_time_alone_and_ends_with_the_requests() -> None:
    run = Run()
    events = requests(8, 3)
    gone = after(events, 6) & ~after(events, 6.25)
    before = int(np.flatnonzero(gone)[0])
    run.feed(events.part(0, before))
    silent_from = float(events.time[before - 1])
    run.traffic.advance(silent_from + 200, run.report)
    assert run.found == []
    for later in range(600, 21_600, 600):
        run.traffic.advance(silent_from + later, run.report)
    assert [f.kind for f in run.opened] == ["traffic_anomaly"]
    assert run.opened[0].time <= silent_from + 3_600
    assert run.opened[0].measures[0].observed < 1
    run.feed(events.part(int(np.flatnonzero(gone)[-1]) + 1, len(events)))
    assert [f.action for f in run.found] == ["open", "recover"]


def test_a_metric_that_stays_away_is_told_and_comes_back() -> None:
    run = Run("metric")
    events = metric(5, 4)
    run.feed(events.part(0, 1_000))
    last = float(events.time[999])
    run.traffic.advance(last + 1_500, run.report)
    assert run.found == []
    run.traffic.advance(last + 30_000, run.report)
    assert [(f.kind, f.severity, f.cause) for f in run.found] == [("traffic_anomaly", "info", "silence")]
    run.feed(events.part(1_100, 1_150))
    assert [f.action for f in run.found if f.cause == "silence"] == ["open", "recover"]


@pytest.mark.parametrize(("role", "events"), [("requests", failing(requests(7, 1))), ("metric", shifted(metric(7, 1)))])
@pytest.mark.parametrize("cut", [61, 50_000])
def test_findings_and_state_do_not_depend_on_the_cut(role: Role, events: Happened, cut: int) -> None:
    events = events.part(0, 60_000)
    usual, other = Run(role).feed(events), Run(role).feed(events, cut)
    assert other.found == usual.found and usual.found
    assert json.loads(other.pages["state"]["json"].tobytes()) == json.loads(usual.pages["state"]["json"].tobytes())


@pytest.mark.parametrize(("role", "events"), [("requests", failing(requests(7, 1))), ("metric", shifted(metric(7, 1)))])
@pytest.mark.parametrize("share", [0.002, 0.3, 0.858, 0.9])
def test_stored_pages_restore_an_equal_subject(role: Role, events: Happened, share: float) -> None:
    at = int(share * len(events))
    whole = Run(role).feed(events.part(0, at))
    again = Run(role)
    again.traffic.restore(whole.pages)
    before = len(whole.found)
    whole.feed(events.part(at, len(events)))
    again.feed(events.part(at, len(events)))
    assert again.found == whole.found[before:]


def test_hostile_times_and_numbers_are_survived() -> None:
    run = Run()
    events = requests(7, 5)
    hostile = np.array([np.nan, np.inf, -np.inf, 1e308, -5.0, 0.0])
    latency = events.latency.copy()
    latency[1_000:1_006] = hostile
    run.feed(changed(events, latency=latency).part(0, 20_000))
    for stray in (631_152_000.0, 4_102_444_800.0, 0.0):
        run.traffic.add(Happened(np.array([stray]), np.zeros(1), np.ones(1), np.full(1, np.nan)), run.report)
    run.feed(events.part(20_000, len(events)))
    assert run.opened == []
    samples = Run("metric").feed(changed(metric(2, 6), value=np.resize(hostile, 576)))
    assert 575 <= samples.traffic.events <= 576


def test_state_is_bounded() -> None:
    def size(run: Run) -> int:
        return sum(a.nbytes for page in run.pages.values() for a in page.values())

    early = size(Run("metric").feed(metric(8, 7)))
    assert size(Run("metric").feed(metric(60, 7))) <= 1.5 * early + 4_096


def test_pages_of_another_subject_are_refused() -> None:
    run = Run().feed(requests(2, 8))
    with pytest.raises(StateError):
        Run("metric").traffic.restore(run.pages)
    with pytest.raises(StateError):
        Run().traffic.restore({"state": {"json": np.frombuffer(b"{", np.uint8)}})
