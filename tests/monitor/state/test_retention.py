"""Retention removes what is too old, nothing else, in small steps, and only for the holder of the lease."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from alerts.incidents import Incident
from monitor.intake.events import DeadLetter, Reason
from monitor.state import retention
from monitor.state.errors import Fenced
from monitor.state.lease import Lease
from monitor.state.outbox import OutboxCounts
from monitor.state.retention import Ages, sweep
from monitor.state.store import StateStore
from monitor.state.tables import commits, evidence, incident_subjects, outbox
from monitor.state.unit import AuditRow, CommitUnit, OutboxRow, ReferenceRow

DAY = 86_400.0
AGES = Ages(incidents=400 * DAY, evidence=90 * DAY, dead_letters=30 * DAY)
NOW = 1_000 * DAY
MakeIncident = Callable[..., Incident]


def go_on() -> bool:
    return False


def commit_at(store: StateStore, lease: Lease, at: float, **parts: object) -> None:
    unit = CommitUnit(at)
    for name, value in parts.items():
        setattr(unit, name, value)
    store.commit(unit, lease)


def count(store: StateStore, table: sa.Table) -> int:
    with store.db.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_resolved_incidents_go_open_ones_stay(store: StateStore, lease: Lease, incident: MakeIncident) -> None:
    old, recent = NOW - 401 * DAY, NOW - 399 * DAY
    done = {"status": "resolved", "resolved_at": 5.0}
    commit_at(store, lease, old, incidents=[incident(id="inc_open"), incident(id="inc_old", **done)])
    commit_at(store, lease, recent, incidents=[incident(id="inc_recent", **done)])
    removed = sweep(store.db, lease, AGES, NOW, go_on)
    assert removed["incidents"] == 1
    assert {i.id for i in store.incidents()} == {"inc_open", "inc_recent"}
    assert count(store, incident_subjects) == 4


def test_evidence_of_resolved_incidents_goes_first(store: StateStore, lease: Lease, incident: MakeIncident) -> None:
    done = incident(id="inc_done", status="resolved", resolved_at=5.0)
    commit_at(store, lease, NOW - 91 * DAY, incidents=[incident(id="inc_open"), done])
    assert sweep(store.db, lease, AGES, NOW, go_on)["evidence"] == 1
    kept = {i.id: i for i in store.incidents()}
    assert kept["inc_done"].measures == () and kept["inc_done"].why
    assert len(kept["inc_open"].measures) == 2
    assert sweep(store.db, lease, AGES, NOW, go_on)["evidence"] == 0


def test_a_back_fill_does_not_lose_what_it_just_found(store: StateStore, lease: Lease, incident: MakeIncident) -> None:
    long_ago = incident(status="resolved", opened_at=1.0, resolved_at=2.0)
    commit_at(store, lease, NOW - DAY, incidents=[long_ago])
    sweep(store.db, lease, AGES, NOW, go_on)
    assert [len(i.measures) for i in store.incidents()] == [2]


def test_many_rows_go_in_many_small_transactions(
    store: StateStore, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 10)
    letters = [DeadLetter("p", 0, n, -1, Reason.NOT_JSON, "", {}, 1, "") for n in range(35)]
    commit_at(store, lease, NOW - 31 * DAY, cluster_id="c", dead_letters=letters)
    last = DeadLetter("p", 1, 0, -1, Reason.NOT_JSON, "", {}, 1, "")
    commit_at(store, lease, NOW - 29 * DAY, cluster_id="c", dead_letters=[last])
    rests: list[int] = []

    def rest() -> bool:
        rests.append(len(store.dead_letters()))  # reads while the work is half done
        return False

    assert sweep(store.db, lease, AGES, NOW, rest)["dead_letters"] == 35
    assert store.dead_letters() == [last]
    assert [n for n in rests if n > 1] == [36, 36, 26, 16, 6]


def test_it_stops_when_it_is_told_to_and_goes_on_next_time(
    store: StateStore, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 10)
    letters = [DeadLetter("p", 0, n, -1, Reason.NOT_JSON, "", {}, 1, "") for n in range(15)]
    commit_at(store, lease, NOW - 31 * DAY, cluster_id="c", dead_letters=letters)
    sweep(store.db, lease, AGES, NOW, lambda: len(store.dead_letters()) <= 5)
    assert len(store.dead_letters()) == 5
    sweep(store.db, lease, AGES, NOW, go_on)
    assert store.dead_letters() == []


def test_only_the_holder_of_the_lease_removes(store: StateStore, lease: Lease) -> None:
    letter = DeadLetter("p", 0, 0, -1, Reason.NOT_JSON, "", {}, 1, "")
    commit_at(store, lease, NOW - 31 * DAY, cluster_id="c", dead_letters=[letter])
    assert store.acquire_lease("daemon-2", 30.0, take_over=True) is not None
    with pytest.raises(Fenced):
        sweep(store.db, lease, AGES, NOW, go_on)
    assert len(store.dead_letters()) == 1


def test_the_trail_keeps_its_last_commit_and_audit_rows_stay(store: StateStore, lease: Lease) -> None:
    for day in (500, 400, 300):
        commit_at(store, lease, NOW - day * DAY, audit=[AuditRow(1.0, "ann", "ack", "inc", {})])
    numbers = [c.number for c in store.slices()]
    assert sweep(store.db, lease, AGES, NOW, go_on)["commits"] == 2
    assert [c.number for c in store.slices()] == numbers[-1:]
    assert store.verify_audit().rows == 3
    commit_at(store, lease, NOW)
    assert [c.number for c in store.slices()] == [numbers[-1], numbers[-1] + 1]
    assert count(store, commits) == 2


def test_removed_messages_stay_in_the_counts_and_pending_ones_stay(store: StateStore, lease: Lease) -> None:
    rows = [OutboxRow(f"k{n}", "hook", "", "opened", "{}", NOW - 31 * DAY) for n in range(3)]
    commit_at(store, lease, NOW - 31 * DAY, outbox=rows)
    first, second, _ = store.claim_outbox(["hook"], 60.0, 3)
    store.mark_delivered(first)
    store.mark_failed(second, "gone", None)
    before = store.outbox_counts()
    assert sweep(store.db, lease, AGES, NOW, go_on)["outbox"] == 2
    assert store.outbox_counts() == before == OutboxCounts(1, 1, 1)
    assert count(store, outbox) == 1


def test_messages_about_an_open_incident_say_who_was_told_of_it(
    store: StateStore, lease: Lease, incident: MakeIncident
) -> None:
    told = [OutboxRow(f"k{n}", "hook", f"inc_{n}", "opened", "{}", NOW - 31 * DAY) for n in (1, 2)]
    done = incident(id="inc_2", status="resolved", resolved_at=5.0)
    commit_at(store, lease, NOW - 31 * DAY, outbox=told, incidents=[incident(id="inc_1"), done])
    for message in store.claim_outbox(["hook"], 60.0, 2):
        store.mark_delivered(message)
    assert sweep(store.db, lease, AGES, NOW, go_on)["outbox"] == 1
    assert store.told() == [("hook", "inc_1")]


def test_answered_commands_go_queued_ones_stay(store: StateStore, lease: Lease) -> None:
    from monitor.state.unit import CommandResult

    done, queued = store.enqueue("ann", "x", {}), store.enqueue("ann", "x", {})
    commit_at(store, lease, NOW - 31 * DAY, commands=[CommandResult(done, True, "")])
    assert sweep(store.db, lease, AGES, NOW, go_on)["commands"] == 1
    assert [c.id for c in store.pending_commands()] == [queued]


def test_replaced_references_go_when_they_cannot_come_back(store: StateStore, lease: Lease) -> None:
    def version(name: str, created: float, approved: float | None) -> ReferenceRow:
        by = None if approved is None else "ann"
        return ReferenceRow("model:/m", "target", name, "f", b"", {}, created, approved, by)

    old, recent = NOW - 500 * DAY, NOW - 100 * DAY
    rows = [
        version("replaced", old, old),
        version("provisional", old, None),
        version("approved lately", old, recent - 1),
        version("in force", old, recent),
        version("newest", old, None),
    ]
    for row in rows:
        commit_at(store, lease, row.created_at, references=[row])
    assert sweep(store.db, lease, AGES, NOW, go_on)["references"] == 2
    assert [r.version for r in store.references("model:/m")] == [3, 4, 5]


def test_another_group_is_left_alone(store: StateStore, lease: Lease, incident: MakeIncident, store_url: str) -> None:
    from monitor.state.store import open_store

    commit_at(store, lease, 1.0, incidents=[incident(status="resolved", resolved_at=5.0)])
    other = open_store(store_url, "other")
    theirs = other.acquire_lease("d", 30.0)
    assert theirs is not None
    sweep(other.db, theirs, AGES, NOW, go_on)
    other.close()
    assert len(store.incidents()) == 1 and count(store, evidence) == 2
