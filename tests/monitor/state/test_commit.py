"""One transaction a commit: everything or nothing, once, and only by the owner."""

from __future__ import annotations

import math
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from alerts.incidents import Incident, IncidentSubject
from detectors.base import Measure
from monitor import failpoints
from monitor.failpoints import FailPointHit
from monitor.state import database
from monitor.state import lease as lease_module
from monitor.state.database import Database
from monitor.state.errors import Conflict, Fenced, StoreError, StoreUnavailable
from monitor.state.lease import Lease
from monitor.state.store import StateStore, open_store
from monitor.state.tables import metadata
from monitor.state.unit import (
    CommandResult,
    CommitUnit,
    IdentityRow,
    OutboxRow,
    PartitionCounts,
    Position,
    StatePage,
    SubjectRow,
)

NthUnit = Callable[[int], CommitUnit]
Dump = dict[str, list[tuple[object, ...]]]
CLUSTER = "cluster-1"
INSIDE = ("before_commit", "after_offsets", "after_pages", "before_transaction_end", "after_commit")

CRASHES = """
import sys
sys.path.insert(0, sys.argv[3])
from conftest import AUDIT_KEY, nth_unit
from monitor.state.store import open_store

store = open_store(sys.argv[1], "g", audit_key=AUDIT_KEY)
lease = store.acquire_lease("child", 30.0, take_over=True)
for n in range(1, int(sys.argv[2]) + 1):
    store.commit(nth_unit(n), lease)
    print(n, flush=True)
"""


def without_clock(dump: Dump) -> Dump:
    """The dump without the lease row, whose expiry every commit moves."""
    return {name: rows for name, rows in dump.items() if name != "leases"}


# --- what is written is what is read --------------------------------------------------------------------------------


def test_everything_comes_back(store: StateStore, lease: Lease, full_unit: NthUnit) -> None:
    store.commit(full_unit(1), lease)
    second = full_unit(2)
    committed = store.commit(second, lease)
    assert committed.page_bytes > 0 and not committed.repeated

    offsets = store.load_offsets(CLUSTER)
    assert offsets == {("p", n): second.positions[n]._replace(expected=20) for n in (0, 1)}
    assert store.load_offsets("another cluster") == {}
    assert store.load_subjects() == sorted(second.subjects)
    assert store.incident("inc_1") == second.incidents[0]
    assert store.incident("inc_new_1") == full_unit(1).incidents[1]
    assert {i.id for i in store.open_incidents()} == {"inc_1", "inc_new_1", "inc_new_2"}
    assert store.identities(["c_1", "c_2", "c_9"]) == {f"c_{n}": full_unit(n).identities[0] for n in (1, 2)}
    assert [(r.version, r.reference) for r in store.references("model:/credit")] == [
        (n, full_unit(n).references[0]) for n in (1, 2)
    ]
    assert store.dead_letters() == [full_unit(n).dead_letters[i] for n in (2, 1) for i in (1, 0)]
    assert store.dead_letters(1) == second.dead_letters[1:]
    trail = list(store.slices())
    assert [c.trail for c in trail] == [full_unit(1).trail, second.trail]
    assert [(c.at, c.epoch, c.cluster_id) for c in trail] == [(101.0, 1, CLUSTER), (102.0, 1, CLUSTER)]
    assert list(store.slices(after=trail[0].number)) == trail[1:]


def test_pages_come_back_bit_by_bit(store: StateStore, lease: Lease) -> None:
    nan = np.frombuffer(bytes(range(240, 248)) * 3, "<f8")
    arrays = {"nan": nan, "big": np.arange(20_000), "flags": np.array([True, False]), "none": np.zeros((0, 4))}
    page = StatePage("model:/m", "d", "h", "p", 7, arrays)
    store.commit(CommitUnit(at=1.0, pages=[page, page._replace(page="q")]), lease)
    store.commit(CommitUnit(at=2.0, pages=[page._replace(subject="model:/n", arrays={"x": np.ones(2)})]), lease)
    back = store.load_pages("model:/m")
    assert [(p.page, p.version) for p in back] == [("p", 7), ("q", 7)]
    for name, array in arrays.items():
        assert back[0].arrays[name].tobytes() == array.tobytes()
        assert back[0].arrays[name].shape == array.shape
    assert len(store.load_pages()) == 3


