"""Commands, incidents by filter, status, settings, notified alerts."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from alerts.incidents import Incident
from monitor.state.errors import Conflict, Fenced
from monitor.state.lease import Lease
from monitor.state.notified import NotifiedAlert
from monitor.state.store import StateStore
from monitor.state.unit import CommandResult, CommitUnit

NthUnit = Callable[[int], CommitUnit]


# --- commands -------------------------------------------------------------------------------------------------------


def test_a_command_is_applied_once(store: StateStore, lease: Lease) -> None:
    first = store.enqueue("alice", "ack", {"incident": "inc_1", "note": "\N{SNOWMAN}\0"})
    second = store.enqueue("bob", "resolve", {})
    pending = store.pending_commands()
    assert [(c.id, c.actor, c.name) for c in pending] == [(first, "alice", "ack"), (second, "bob", "resolve")]
    assert pending[0].arguments == {"incident": "inc_1", "note": "\N{SNOWMAN}\0"}
    assert lease.since <= pending[0].created_at <= pending[1].created_at
    assert store.command_result(first) is None

    result = CommandResult(first, False, "no such incident")
    store.commit(CommitUnit(at=9.0, commands=[result]), lease)
    assert store.command_result(first) == result
    assert [c.id for c in store.pending_commands()] == [second]
    with pytest.raises(Conflict, match=f"command {first}"):
        store.commit(CommitUnit(at=10.0, commands=[CommandResult(second, True, ""), result]), lease)
    assert store.command_result(second) is None  # all or nothing


def test_unknown_commands(store: StateStore, lease: Lease) -> None:
    with pytest.raises(KeyError):
        store.command_result(77)
    with pytest.raises(Conflict):
        store.commit(CommitUnit(at=1.0, commands=[CommandResult(77, True, "")]), lease)


# --- incidents ------------------------------------------------------------------------------------------------------


def test_incidents_by_filter(store: StateStore, lease: Lease, incident: Callable[..., Incident]) -> None:
    made = [
        incident(id="a", opened_at=1.0, status="resolved", resolved_at=3.0),
        incident(id="b", opened_at=2.0, model="other", severity="info"),
        incident(id="c", opened_at=3.0, status="acknowledged", kind="data_quality", model=None),
    ]
    store.commit(CommitUnit(at=1.0, incidents=made), lease)
    assert store.incidents() == made[::-1]
    assert store.incidents(limit=1) == made[2:]
    assert store.incidents(status=["open", "resolved"]) == [made[1], made[0]]
    assert store.incidents(model="other") == [made[1]]
    assert store.incidents(kind="data_quality") == [made[2]]
    assert store.incidents(severity=["info"]) == [made[1]]
    assert store.open_incidents() == made[1:]
    assert store.incident("nope") is None


def test_many_incidents_keep_their_parts(store: StateStore, lease: Lease, incident: Callable[..., Incident]) -> None:
    made = [incident(id=f"inc_{n:04d}", opened_at=float(n)) for n in range(1_203)]
    store.commit(CommitUnit(at=1.0, incidents=made), lease)
    assert store.open_incidents() == made


# --- status ---------------------------------------------------------------------------------------------------------


def test_status_of_an_empty_store(store: StateStore) -> None:
    assert store.status() == {
        "models": [],
        "access": {"events": 0, "topics": {}},
        "topics": [],
        "active": {"holder": None, "epoch": 0, "since": None},
        "outbox": {"pending": 0, "delivered": 0, "failed": 0},
    }


def test_status_has_the_promised_shape(store: StateStore, lease: Lease, full_unit: NthUnit) -> None:
    store.commit(full_unit(1), lease)
    store.commit(full_unit(2), lease)
    status = store.status()
    assert json.loads(json.dumps(status, allow_nan=False)) == status
    (model,) = status["models"]
    assert model == {
        "model": "credit", "tenant": "", "predictions": 20, "labels": 2, "labels_matched": 2, "clients": 3,
        "clients_exact": True, "state": "watching", "attack_state": "calibrating", "unwatched": False,
        "subject": "model:/credit", "sample_rate": 0.5, "unjudged": 2, "note": None,
        "watermark": "1970-01-01T00:16:42.000Z",
    }  # fmt: skip
    assert status["access"]["events"] == 14
    assert [(t["topic"], t["partition"]) for t in status["topics"]] == [("p", 0), ("p", 1)]
    assert status["topics"][0] == {
        "topic": "p", "partition": 0, "next_offset": 20, "received": 20, "accepted": 18, "rejected": 2,
        "rows_rejected": 4, "time_corrected": 0, "gap": 2, "unknown_fields": 0, "cluster_id": "cluster-1",
    }  # fmt: skip
    assert status["active"]["holder"] == "daemon-1"
    assert status["active"]["epoch"] == 1
    assert status["active"]["since"].endswith("Z")
    assert status["outbox"] == {"pending": 4, "delivered": 0, "failed": 0}
    store.release(lease)
    assert store.status()["active"] == {"holder": None, "epoch": 1, "since": None}


# --- facts ----------------------------------------------------------------------------------------------------------


def test_a_fact_is_stored_once(store: StateStore) -> None:
    assert store.setting("identity_key_id") is None
    assert store.remember("identity_key_id", "one") == "one"
    assert store.remember("identity_key_id", "two") == "one"
    assert store.setting("identity_key_id") == "one"


def test_notified_alerts(store: StateStore) -> None:
    fires = NotifiedAlert({"alertname": "ModelWardenFeatureDrift", "model": "a\0\ud800"}, 1.5, 2.5, None)
    other = NotifiedAlert({"alertname": "ModelWardenMonitorHealth"}, 1.0, 2.0, None)
    store.save_notified("am", [fires, other])
    store.save_notified("am2", [other])
    assert {a.starts_at for a in store.notified_alerts("am")} == {1.0, 1.5}
    resolved = fires._replace(resolved_at=9.0, last_sent=9.0)
    store.save_notified("am", [resolved], forget=[other.labels])
    assert store.notified_alerts("am") == [resolved]
    assert store.notified_alerts("am2") == [other]


def test_alerts_of_a_stale_owner_are_not_stored(store: StateStore, lease: Lease) -> None:
    alert = NotifiedAlert({"alertname": "a"}, 1.0, 2.0)
    store.save_notified("am", [alert], held=lease)
    assert store.acquire_lease("daemon-2", 30.0, take_over=True) is not None
    with pytest.raises(Fenced):
        store.save_notified("am", [alert._replace(last_sent=3.0)], [alert.labels], lease)
    assert store.notified_alerts("am") == [alert]
