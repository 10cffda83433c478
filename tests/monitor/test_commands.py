"""What commands do, and that what cannot be done is answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from alerts.incidents import Incident, IncidentBook, IncidentSubject
from monitor.commands import ACKNOWLEDGE, ERASE, RESOLVE, SILENCE, apply_command, apply_without_daemon
from monitor.state.commands import Command
from monitor.state.references import StoredReference
from monitor.state.store import StateStore, open_store
from monitor.state.unit import CommitUnit

INCIDENT = Incident(
    id="inc_1", subject="model:/credit", model="credit", tenant="", kind="feature_drift", account="drift", cause="",
    severity="warning", severity_max="warning", status="open", model_version=None, opened_at=5.0, resolved_at=None,
    onset=4.0, why="w", subjects=(IncidentSubject("feature", "age", 5.0, None),), detectors=("d",), measures=(),
    atlas=(), last_position=1,
)  # fmt: skip


def command(name: str = ACKNOWLEDGE, **arguments: object) -> Command:
    return Command(3, "ann", name, dict(arguments), 0.0)


def none(subject: str) -> list[StoredReference]:
    """No references."""
    return []


def test_an_acknowledgement_changes_the_incident_and_is_audited() -> None:
    book = IncidentBook([INCIDENT])
    result, audit, *_ = apply_command(book, none, command(incident="inc_1"), 7.0)
    assert (result.id, result.ok, result.message) == (3, True, "inc_1 acknowledged by ann")
    assert audit is not None
    assert (audit.at, audit.actor, audit.action, audit.subject) == (7.0, "ann", ACKNOWLEDGE, "inc_1")
    assert [(i.status, i.acknowledged_by) for i in book.take_changes()] == [("acknowledged", "ann")]


@pytest.mark.parametrize(
    "refused",
    [
        command(incident="inc_2"),
        command(incident=["inc_1"]),
        command(),
        command("reboot", incident="inc_1"),
        command(RESOLVE),
        command(RESOLVE, incident="inc_2"),
        command(RESOLVE, incident="inc_1", because=5),
        command(SILENCE, incident="inc_1"),
        command(SILENCE, incident="inc_1", seconds=True),
        command(SILENCE, incident="inc_1", seconds=-1),
        command(SILENCE, incident="inc_1", seconds=float("nan")),
        command(SILENCE, incident="inc_1", seconds=31 * 86_400),
        command(SILENCE, incident="inc_1", seconds=0),
        command(SILENCE, incident="inc_2", seconds=60),
        command(ERASE),
        command(ERASE, pseudonym="acme"),
    ],
)
def test_what_cannot_be_done_is_answered_and_changes_nothing(refused: Command) -> None:
    book = IncidentBook([INCIDENT])
    result, audit, reference, erased = apply_command(book, none, refused, 7.0)
    assert not result.ok and result.message and audit is None and reference is None and erased is None
    assert book.take_changes() == []


def test_resolving_and_silencing_are_audited() -> None:
    book = IncidentBook([INCIDENT])
    done = apply_command(book, none, command(SILENCE, incident="inc_1", seconds=60), 7.0)
    assert done.result.ok and done.audit is not None and done.audit.detail == {"command": 3, "seconds": 60}
    assert [(i.status, i.silenced_until) for i in book.take_changes()] == [("silenced", 67.0)]
    done = apply_command(book, none, command(RESOLVE, incident="inc_1", because="known"), 8.0)
    assert done.result.ok and done.audit is not None and done.audit.action == RESOLVE
    assert [(i.status, i.resolved_at, i.resolution) for i in book.take_changes()] == [
        ("resolved", 8.0, "resolved by ann: known")
    ]


def test_an_erasure_names_the_pseudonym_only() -> None:
    name = "c_" + "a2" * 13
    done = apply_command(IncidentBook(), none, command(ERASE, pseudonym=name), 7.0)
    assert done.result.ok and done.erased == name
    assert done.audit is not None and (done.audit.action, done.audit.subject) == (ERASE, name)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    opened = open_store(f"sqlite:///{tmp_path}/s.db", "g", audit_key=b"k" * 32, create=True)
    yield opened
    opened.close()


def test_without_a_daemon_all_queued_commands_are_applied_in_one_commit(store: StateStore) -> None:
    lease = store.acquire_lease("cli", 30.0)
    assert lease is not None
    store.commit(CommitUnit(1.0, incidents=[INCIDENT]), lease)
    first = store.enqueue("ann", ACKNOWLEDGE, {"incident": "inc_1"})
    second = store.enqueue("bob", ACKNOWLEDGE, {"incident": "inc_9"})
    before = len(list(store.slices()))
    apply_without_daemon(store, lease)
    apply_without_daemon(store, lease)
    assert len(list(store.slices())) == before + 1
    results = [store.command_result(number) for number in (first, second)]
    assert [r is not None and r.ok for r in results] == [True, False]
    stored = store.incident("inc_1")
    assert stored is not None and (stored.status, stored.acknowledged_by) == ("acknowledged", "ann")
    assert store.verify_audit().ok and store.audit_head().seq == 1