def test_a_damaged_page_is_named_and_spares_the_others(store: StateStore, lease: Lease, full_unit: NthUnit) -> None:
    store.commit(full_unit(1), lease)
    with store.db.write() as connection:
        connection.execute(sa.text("UPDATE state_pages SET state_version = 4 WHERE page = 'counts'"))
    with pytest.raises(ValueError, match=r"model:/credit, drift_counts, page counts: .*version 3, version 4"):
        store.load_pages()
    damaged: list[object] = []
    pages = store.load_pages(damaged=damaged)  # type: ignore[arg-type]
    assert [page.page for page in pages] == ["client-1"]
    assert len(damaged) == 1


def test_an_incident_is_replaced_whole(store: StateStore, lease: Lease, incident: Callable[..., Incident]) -> None:
    store.commit(CommitUnit(at=1.0, incidents=[incident()]), lease)
    resolved = incident(
        status="resolved", resolved_at=2000.5, subjects=incident().subjects[:1], measures=(), resolution="recovered"
    )
    store.commit(CommitUnit(at=2.0, incidents=[incident(alarms=9), resolved]), lease)
    assert store.incident("inc_1") == resolved
    assert store.open_incidents() == []


def test_counts_of_access_events_add_up(store: StateStore, lease: Lease) -> None:
    for events in (5, 6):
        store.commit(CommitUnit(at=1.0, access_events={"a": events, "b": 1}), lease)
    assert store.status()["access"] == {"events": 13, "topics": {"a": 11, "b": 2}}


def test_an_old_content_of_a_reference_keeps_its_version(store: StateStore, lease: Lease, full_unit: NthUnit) -> None:
    row = full_unit(1).references[0]
    for reference in (row, row._replace(content_hash="other"), row._replace(approved_at=9.0, approved_by="bob"), row):
        store.commit(CommitUnit(at=1.0, references=[reference]), lease)
    versions = store.references("model:/credit")
    assert [(v.version, v.reference.approved_by) for v in versions] == [(1, "bob"), (2, None)]


def test_repeated_keys_are_written_once(store: StateStore, lease: Lease) -> None:
    message = OutboxRow("k", "hook", "inc", "opened", "first", 1.0)
    who = IdentityRow("c_1", "client", b"first", 1.0)
    for _ in range(2):
        rows = {"outbox": [message, message._replace(payload="second")], "identities": [who] * 2}
        store.commit(CommitUnit(at=1.0, **rows), lease)  # type: ignore[arg-type]
    assert store.status()["outbox"] == {"pending": 1, "delivered": 0, "failed": 0}
    assert store.claim_outbox(["hook"], 9, 9)[0].payload == "first"


# --- whatever the world sends ---------------------------------------------------------------------------------------

ODD = "a\0b \ud800 \N{PILE OF POO} ' \" % :x {y} \n\u202e" + "x" * 5_000


def test_odd_text_and_numbers_are_stored(store: StateStore, lease: Lease, incident: Callable[..., Incident]) -> None:
    measure = Measure("d", ODD, math.nan, math.inf, ODD, 2**70, -math.inf, 1.0, ODD, ODD)
    odd = incident(
        id="odd", model=ODD, tenant=ODD, why=ODD, cause=ODD, onset=math.nan, model_version=ODD,
        subjects=(IncidentSubject("client", ODD, math.inf, ODD),), measures=(measure,), detectors=(ODD,),
        taxonomy={ODD: [ODD]},
    )  # fmt: skip
    nowhere = SubjectRow(ODD, ODD, ODD, np.int64(4), 0, 0, 0, 0, True, "off", "off", False, math.nan)  # type: ignore[arg-type]
    store.commit(CommitUnit(at=1.0, incidents=[odd], subjects=[nowhere], access_events={ODD: 1}), lease)
    back = store.incident("odd")
    assert back is not None
    assert len(back.why.encode()) <= 4_000 and "\0" not in back.why
    assert back.taxonomy == odd.taxonomy  # JSON text keeps even these
    assert math.isnan(back.measures[0].observed) and math.isnan(back.onset)
    assert back.measures[0].n == 2**63 - 1
    assert store.load_subjects()[0].watermark == -math.inf
    assert store.load_subjects()[0].predictions == 4


