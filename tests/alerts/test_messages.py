"""What is told of an incident, and the keys and bodies of the messages."""

from __future__ import annotations

import json
from dataclasses import replace

from alerts.incidents import Incident, IncidentBook, IncidentSubject
from alerts.messages import MAX_BYTES, Change, changes, message_body, message_key
from alerts.render import incident_json
from detectors.base import SubjectRef
from tests.alerts.test_incidents import sighting


def opened() -> tuple[IncidentBook, Incident]:
    book = IncidentBook()
    first = book.apply(sighting())
    assert first
    return book, first


def events(old: Incident | None, new: Incident) -> list[str]:
    return [change.event.removeprefix("incident.") for change in changes(old, new)]


def test_each_step_of_an_incident_is_told_once() -> None:
    book, first = opened()
    assert events(None, first) == ["opened"]
    same = book.apply(sighting(200))
    assert same and events(first, same) == []
    wider = book.apply(sighting(300, subjects=(SubjectRef("feature", "income"),)))
    assert wider and events(same, wider) == ["updated"]
    worse = book.apply(sighting(400, severity="critical"))
    assert worse and events(wider, worse) == ["updated"]
    seen = book.acknowledge(first.id, "ann")
    assert events(worse, seen) == ["acknowledged"]
    closed = book.resolve(first.id, 5.0, "recovered")
    assert events(seen, closed) == ["resolved"]


def test_steps_of_one_commit_are_told_in_order_each_as_it_was() -> None:
    book, first = opened()
    book.acknowledge(first.id, "ann")
    closed = book.resolve(first.id, 5_000.0, "recovered")
    told = changes(None, closed)
    assert [c.event for c in told] == ["incident.opened", "incident.acknowledged", "incident.resolved"]
    assert [c.incident.status for c in told] == ["open", "acknowledged", "resolved"]
    assert [c.incident.resolved_at for c in told] == [None, None, 5_000.0]


def test_when_a_silence_ends_it_is_told_how_things_stand_with_a_key_of_its_own() -> None:
    _, first = opened()
    silenced = replace(first, status="silenced", silenced_until=60.0)
    (told,) = changes(silenced, first)
    assert told.event == "incident.updated" and told.incident == first
    (again,) = changes(replace(silenced, silenced_until=120.0), first)
    assert message_key("hook", told) != message_key("hook", again)
    closed = replace(first, status="resolved", resolved_at=70.0)
    assert events(silenced, closed) == ["resolved"]


def test_a_silenced_incident_says_nothing() -> None:
    _, first = opened()
    assert events(None, replace(first, status="silenced")) == []


def test_keys_are_those_of_the_change_and_of_the_receiver() -> None:
    book, first = opened()
    wider = book.apply(sighting(300, subjects=(SubjectRef("feature", "income"),)))
    assert wider
    wide = changes(first, wider)[0]
    key = message_key("hook", wide)
    assert key == message_key("hook", changes(first, wider)[0])
    worse = Change("incident.updated", replace(wider, severity="critical"))
    others = [message_key("other", wide), message_key("hook", worse), message_key("hook", changes(None, first)[0])]
    assert len({key, *others}) == 4
    assert all("." not in k for k in (key, *others))


def test_the_data_is_the_incident() -> None:
    _, first = opened()
    body = json.loads(message_body(changes(None, first)[0], 0.5))
    assert body == {"type": "incident.opened", "timestamp": "1970-01-01T00:00:00.500Z", "data": incident_json(first)}


def test_a_large_incident_is_cut_and_says_so() -> None:
    _, first = opened()
    many = tuple(IncidentSubject("client", f"c_{i}", 1.0, "e" * 100) for i in range(1_000))
    body = message_body(changes(None, replace(first, subjects=many))[0], 1.0)
    data = json.loads(body)["data"]
    assert len(body) <= MAX_BYTES
    assert data["subjects"][-1]["id"] == "c_999"
    assert len(data["subjects"]) + data["omitted"]["subjects"] == 1_000
    assert len(data["evidence"]) == 1 and data["omitted"]["evidence"] == 0
