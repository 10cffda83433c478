"""Every test that takes `store_url` (or `store`) runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from alerts.incidents import Incident, IncidentSubject
from detectors.base import Measure
from monitor import failpoints
from monitor.intake.events import DeadLetter, Reason
from monitor.state.lease import Lease
from monitor.state.store import StateStore, open_store
from monitor.state.tables import metadata
from monitor.state.unit import (
    AuditRow,
    CommitUnit,
    IdentityRow,
    OutboxRow,
    PartitionCounts,
    Position,
    ReferenceRow,
    Sampled,
    Slice,
    StatePage,
    SubjectRow,
    Tick,
)

AUDIT_KEY = b"audit key of the tests, 32 bytes"
CLUSTER = "cluster-1"
RAN: Counter[str] = Counter()
Dump = dict[str, list[tuple[object, ...]]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The count of cases per database is taken when all have run."""
    items.sort(key=lambda item: item.name == "test_as_many_cases_ran_on_postgresql")


@pytest.fixture
def cases() -> Counter[str]:
    """How many tests ran on which database."""
    return RAN


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new, empty database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'state.db'}"
    else:
        url = str(request.getfixturevalue("postgres_url"))
    RAN[request.param] += 1
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[StateStore]:
    """A store with tables and no rows."""
    opened = open_store(store_url, "g", audit_key=AUDIT_KEY, create=True)
    yield opened
    opened.close()


@pytest.fixture
def lease(store: StateStore) -> Lease:
    """The lease on `store`, with the starts of the partitions of `full_unit` claimed."""
    held = store.acquire_lease("daemon-1", 30.0)
    assert held is not None
    store.claim_start(CLUSTER, [Position("p", n, 0, 0, PartitionCounts()) for n in (0, 1)], held, 100.0)
    return held


@pytest.fixture(autouse=True)
def no_failpoint() -> Iterator[None]:
    """Whatever a test arms is off in the next one."""
    yield
    failpoints.disarm()


@pytest.fixture
def dump() -> Callable[[StateStore], Dump]:
    """All rows of all tables."""
    return all_rows


@pytest.fixture
def full_unit() -> Callable[[int], CommitUnit]:
    """The n-th (from 1) unit of a series; it writes to every table that a unit can write to."""
    return nth_unit


@pytest.fixture
def incident() -> Callable[..., Incident]:
    """An incident with some fields replaced."""
    return an_incident


def all_rows(store: StateStore) -> Dump:
    with store.db.engine.connect() as connection, connection.begin():
        return {
            table.name: sorted((tuple(row) for row in connection.execute(sa.select(table))), key=repr)
            for table in metadata.sorted_tables
        }


def an_incident(**changes: object) -> Incident:
    fields: dict[str, object] = {
        "id": "inc_1",
        "subject": "model:/credit",
        "model": "credit",
        "tenant": "",
        "kind": "feature_drift",
        "account": "drift",
        "cause": "",
        "severity": "warning",
        "severity_max": "critical",
        "status": "open",
        "model_version": "7",
        "opened_at": 1000.25,
        "resolved_at": None,
        "onset": 990.5,
        "why": "income moved from 0.1 to 0.7",
        "subjects": (
            IncidentSubject("feature", "income", 1000.25, "p-9"),
            IncidentSubject("feature", "age", 1001.0, None),
        ),
        "detectors": ("drift_counts",),
        "measures": (
            Measure("drift_counts", "income:loc", 0.7, 0.1, "mean", 120, 990.5, 1000.25, "income", "loc"),
            Measure("drift_counts", "age:loc", 41.0, 39.5, "years", 118, 991.0, 1000.25),
        ),
        "atlas": ("AML.T0043",),
        "last_position": 4096,
        "alarms": 2,
        "taxonomy": {"mitre_atlas": ["AML.T0043"], "owasp_ml": [], "nist_aml": []},
    }
    return Incident(**(fields | changes))  # type: ignore[arg-type]


def nth_unit(n: int) -> CommitUnit:
    was, now = 10 * (n - 1), 10 * n
    counts = PartitionCounts(received=now, accepted=now - n, rejected=n, rows_rejected=2 * n, gap=n)
    unit = CommitUnit(at=100.0 + n, cluster_id=CLUSTER)
    unit.trail = [
        Slice("p", 0, was, was + 4),
        Tick(100.5 + n, n == 1),
        Sampled("model:/credit", 2 * n),
        Slice("p", 1, was, now),
        Slice("p", 0, was + 4, now),
    ]
    unit.positions = [Position("p", partition, was, now, counts) for partition in (0, 1)]
    unit.pages = [
        StatePage("model:/credit", "drift_counts", "h1", "counts", 3, {"sums": np.arange(5.0) * n}),
        StatePage("model:/credit", "drift_counts", "h1", f"client-{n}", 3, {"seen": np.array([n], np.int64)}),
    ]
    unit.subjects = [
        SubjectRow(
            "model:/credit", "credit", "", now, n, n, now, 3, True, "watching", "calibrating", False, 1e3 + n, 0.5, n
        ),
        SubjectRow("access:a", None, "", 0, 0, 0, now, 2, True, "calibrating", "off", False, float("-inf")),
    ]
    unit.incidents = [an_incident(alarms=n), an_incident(id=f"inc_new_{n}", opened_at=1000.0 + n)]
    unit.outbox = [
        OutboxRow(f"inc_1/{n}", "hook", "inc_1", "updated", '{"n": 1}', 100.0 + n),
        OutboxRow(f"inc_new_{n}/open", "hook", f"inc_new_{n}", "opened", "{}", 100.0 + n),
    ]
    unit.dead_letters = [
        DeadLetter("p", 0, was, -1, Reason.NOT_JSON, "at byte 3", {}, 17, "ab" * 32),
        DeadLetter("p", 1, was, 2, Reason.BAD_TIME, "ts", {"ts": "text:5"}, 99, "cd" * 32),
    ]
    unit.identities = [IdentityRow(f"c_{n}", "client", b"\x00\xff" * 20, 100.0 + n)]
    unit.erased = [f"c_gone_{n}"]
    subject, role, origin = "model:/credit", "target", "refs/credit.jsonl"
    unit.references = [ReferenceRow(subject, role, f"hash-{n}", origin, b"\x01" * 9, {"rows": n}, 1.0, None, None)]
    unit.audit = [AuditRow(100.0 + n, "alice", "ack", "inc_1", {"n": n, "share": 0.1 * n})]
    unit.access_events = {"a": 7}
    return unit