def test_no_nan_in_numeric_columns(store: StateStore, lease: Lease, incident: Callable[..., Incident]) -> None:
    measure = Measure("d", "s", math.nan, -math.inf, "", 1, math.inf, math.nan)
    store.commit(CommitUnit(at=1.0, incidents=[incident(measures=(measure,), onset=math.nan)]), lease)
    with store.db.read() as connection:
        row = connection.execute(sa.text("SELECT observed, expected, since, until FROM evidence")).one()
        onset = connection.execute(sa.text("SELECT onset FROM incidents")).scalar_one()
    assert [*row, onset] == [None] * 5


def test_long_names_stay_different(store: StateStore, lease: Lease) -> None:
    """Keys are cut for PostgreSQL's index, and must not fall together when they are."""
    names = ["model:/" + "\N{PILE OF POO}" * 600 + end for end in "ab"]
    pages = [StatePage(name, "d" * 90, "h" * 90, "p" * 400 + name, 1, {"x": np.ones(1)}) for name in names]
    subjects = [SubjectRow(name, "m", "", 0, 0, 0, 0, 0, True, "", "", False, 0.0) for name in names]
    store.commit(CommitUnit(at=1.0, pages=pages, subjects=subjects), lease)
    assert len(store.load_pages()) == len(store.load_subjects()) == 2
    for name in names:
        assert len(store.load_pages(name)) == 1


# --- all or nothing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("visit", [1, 2])
def test_a_failure_inside_writes_nothing(
    name: str, visit: int, store: StateStore, lease: Lease, full_unit: NthUnit, dump: Callable[[StateStore], Dump]
) -> None:
    for n in range(1, visit):
        store.commit(full_unit(n), lease)
    before = dump(store)
    unit = full_unit(visit)
    failpoints.arm(f"{name}:1:raise")
    with pytest.raises(FailPointHit):
        store.commit(unit, lease)
    after = dump(store)
    assert (after == before) == (name != "after_commit")
    repeated = store.commit(unit, lease).repeated  # the store stays usable, and the same unit may come again
    assert repeated == (name == "after_commit")
    assert len(dump(store)["commits"]) == visit
    assert store.load_offsets(CLUSTER)["p", 0].next == 10 * visit


@pytest.mark.parametrize("name", INSIDE)
def test_a_crash_leaves_whole_commits(
    name: str, store: StateStore, lease: Lease, full_unit: NthUnit, dump: Callable[[StateStore], Dump]
) -> None:
    """A process killed at a fail-point on its second commit leaves exactly what one or two commits leave."""
    url = store.db.url.render_as_string(hide_password=False)
    died = subprocess.run(
        [sys.executable, "-c", CRASHES, url, "3", str(Path(__file__).parent)],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), failpoints.VARIABLE: f"{name}:2:crash"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert died.stdout.split() == ["1"]
    whole = 2 if name == "after_commit" else 1
    assert store.load_offsets(CLUSTER)["p", 1].next == 10 * whole
    assert len(list(store.slices())) == whole
    assert store.verify_audit().ok and store.verify_audit().rows == whole
    found = dump(store)
    assert len(found["outbox"]) == len(found["dead_letters"]) == 2 * whole
    assert len(found["state_pages"]) == len(found["incidents"]) == whole + 1
    held = store.acquire_lease("successor", 30.0, take_over=True)
    assert held is not None
    store.commit(full_unit(whole + 1), held)


def test_a_commit_whose_answer_was_lost_is_written_once(
    store: StateStore, lease: Lease, full_unit: NthUnit, dump: Callable[[StateStore], Dump]
) -> None:
    unit = full_unit(1)
    first = store.commit(unit, lease)
    before = without_clock(dump(store))
    second = store.commit(unit, lease)
    assert second == (first.number, 0, True)
    assert without_clock(dump(store)) == before


