"""Correlation: what is one cause, what is a new one, and ids that a replay makes again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from alerts.incidents import IncidentBook, Sighting, incident_id
from detectors.base import Finding, Measure, SubjectRef

AGE = Measure("drift", "age:loc", 41.25, 35.0, "mean", 350, 900.0, 1_000.0, "age", "loc")


def sighting(
    position: int = 100, trigger: str = "t/0/100/0", subject: str = "model:/credit", **changes: Any
) -> Sighting:
    finding = Finding(
        detector="drift",
        kind="feature_drift",
        account="drift",
        severity="warning",
        time=1_000.0 + position,
        row=0,
        position=position,
        subjects=(SubjectRef("feature", "age"),),
        onset=900.0,
        measures=(AGE,),
    )
    return Sighting(replace(finding, **changes), subject, "credit", "", trigger, "e-1")


def rule(position: int, field: str = "age", action: str = "open") -> Sighting:
    return sighting(
        position,
        f"t/0/{position}/0",
        account="rules",
        kind="data_quality",
        cause=f"absent:{field}",
        action=action,
        subjects=(SubjectRef("feature", field),),
    )


def test_alarms_within_a_thousand_events_of_the_last_are_one_incident() -> None:
    book = IncidentBook()
    first = book.apply(sighting(100))
    again = book.apply(sighting(1_100, subjects=(SubjectRef("feature", "income"),)))
    later = book.apply(sighting(2_099))
    assert first and again and later
    assert first.id == again.id == later.id
    assert [s.id for s in again.subjects] == ["age", "income"]
    assert again.subjects[1].since == 2_100.0
    assert later.alarms == 3


def test_times_of_an_incident_are_in_order_whatever_the_order_of_events() -> None:
    book = IncidentBook()
    late = Measure("drift", "age:loc", 41.25, 35.0, "mean", 350, 900.0, 700.0, "age", "loc")
    incident = book.apply(sighting(100, time=700.0, onset=900.0, measures=(late,)))
    assert incident is not None
    assert incident.onset <= incident.opened_at == incident.subjects[0].since
    assert [(m.since, m.until) for m in incident.measures] == [(700.0, 900.0)]
    closed = book.resolve(incident.id, 650.0, "recovered")
    assert closed.resolved_at is not None and closed.resolved_at >= closed.opened_at


def test_a_later_alarm_is_a_new_incident_even_while_the_first_is_open() -> None:
    book = IncidentBook()
    first = book.apply(sighting(100))
    second = book.apply(sighting(1_101, trigger="t/0/1101/0"))
    assert first and second and first.id != second.id
    assert len(book.open()) == 2


def test_other_subjects_and_accounts_are_other_causes() -> None:
    book = IncidentBook()
    book.apply(sighting(100))
    book.apply(sighting(100, subject="model:/fraud", trigger="t/0/101/0"))
    book.apply(sighting(100, account="traffic", kind="traffic_anomaly", trigger="t/0/102/0"))
    assert len(book.open()) == 3


def test_a_rule_holds_its_cause_until_it_recovers_and_then_starts_anew() -> None:
    book = IncidentBook()
    first = book.apply(rule(10))
    assert book.apply(rule(50_000)) and len(book.open()) == 1
    closed = book.apply(rule(60_000, action="recover"))
    assert first and closed and closed.id == first.id and closed.status == "resolved"
    assert closed.resolved_at == 61_000.0
    second = book.apply(rule(70_000))
    assert second and second.id != first.id


def test_a_rule_and_a_drift_alarm_on_the_same_field_are_one_incident() -> None:
    book = IncidentBook()
    broken = book.apply(rule(100))
    moved = book.apply(sighting(150))
    assert broken and moved and broken.id == moved.id
    other = book.apply(rule(160, field="income"))
    assert other and other.id != broken.id


def test_an_alarm_of_many_fields_adds_none_that_has_an_incident_of_its_own() -> None:
    book = IncidentBook()
    for field in ("age", "income"):
        told = rule(100, field)
        measure = replace(AGE, stream=f"{field}:absent", field=field)
        book.apply(replace(told, finding=replace(told.finding, measures=(measure,))))
    measures = AGE, replace(AGE, stream="income:loc", field="income"), replace(AGE, stream="zip:loc", field="zip")
    subjects = tuple(SubjectRef("feature", field) for field in ("age", "income", "zip"))
    fed = book.apply(sighting(130, kind="data_quality", subjects=subjects, measures=measures))
    assert fed is not None and len(book.open()) == 2
    own = next(i for i in book.open() if i.id != fed.id)
    assert sorted(s.id for i in (fed, own) for s in i.subjects) == ["age", "income", "zip"]
    (other,) = own.subjects
    assert other.id not in {m.field for m in fed.measures} and other.id not in fed.why
    assert "drift" in fed.held_by and "drift" not in own.held_by


def test_recovery_by_id_closes_that_incident_and_an_unknown_one_changes_nothing() -> None:
    book = IncidentBook()
    incident = book.apply(sighting(100))
    assert incident
    book.take_changes()
    assert book.apply(sighting(200, action="recover", cause="inc_unknown")) is None
    assert book.take_changes() == []
    closed = book.apply(sighting(200, action="recover", cause=incident.id))
    assert closed and closed.status == "resolved"
    assert [i.id for i in book.take_changes()] == [incident.id]


def test_an_incident_of_a_rule_and_an_alarm_closes_when_both_have_recovered() -> None:
    for first in ("rule", "alarm"):
        book = IncidentBook()
        moved = book.apply(sighting(100))
        assert moved
        joined = book.apply(rule(150))
        assert joined and joined.id == moved.id and set(joined.held_by) == {"drift", "absent:age"}
        recoveries = [rule(300, action="recover"), sighting(400, action="recover", cause=moved.id)]
        for recovery in recoveries if first == "rule" else reversed(recoveries):
            assert [i.status for i in book.open()] == ["open"]
            book.apply(recovery)
        assert book.open() == []


def test_a_rule_that_breaks_again_brings_its_measure_up_to_date() -> None:
    book = IncidentBook()
    book.apply(rule(10))
    again = replace(AGE, observed=99.0)
    fed = book.apply(replace(rule(20), finding=replace(rule(20).finding, measures=(again,))))
    assert fed and [m.observed for m in fed.measures] == [99.0]


def test_severity_rises_and_the_worst_is_remembered() -> None:
    book = IncidentBook()
    book.apply(sighting(100, severity="warning"))
    worse = book.apply(sighting(200, severity="critical"))
    same = book.apply(sighting(300, severity="info"))
    assert worse and same
    assert (same.severity, same.severity_max) == ("critical", "critical")


def test_changes_are_handed_out_once_in_their_last_state() -> None:
    book = IncidentBook()
    book.apply(sighting(100))
    book.apply(sighting(200))
    changes = book.take_changes()
    assert [i.alarms for i in changes] == [2]
    assert book.take_changes() == []


def test_ids_follow_from_what_an_incident_is_about() -> None:
    a, b = IncidentBook().apply(sighting(100)), IncidentBook().apply(sighting(100))
    assert a and b and a.id == b.id == incident_id("credit", "feature_drift", "", "t/0/100/0")
    other = IncidentBook().apply(sighting(100, trigger="t/0/125/0"))
    assert other and other.id != a.id


def test_a_book_made_from_stored_incidents_goes_on_where_it_was() -> None:
    book = IncidentBook()
    first = book.apply(sighting(100))
    again = IncidentBook(book.open()).apply(sighting(600))
    assert first and again and again.id == first.id and again.alarms == 2


def test_acknowledging_needs_a_live_incident() -> None:
    book = IncidentBook()
    incident = book.apply(sighting(100))
    assert incident
    assert book.acknowledge(incident.id, "ann").acknowledged_by == "ann"
    with pytest.raises(KeyError):
        book.acknowledge("inc_unknown", "ann")


def test_a_storm_of_alarms_does_not_grow_an_incident_without_bound() -> None:
    book = IncidentBook()
    for i in range(500):
        measure = replace(AGE, stream=f"f{i}:loc", field=f"f{i}")
        book.apply(sighting(100 + i, measures=(measure,), subjects=(SubjectRef("feature", f"f{i}"),)))
    assert len(book.open()) == 1
    assert len(book.open()[0].measures) <= 64


def silenced() -> IncidentBook:
    book = IncidentBook()
    opened = book.apply(sighting())
    assert opened is not None
    book.silence(opened.id, 5_000.0)
    book.take_changes()
    return book


def test_a_silence_ends_in_time() -> None:
    book = silenced()
    (incident,) = book.open()
    assert (incident.status, incident.silenced_until) == ("silenced", 5_000.0)
    assert book.end_silences(4_999.0) == [] and book.take_changes() == []
    (heard,) = book.end_silences(5_000.0)
    assert (heard.status, heard.silenced_until) == ("open", None)
    assert book.take_changes() == [heard] and book.end_silences(6_000.0) == []


def test_a_silence_ends_when_the_incident_gets_worse() -> None:
    book = silenced()
    same = book.apply(sighting(200))
    assert same is not None and same.status == "silenced"
    worse = book.apply(sighting(300, severity="critical"))
    assert worse is not None and (worse.status, worse.silenced_until) == ("open", None)


def test_an_acknowledged_incident_is_acknowledged_again_after_its_silence() -> None:
    book = silenced()
    (incident,) = book.open()
    assert book.acknowledge(incident.id, "ann").status == "silenced"
    assert [i.status for i in book.end_silences(0.0, incident.id)] == ["acknowledged"]


def test_a_silenced_incident_still_resolves() -> None:
    book = silenced()
    (incident,) = book.open()
    closed = book.apply(sighting(300, cause=incident.id, action="recover"))
    assert closed is not None and closed.status == "resolved"


def attack(position: int, client: str, kind: str = "model_extraction") -> Sighting:
    return sighting(
        position, f"t/0/{position}/0", account="attack", kind=kind, cause=f"client:{client}:{kind}",
        subjects=(SubjectRef("client", client),),
    )  # fmt: skip


def moved(position: int, *clients: str, **changes: Any) -> Sighting:
    """A drift that is the doing of these clients."""
    subjects = (SubjectRef("feature", "age"), *(SubjectRef("client", c) for c in clients))
    return sighting(position, f"t/0/{position}/0", subjects=subjects, cause=f"moved by {clients[0]}", **changes)


def test_a_drift_of_one_client_is_an_incident_apart_and_closes_when_it_has_recovered() -> None:
    book = IncidentBook()
    everybody = book.apply(sighting(100))
    one = book.apply(moved(200, "c_a"))
    again = book.apply(moved(300, "c_a"))
    assert everybody and one and again
    assert one.id == again.id != everybody.id
    assert one.severity == "warning"
    closed = book.apply(sighting(900, action="recover", cause=one.id, subjects=()))
    assert closed and closed.id == one.id and closed.status == "resolved"
    assert [i.id for i in book.open()] == [everybody.id]


def test_a_drift_by_attackers_gives_way_to_the_attack() -> None:
    book = IncidentBook()
    everybody, drift, two = (
        book.apply(sighting(100)),
        book.apply(moved(150, "c_a")),
        book.apply(moved(160, "c_b", "c_a")),
    )
    assert everybody and drift and two
    unusual = book.apply(attack(170, "c_a", "unusual_client"))
    assert unusual and {i.id for i in book.open()} == {everybody.id, drift.id, two.id, unusual.id}
    named = book.apply(attack(200, "c_a"))
    assert named
    assert {i.id for i in book.open()} == {everybody.id, two.id, unusual.id, named.id}
    closed = next(i for i in book.take_changes() if i.id == drift.id)
    assert closed.status == "resolved" and closed.resolution == f"superseded by {named.id}"
    other = book.apply(attack(300, "c_b", "adversarial_input"))
    assert other and {i.id for i in book.open()} == {everybody.id, unusual.id, named.id, other.id}


def test_what_a_known_attacker_moves_pages_nobody() -> None:
    book = IncidentBook()
    book.apply(attack(100, "c_a"))
    mine, others = book.apply(moved(200, "c_a")), book.apply(moved(210, "c_b", "c_a"))
    assert mine and others
    assert (mine.severity, others.severity) == ("info", "warning")
    elsewhere = book.apply(replace(moved(220, "c_a"), subject="model:/other"))
    assert elsewhere and elsewhere.severity == "warning"
