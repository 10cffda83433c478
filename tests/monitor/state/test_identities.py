"""Identities: seen, expired, erased for good."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from alerts.incidents import Incident, IncidentSubject
from monitor.state.database import sqlite_path
from monitor.state.errors import Fenced
from monitor.state.identities import expire
from monitor.state.lease import Lease
from monitor.state.store import StateStore
from monitor.state.unit import CommitUnit, IdentityRow

WHO = IdentityRow("c_1", "client", b"a ciphertext that can be found in a file", 1.0)


def go_on() -> bool:
    return False


def seen(store: StateStore, lease: Lease, at: float, *rows: IdentityRow, erased: tuple[str, ...] = ()) -> None:
    store.commit(CommitUnit(at, identities=list(rows), erased=list(erased)), lease)


def test_who_is_seen_again_does_not_expire(store: StateStore, lease: Lease) -> None:
    other = WHO._replace(pseudonym="c_2")
    seen(store, lease, 100.0, WHO, other)
    seen(store, lease, 200.0, WHO._replace(first_seen=150.0))
    assert expire(store.db, lease, 150.0, go_on) == 1
    assert store.identities(["c_1", "c_2"]) == {"c_1": WHO}


def test_an_open_incident_keeps_its_clients(store: StateStore, lease: Lease, incident: Callable[..., Incident]) -> None:
    who = (IncidentSubject("client", "c_1", 5.0, None),)
    seen(store, lease, 100.0, WHO)
    store.commit(CommitUnit(101.0, incidents=[incident(subjects=who)]), lease)
    assert expire(store.db, lease, 1_000.0, go_on) == 0
    store.commit(CommitUnit(102.0, incidents=[incident(subjects=who, status="resolved")]), lease)
    assert expire(store.db, lease, 1_000.0, go_on) == 1


def test_only_the_holder_of_the_lease_expires(store: StateStore, lease: Lease) -> None:
    seen(store, lease, 100.0, WHO)
    assert store.acquire_lease("daemon-2", 30.0, take_over=True) is not None
    with pytest.raises(Fenced):
        expire(store.db, lease, 1_000.0, go_on)
    assert store.identities(["c_1"])


def test_what_was_erased_is_not_stored_again(store: StateStore, lease: Lease) -> None:
    seen(store, lease, 100.0, WHO)
    seen(store, lease, 101.0, WHO, erased=("c_1", "c_9"))
    assert store.identities(["c_1"]) == {}
    seen(store, lease, 102.0, WHO, WHO._replace(pseudonym="c_2"), WHO._replace(pseudonym="c_9"))
    assert set(store.identities(["c_1", "c_2", "c_9"])) == {"c_2"}


def test_nothing_of_it_is_left_in_the_file(store: StateStore, lease: Lease) -> None:
    path = sqlite_path(store.db.url)
    if path is None:
        pytest.skip("PostgreSQL removes it with the next VACUUM")
    seen(store, lease, 100.0, WHO)

    def on_disk() -> bool:
        with store.db.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return WHO.ciphertext in path.read_bytes()

    assert on_disk()
    seen(store, lease, 101.0, erased=("c_1",))
    assert not on_disk()
