"""The field rule: runs of faults, new fields, recovery, and independence of how events are cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from alerts.incidents import IncidentBook, Sighting
from detectors.base import JOINS, Context, Finding, Views
from detectors.quality.fields import FieldRule, Params
from monitor.intake.columns import build_batch, build_reference, infer_schema
from monitor.intake.events import Event, EventType

GOOD = {"age": 30.0, "region": "EU"}


def event(features: dict[str, Any], at: float) -> Event:
    return Event(type=EventType.PREDICTION, time=at, features=features, model_version="7")


REFERENCE = [event({"age": 20.0 + i % 40, "region": ("EU", "US")[i % 2]}, float(i)) for i in range(200)]
SCHEMA = infer_schema(REFERENCE)


def rule(**params: Any) -> FieldRule:
    reference = build_reference(REFERENCE, SCHEMA, "file", "model:/m")
    return FieldRule(Context("model:/m", reference), Params(**params))


def run(detector: FieldRule, features: list[dict[str, Any]], cut: int = 1_000, start: int = 0) -> list[Finding]:
    found: list[Finding] = []
    for begin in range(0, len(features), cut):
        some = [event(f, 1_000.0 + start + begin + i) for i, f in enumerate(features[begin : begin + cut])]
        places = [("t", 0, start + begin + i, 0) for i in range(len(some))]
        batch = build_batch("model:/m", start + begin, some, places, SCHEMA)
        # `row` counts from the cut; `position` is the same whatever the cut
        found += [replace(f, row=0) for f in detector.update(batch, Views(batch, detector.context))]
    return found


def told(found: list[Finding]) -> list[tuple[str, str, int]]:
    return [(f.action, f.cause, f.position) for f in found]


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        ({"region": "EU"}, "absent:age"),
        ({"age": None, "region": "EU"}, "null:age"),
        ({"age": float("nan"), "region": "EU"}, "not_finite:age"),
        ({"age": "30", "region": "EU"}, "mistyped:age"),
        ({"age": 1.0}, "absent:region"),
        ({"age": 1.0, "region": None}, "null:region"),
        ({"age": 1.0, "region": 5}, "mistyped:region"),
    ],
)
def test_a_run_of_faults_opens_and_a_run_of_good_events_closes(broken: dict[str, Any], cause: str) -> None:
    found = run(rule(), [GOOD] * 50 + [broken] * 40 + [GOOD] * 40)
    assert told(found) == [("open", cause, 59), ("recover", cause, 99)]
    opened = found[0]
    assert opened.onset == 1_050.0 and opened.time == 1_059.0
    assert opened.measures[0].n == 10 and opened.measures[0].observed == 1.0 and opened.measures[0].expected == 0.0
    assert opened.model_version == "7"


def test_clean_events_and_single_faults_say_nothing() -> None:
    broken = {"age": None, "region": None}
    assert run(rule(), ([GOOD] * 20 + [broken] * 5) * 40) == []


def test_a_fault_the_reference_shows_often_is_normal() -> None:
    rows = [event({"age": None if i % 3 else 1.0, "region": "EU"}, float(i)) for i in range(200)]
    schema = infer_schema(rows)
    detector = FieldRule(Context("m", build_reference(rows, schema, "file", "m")), Params())
    some = [event({"age": None, "region": "EU"}, float(i)) for i in range(100)]
    batch = build_batch("m", 0, some, [("t", 0, i, 0) for i in range(100)], schema)
    assert list(detector.update(batch, Views(batch, detector.context))) == []


def test_a_new_field_is_told_at_its_tenth_event_and_closes_when_gone() -> None:
    extra = {**GOOD, "zip": 1}
    found = run(rule(), [GOOD] * 30 + [extra, GOOD] * 20 + [GOOD] * 1_500)
    assert told(found) == [("open", "new_field:zip", 48), ("recover", "new_field:zip", 1_068)]
    assert found[0].severity == "info"


@pytest.mark.parametrize("cut", [1, 7, 25, 333])
def test_findings_do_not_depend_on_the_cut(cut: int) -> None:
    features = [GOOD] * 30 + [{"age": 1.0}] * 23 + [GOOD] * 30 + [{**GOOD, "zip": 1}] * 12 + [GOOD] * 1_100
    assert run(rule(), features, cut) == run(rule(), features)


@pytest.mark.parametrize("at", [5, 35, 55, 100])
def test_a_restored_rule_goes_on_where_it_was(at: int) -> None:
    features = [GOOD] * 30 + [{"age": 1.0}] * 23 + [GOOD] * 30 + [{**GOOD, "zip": 1}] * 12 + [GOOD] * 1_100
    first, second = rule(), rule()
    before = run(first, features[:at])
    second.restore(first.dirty())
    assert before + run(second, features[at:], start=at) == run(rule(), features)


def test_new_fields_are_remembered_up_to_a_bound() -> None:
    detector = rule(max_new_fields=3)
    run(detector, [{**GOOD, f"f{i}": 1} for i in range(100)])
    assert len(detector.dirty()["new"]["rows"]) == 3


def test_fields_that_one_source_takes_away_are_one_incident_until_the_last_is_back() -> None:
    found = run(rule(), [GOOD] * 50 + [{}] * 40 + [{"region": "EU"}] * 30 + [GOOD] * 40)
    assert [f.detail.get(JOINS) for f in found if f.action == "open"] == [None, "absent:age"]
    book = IncidentBook()
    for finding in found[:3]:
        book.apply(Sighting(finding, "model:/m", "m", "", str(finding.position), None))
    (incident,) = book.open()
    assert {s.id for s in incident.subjects} == {"age", "region"} and incident.held_by == ("absent:age",)
    assert incident.why.startswith("age: absent share 0 → 1 over 10 events; region: absent share 0 → 1")
    book.apply(Sighting(found[3], "model:/m", "m", "", str(found[3].position), None))
    assert not book.open()


@pytest.mark.parametrize("cut", [1, 7, 1_000])
def test_fields_that_break_one_after_the_other_or_in_other_ways_are_incidents_of_their_own(cut: int) -> None:
    later = run(rule(), [GOOD] * 50 + [{"region": "EU"}] * 30 + [{}] * 30, cut)
    assert [(f.cause, JOINS in f.detail) for f in later] == [("absent:age", False), ("absent:region", False)]
    other = run(rule(), [GOOD] * 50 + [{"region": None}] * 30, cut)
    assert [(f.cause, JOINS in f.detail) for f in other] == [("absent:age", False), ("null:region", False)]
    near = run(rule(), [GOOD] * 50 + [{"region": "EU"}] * 5 + [{}] * 30, cut)
    assert [(f.cause, JOINS in f.detail) for f in near] == [("absent:age", False), ("absent:region", True)]