def test_counts_that_do_not_add_up_are_refused(store: StateStore, lease: Lease) -> None:
    bad = Position("p", 0, 0, 5, PartitionCounts(received=5, accepted=3, rejected=1))
    with pytest.raises(StoreError, match="conserved"):
        store.commit(CommitUnit(at=1.0, cluster_id=CLUSTER, positions=[bad]), lease)
    assert store.load_offsets(CLUSTER)["p", 0].next == 0


def test_audited_units_need_the_key(store: StateStore, lease: Lease, full_unit: NthUnit) -> None:
    url = store.db.url.render_as_string(hide_password=False)
    for key, reason in ((None, "without an audit key"), (b"another key", "not the one this database was begun with")):
        if key is not None:
            store.commit(full_unit(1), lease)
        other = open_store(url, "g", audit_key=key)
        with pytest.raises(StoreError, match=reason):
            other.commit(full_unit(1 if key is None else 2), lease)
        other.close()


# --- only by the owner ----------------------------------------------------------------------------------------------


def test_a_stale_owner_changes_no_row(
    store: StateStore, lease: Lease, full_unit: NthUnit, dump: Callable[[StateStore], Dump]
) -> None:
    store.commit(full_unit(1), lease)
    successor = store.acquire_lease("daemon-2", 30.0, take_over=True)
    assert successor is not None and successor.epoch == lease.epoch + 1
    before = dump(store)
    start = [Position("new", 0, 0, 5, PartitionCounts())]
    for write in (
        lambda: store.commit(full_unit(2), lease),
        lambda: store.claim_start(CLUSTER, start, lease, 1.0),
        lambda: store.renew(lease),
        lambda: store.commit(full_unit(2), replace(successor, holder="daemon-3")),
        lambda: store.commit(full_unit(2), replace(successor, group="other")),
    ):
        with pytest.raises(Fenced):
            write()
    store.release(lease)
    assert dump(store) == before
    store.commit(full_unit(2), successor)


def test_another_offset_is_a_conflict(
    store: StateStore, lease: Lease, full_unit: NthUnit, dump: Callable[[StateStore], Dump]
) -> None:
    store.commit(full_unit(1), lease)
    before = dump(store)
    for unit in (full_unit(1), full_unit(3), replace(full_unit(2), cluster_id="elsewhere")):
        with pytest.raises(Conflict, match="p/0"):
            store.commit(unit, lease)
    assert dump(store) == before


def test_starts_never_overwrite(store: StateStore, lease: Lease, full_unit: NthUnit) -> None:
    store.commit(full_unit(1), lease)
    positions = [Position("p", n, 777, 777, PartitionCounts()) for n in (0, 1, 2)]
    store.claim_start(CLUSTER, positions, lease, 5.0)
    found = store.load_offsets(CLUSTER)
    assert [found["p", n].next for n in (0, 1, 2)] == [10, 10, 777]


def test_groups_share_nothing(store: StateStore, lease: Lease, full_unit: NthUnit) -> None:
    store.commit(full_unit(1), lease)
    store.enqueue("alice", "ack", {})
    url = store.db.url.render_as_string(hide_password=False)
    other = open_store(url, "h", audit_key=b"a key of its own")
    held = other.acquire_lease("daemon-1", 30.0)
    assert held is not None and held.epoch == 1
    assert other.load_offsets(CLUSTER) == {} and other.load_pages() == [] and other.load_subjects() == []
    assert other.incidents() == [] and list(other.slices()) == [] and other.dead_letters() == []
    assert other.pending_commands() == [] and other.claim_outbox(["hook"], 1, 9) == []
    other.claim_start(CLUSTER, [Position("p", n, 0, 0, PartitionCounts()) for n in (0, 1)], held, 0.0)
    other.commit(full_unit(1), held)  # the same keys again, beside the others
    assert store.verify_audit().ok and other.verify_audit().ok
    with pytest.raises(Conflict):
        other.commit(CommitUnit(at=1.0, commands=[CommandResult(1, True, "")]), held)
    other.close()


