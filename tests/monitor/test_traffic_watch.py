"""Traffic through the pipeline: access topics, metric series, models; restarts; limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from detectors.traffic.subject import TrafficSettings
from monitor.intake.events import Record
from monitor.intake.formats.base import TopicRules, formats
from monitor.intake.identity import Pseudonyms
from monitor.intake.reader import Intake
from monitor.metrics import Metrics
from monitor.pipeline import Pipeline, PipelineSettings
from monitor.state.codec import decode, encode
from monitor.state.rows import packed_trail, unpacked_trail
from monitor.state.unit import CommitUnit, ObsoletePages, Slice, StatePage, Tick
from monitor.traffic_watch import DETECTOR
from monitor.watch import WatchSettings

START = 1_763_596_800.0
TOPIC = "access-log"
HOUR = 3_600.0


def pipeline(**changes: Any) -> Pipeline:
    rules = TopicRules(TOPIC, Pseudonyms(b"", plain=True))
    intakes = {TOPIC: Intake(formats()["native"], rules)}
    made = Pipeline(PipelineSettings(intakes, lambda model, tenant: WatchSettings(), **changes), Metrics())
    made.own(TOPIC, 0, 0)
    return made


def feed(p: Pipeline, events: Sequence[dict[str, Any]], size: int = 500, at: float | None = None) -> list[CommitUnit]:
    """Feed in polls of `size`, tick at the newest time or at `at`, commit."""
    units = []
    for begin in range(0, len(events), size):
        some = events[begin : begin + size]
        first = p.positions()[TOPIC, 0]
        p.feed(TOPIC, 0, [Record(TOPIC, 0, first + i, None, None, msgspec.json.encode(e)) for i, e in enumerate(some)])
        now = at or float(some[-1]["ts"])
        p.tick(now)
        units.append(p.take_unit(now))
    return units


def access(hours: float, failing_from: float) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    times = START + np.sort(rng.uniform(0, hours * HOUR, int(hours * 720)))
    bad = (times >= START + failing_from * HOUR) & (rng.uniform(size=len(times)) < 0.5)
    return [
        {"type": "access", "ts": t, "resource": "/v1", "status": 500 if b else 200, "latency_ms": 10 + 5 * r}
        for t, b, r in zip(times.tolist(), bad.tolist(), rng.uniform(size=len(times)).tolist(), strict=True)
    ]


def samples(hours: float, series: str = "queue-length") -> list[dict[str, Any]]:
    rng = np.random.default_rng(2)
    return [
        {"type": "metric", "ts": START + 60.0 * i, "series": series, "value": v}
        for i, v in enumerate(rng.normal(100, 5, int(hours * 60)).tolist())
    ]


def incidents(units: Sequence[CommitUnit]) -> dict[str, Any]:
    return {i.id: i for unit in units for i in unit.incidents}


def stored(units: Sequence[CommitUnit]) -> list[StatePage]:
    last = {(page.subject, page.detector, page.page): page for unit in units for page in unit.pages}
    return [p._replace(arrays=decode(encode(p.arrays, p.version), p.version)) for p in last.values()]


@pytest.fixture(scope="module")
def errors() -> list[dict[str, Any]]:
    return access(32, 30)


def test_errors_of_an_access_topic_are_an_incident_of_the_topic(errors: list[dict[str, Any]]) -> None:
    units = feed(pipeline(), errors)
    (found,) = incidents(units).values()
    assert (found.kind, found.subject, found.model) == ("error_burst", f"access:{TOPIC}", None)
    assert [(s.type, s.id) for s in found.subjects] == [("route", TOPIC)]
    assert START + 30 * HOUR < found.opened_at < START + 30.5 * HOUR
    assert sum(u.access_events.get(TOPIC, 0) for u in units) == len(errors)


@pytest.mark.parametrize("at", [100, 3_000, 21_700, 22_300])
def test_a_restart_goes_on_where_the_commit_was(errors: list[dict[str, Any]], at: int) -> None:
    whole = incidents(feed(pipeline(), errors, 100))
    first = feed(pipeline(), errors[:at], 100)
    again = pipeline()
    again.book.__init__(i for i in incidents(first).values() if i.status != "resolved")  # type: ignore[misc]
    again.own(TOPIC, 0, at)
    pages = stored(first)
    assert {(p.subject, p.detector) for p in pages} == {(f"access:{TOPIC}", DETECTOR)}
    again.restore_traffic(f"access:{TOPIC}", pages, None)
    second = feed(again, errors[at:], 100)
    assert incidents(first) | incidents(second) == whole


BREAKS: dict[str, Callable[[StatePage], StatePage]] = {
    "version": lambda p: p._replace(version=p.version + 1),
    "content": lambda p: p._replace(arrays={"json": np.frombuffer(b"[1]", np.uint8)}),
    "empty": lambda p: p._replace(arrays={n: a[:0] for n, a in p.arrays.items()}),
}


@pytest.fixture(scope="module")
def pages(errors: list[dict[str, Any]]) -> list[StatePage]:
    return stored(feed(pipeline(), errors[:2_000]))


@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("page", ["state", "time", "all"])
def test_pages_that_cannot_be_read_start_the_traffic_anew_and_say_so(
    pages: list[StatePage], broken: str, page: str
) -> None:
    bad = [BREAKS[broken](p) if page in (p.page, "all") else p for p in pages]
    again = pipeline()
    again.begin(START)
    again.restore_traffic(f"access:{TOPIC}", bad, None)
    again.tick(START)
    unit = again.take_unit(START)
    (said,) = incidents([unit]).values()
    assert (said.kind, said.severity) == ("monitor_health", "info")
    assert unit.obsolete == [ObsoletePages(f"access:{TOPIC}", DETECTOR, "")]


def test_a_page_that_cannot_be_decoded_starts_the_traffic_anew(
    pages: list[StatePage], errors: list[dict[str, Any]]
) -> None:
    again = pipeline()
    again.begin(START)
    again.restore_traffic(f"access:{TOPIC}", pages[1:], None, "checksum")
    again.tick(START)
    unit = again.take_unit(START)
    assert unit.obsolete == [ObsoletePages(f"access:{TOPIC}", DETECTOR, "")]
    assert [i.kind for i in unit.incidents] == ["monitor_health"]
    assert len(incidents(feed(again, errors))) >= 1


def test_a_metric_series_is_watched_and_named() -> None:
    events = samples(26)
    for event in events[-60:]:
        event["value"] += 60
    (found,) = incidents(feed(pipeline(), events)).values()
    assert (found.kind, found.subject) == ("traffic_anomaly", "series:queue-length")
    assert [(s.type, s.id) for s in found.subjects] == [("series", "queue-length")]


def test_a_stream_that_falls_silent_is_heard_by_ticks_but_a_backlog_is_not(errors: list[dict[str, Any]]) -> None:
    p = pipeline()
    honest = [e for e in errors if e["ts"] < START + 30 * HOUR]
    now = 2_000_000_000.0  # the clock runs years ahead of an old topic that is read again
    units = feed(p, honest, at=now)
    for second in range(0, 120, 10):
        p.tick(now + second)
    units.append(p.take_unit(now + 120))
    assert incidents(units) == {}
    # no broker answers for half a day: that is no silence of the clients
    for second in range(120, 43_200, 10):
        p.tick(now + second, listening=False)
    units.append(p.take_unit(now + 43_200))
    assert incidents(units) == {}
    now += 43_080
    for second in range(120, 7_200, 10):
        p.tick(now + second)
    units.append(p.take_unit(now + 7_200))
    (found,) = incidents(units).values()
    lines, again = [msgspec.json.encode(e) for e in honest], pipeline()
    for unit in units:  # the trail alone says which ticks were deaf
        for piece in unpacked_trail(packed_trail(unit.trail)):
            if isinstance(piece, Tick):
                again.tick(piece.at, piece.listening)
            elif isinstance(piece, Slice):
                rows = range(piece.start, piece.stop)
                again.feed(TOPIC, 0, [Record(TOPIC, 0, i, None, None, lines[i]) for i in rows])
        repeated = again.take_unit(unit.at)
        assert repeated.trail == unit.trail and repeated.incidents == unit.incidents
    assert found.kind == "traffic_anomaly" and found.opened_at < START + 32 * HOUR


def test_series_beyond_the_limit_are_refused_and_counted() -> None:
    p = pipeline(max_series=2)
    feed(p, [e for k in range(4) for e in samples(1, f"s{k}")])
    assert p.traffic.refused == 120
    assert {page.subject for page in p.traffic.dirty()} <= {"series:s0", "series:s1"}


def test_switched_off_traffic_is_counted_only(errors: list[dict[str, Any]]) -> None:
    units = feed(pipeline(traffic=None), errors)
    assert incidents(units) == {} and stored(units) == []
    assert sum(u.access_events.get(TOPIC, 0) for u in units) == len(errors)


def test_predictions_of_a_model_have_a_rate(errors: list[dict[str, Any]]) -> None:
    rng = np.random.default_rng(3)
    calm = [e["ts"] for e in errors if e["ts"] < START + 30 * HOUR]
    flood = (START + 30 * HOUR + np.sort(rng.uniform(0, 1_800, 3_000))).tolist()
    events = [
        {"type": "prediction", "ts": t, "model": "m", "features": {"x": x}, "prediction": 1.0}
        for t, x in zip([*calm, *flood], rng.normal(size=len(calm) + len(flood)).tolist(), strict=True)
    ]
    found = [i for i in incidents(feed(pipeline(), events)).values() if i.kind == "traffic_anomaly"]
    assert [(i.subject, i.model, i.subjects[0].type) for i in found] == [("model:/m", "m", "model")]


def test_the_budget_is_that_of_the_configuration() -> None:
    events = samples(26)
    for event in events[-4:-1]:
        event["value"] += 25
    assert len(incidents(feed(pipeline(), events))) == 1
    assert incidents(feed(pipeline(traffic=TrafficSettings(budget=1e-9)), events)) == {}
