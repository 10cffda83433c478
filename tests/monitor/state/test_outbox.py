from __future__ import annotations

import threading
import time

import pytest

from monitor.state.lease import Lease
from monitor.state.outbox import OutboxMessage
from monitor.state.store import StateStore
from monitor.state.unit import CommitUnit, OutboxRow


def message(key: str, incident: str, receiver: str = "hook") -> OutboxRow:
    return OutboxRow(key, receiver, incident, "opened", '{"x": "\N{SNOWMAN}"}', 5.0)


def put(store: StateStore, lease: Lease, *rows: OutboxRow) -> None:
    store.commit(CommitUnit(at=1.0, outbox=list(rows)), lease)


def keys(messages: list[OutboxMessage]) -> list[str]:
    return [m.key for m in messages]


def test_messages_come_back_in_order_and_once(store: StateStore, lease: Lease) -> None:
    put(store, lease, *(message(f"k{n}", f"inc_{n}") for n in range(5)))
    first = store.claim_outbox(["hook"], 30, 3)
    assert keys(first) == ["k0", "k1", "k2"]
    assert first[0][1:] == ("k0", "hook", "inc_0", "opened", '{"x": "\N{SNOWMAN}"}', 5.0, 1)
    assert keys(store.claim_outbox(["hook"], 30, 3)) == ["k3", "k4"]
    assert store.claim_outbox(["hook"], 30, 3) == []
    for one in first:
        store.mark_delivered(one)
    assert store.outbox_counts() == (2, 3, 0)


def test_only_of_the_receivers_asked_for(store: StateStore, lease: Lease) -> None:
    put(store, lease, message("a", "inc", "am"), message("b", "inc", "hook"))
    assert store.claim_outbox([], 30, 9) == []
    assert keys(store.claim_outbox(["hook", "other"], 30, 9)) == ["b"]


def test_order_belongs_to_receiver_and_incident(store: StateStore, lease: Lease) -> None:
    put(store, lease, message("1a", "one"), message("1b", "one"), message("2a", "two"), message("1c", "one", "am"))
    claimed = store.claim_outbox(["hook", "am"], 30, 9)
    assert keys(claimed) == ["1a", "2a", "1c"]
    store.mark_failed(claimed[0], "503", retry_in=0.0)
    again = store.claim_outbox(["hook"], 30, 9)
    assert [(m.key, m.attempt) for m in again] == [("1a", 2)]  # the later message waits for the earlier
    store.mark_delivered(again[0])
    assert keys(store.claim_outbox(["hook"], 30, 9)) == ["1b"]


def test_given_up_messages_hold_nobody_back(store: StateStore, lease: Lease) -> None:
    put(store, lease, message("a", "one"), message("b", "one"))
    store.mark_failed(store.claim_outbox(["hook"], 30, 1)[0], "410 gone" * 999, retry_in=None)
    assert keys(store.claim_outbox(["hook"], 30, 9)) == ["b"]
    assert store.outbox_counts() == (1, 0, 1)


def test_messages_without_an_incident_need_no_order(store: StateStore, lease: Lease) -> None:
    put(store, lease, message("a", ""), message("b", ""))
    assert keys(store.claim_outbox(["hook"], 30, 9)) == ["a", "b"]


def test_a_retry_waits(store: StateStore, lease: Lease) -> None:
    put(store, lease, message("a", "one"))
    store.mark_failed(store.claim_outbox(["hook"], 30, 1)[0], "503", retry_in=3600.0)
    assert store.claim_outbox(["hook"], 30, 1) == []
    assert store.outbox_counts().pending == 1


def test_a_claim_that_ran_out_is_taken_over(store: StateStore, lease: Lease) -> None:
    put(store, lease, message("a", "one"))
    dead = store.claim_outbox(["hook"], 0.2, 1)[0]
    deadline = time.monotonic() + 10
    while not (taken := store.claim_outbox(["hook"], 30, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (taken[0].key, taken[0].attempt) == ("a", 2)
    store.mark_failed(dead, "too late", retry_in=None)  # the claim is another's by now
    assert store.outbox_counts().pending == 1
    store.mark_delivered(dead)  # but it was delivered
    store.mark_failed(taken[0], "conflict", retry_in=0.0)
    assert store.outbox_counts() == (0, 1, 0)


def test_two_workers_never_claim_the_same(store: StateStore, lease: Lease) -> None:
    put(store, lease, *(message(f"k{n}", f"inc_{n % 20}") for n in range(60)))
    taken: list[OutboxMessage] = []
    errors: list[BaseException] = []
    start = threading.Barrier(2)

    def work() -> None:
        try:
            start.wait()
            while store.outbox_counts().pending:
                for one in store.claim_outbox(["hook"], 30, 4):
                    taken.append(one)
                    store.mark_delivered(one)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert errors == []
    assert len(taken) == 60
    assert len(set(keys(taken))) == 60
    for incident in {m.incident_id for m in taken}:
        numbers = [m.number for m in taken if m.incident_id == incident]
        assert numbers == sorted(numbers)
    assert store.outbox_counts() == (0, 60, 0)


@pytest.mark.parametrize("limit", [0, 1])
def test_limits(limit: int, store: StateStore, lease: Lease) -> None:
    put(store, lease, message("a", "1"), message("b", "2"))
    assert len(store.claim_outbox(["hook"], 30, limit)) == limit
