from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from monitor.state.errors import Fenced
from monitor.state.lease import Lease
from monitor.state.store import StateStore
from monitor.state.unit import CommitUnit


def until(ask: Callable[[], Lease | None], seconds: float = 10.0) -> Lease:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (held := ask()) is not None:
            return held
        time.sleep(0.02)
    raise AssertionError("the lease was not to be had")


def test_one_holder_at_a_time(store: StateStore) -> None:
    first = store.acquire_lease("a", 30.0)
    assert first is not None
    assert (first.epoch, first.holder, first.group) == (1, "a", "g")
    assert 29.0 < first.expires_at - first.since <= 30.1
    assert store.acquire_lease("b", 30.0) is None
    assert store.acquire_lease("a", 30.0) is None  # the same name is no proof of being the same process
    store.release(first)
    second = store.acquire_lease("b", 30.0)
    assert second is not None and second.epoch == 2


def test_an_expired_lease_is_taken_over(store: StateStore) -> None:
    first = store.acquire_lease("a", 0.3)
    assert first is not None
    assert store.acquire_lease("b", 30.0) is None
    second = until(lambda: store.acquire_lease("b", 30.0))
    assert second.epoch == 2
    assert second.since >= first.expires_at
    with pytest.raises(Fenced):
        store.renew(first)
    store.release(first)  # changes nothing
    assert store.status()["active"]["holder"] == "b"


def test_renewal_and_commits_extend(store: StateStore) -> None:
    lease = store.acquire_lease("a", 0.6)
    assert lease is not None
    for _ in range(4):
        renewed = store.renew(lease)
        assert renewed.expires_at > lease.expires_at
        store.commit(CommitUnit(at=1.0), renewed)
        assert store.acquire_lease("b", 30.0) is None
        lease = renewed


def test_an_expired_lease_that_nobody_took_still_writes(store: StateStore) -> None:
    lease = store.acquire_lease("a", -1.0)
    assert lease is not None
    assert store.status()["active"]["holder"] is None
    store.commit(CommitUnit(at=1.0), lease)


def test_take_over_by_the_daemon_lock(store: StateStore) -> None:
    assert store.acquire_lease("killed", 3600.0) is not None
    taken = store.acquire_lease("restarted", 30.0, take_over=True)
    assert taken is not None and taken.epoch == 2


def test_a_holder_needs_a_name(store: StateStore) -> None:
    with pytest.raises(ValueError, match="name"):
        store.acquire_lease("", 30.0)


def test_of_many_only_one_gets_it(store: StateStore) -> None:
    got: list[Lease | None] = []
    start = threading.Barrier(6)

    def ask(name: str) -> None:
        start.wait()
        got.append(store.acquire_lease(name, 30.0))

    threads = [threading.Thread(target=ask, args=(f"d{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 6
    assert [held.epoch for held in got if held is not None] == [1]