# --- a database in trouble ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [1, 40])
def test_a_full_disk_loses_nothing(
    pages: int, tmp_path: Path, full_unit: NthUnit, dump: Callable[[StateStore], Dump]
) -> None:
    """SQLite only: `max_page_count` stands for a full disk. SQLite rolls back by itself then."""
    store = open_store(f"sqlite:///{tmp_path / 'state.db'}", "g", audit_key=b"k", create=True)
    lease = store.acquire_lease("daemon-1", 30.0)
    assert lease is not None
    store.claim_start(CLUSTER, [Position("p", n, 0, 0, PartitionCounts()) for n in (0, 1)], lease, 0.0)
    store.commit(full_unit(1), lease)
    before = dump(store)
    unit = full_unit(2)
    noise = np.random.default_rng(1).random(30_000)
    unit.pages = [StatePage("model:/m", "d", "h", str(n), 1, {"x": noise}) for n in range(pages)]

    full = True

    def limit(connection: sqlite3.Connection, _record: object, _proxy: object) -> None:
        used = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {used + 5 if full else 1_000_000_000}")

    sa.event.listen(store.db.engine, "checkout", limit)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="full"):
            store.commit(unit, lease)
    assert dump(store) == before
    full = False
    store.commit(unit, lease)
    assert store.load_offsets(CLUSTER)["p", 0].next == 20
    store.close()


def test_a_locked_database_is_unavailable_and_recovers(
    tmp_path: Path, full_unit: NthUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    path = tmp_path / "state.db"
    store = open_store(f"sqlite:///{path}", "g", audit_key=b"k", create=True)
    lease = store.acquire_lease("daemon-1", 30.0)
    assert lease is not None
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        store.commit(CommitUnit(at=1.0), lease)
    assert store.status()["active"]["holder"] == "daemon-1"  # readers go on
    holder.execute("ROLLBACK")
    holder.close()
    store.commit(CommitUnit(at=1.0), lease)
    store.close()


def test_sqlite_is_durable(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'state.db'}", "g", create=True)
    with store.db.read() as connection:
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert found == ["wal", 2]
    store.close()


def test_a_dropped_connection_is_unavailable_and_recovers(postgres_url: str, full_unit: NthUnit) -> None:
    store = open_store(postgres_url, "g", audit_key=b"k", create=True)
    lease = store.acquire_lease("daemon-1", 30.0)
    assert lease is not None
    kill = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                   " AND pid <> pg_backend_pid()")  # fmt: skip
    other = Database(postgres_url, "g")

    def interrupted() -> None:
        with store.db.write() as connection:
            lease_module.fence(store.db, connection, lease)
            with other.write() as killer:
                killer.execute(kill)
            connection.execute(sa.text("SELECT 1"))

    with pytest.raises(StoreUnavailable):
        interrupted()
    store.commit(CommitUnit(at=1.0), lease)
    other.engine.dispose()
    store.close()


def test_a_frozen_owner_does_not_keep_the_lease_locked(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle inside its commit, the owner holds the lease row; PostgreSQL ends its session, the successor goes on."""
    monkeypatch.setitem(database._POSTGRES_SETTINGS, "idle_in_transaction_session_timeout", "300ms")
    monkeypatch.setattr(lease_module, "_WAIT_MS", 100)
    store = open_store(postgres_url, "g", create=True)
    lease = store.acquire_lease("frozen", 0.05)
    assert lease is not None
    tries: list[Lease | None] = []

    def freezes() -> None:
        with store.db.write() as connection:
            lease_module.fence(store.db, connection, replace(lease, ttl=-1.0))
            tries.extend(store.acquire_lease("successor", 30.0) for _ in range(20))
            connection.execute(sa.text("SELECT 1"))

    with pytest.raises(StoreUnavailable):
        freezes()
    assert tries[0] is None
    assert [held.epoch for held in tries if held is not None] == [lease.epoch + 1]
    with pytest.raises(Fenced):
        store.commit(CommitUnit(at=1.0), lease)
    store.close()


def test_every_table_is_written_by_the_unit(
    store: StateStore, lease: Lease, full_unit: NthUnit, dump: Callable[[StateStore], Dump]
) -> None:
    """Guards the tests above: a table that the unit leaves empty is not tested by them."""
    store.commit(full_unit(1), lease)
    empty = {name for name, rows in dump(store).items() if not rows}
    assert empty == {"commands", "notified_alerts"}
    assert set(dump(store)) == {table.name for table in metadata.sorted_tables}
