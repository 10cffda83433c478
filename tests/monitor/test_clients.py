"""The ledger of clients: exact below its capacity, heavy hitters kept beyond it, equal after a restore."""

from __future__ import annotations

from collections import Counter

import numpy as np

from detectors.base import Page
from monitor.clients import ClientLedger


def add(ledger: ClientLedger, names: list[str], at: float = 1.0) -> None:
    distinct = tuple(dict.fromkeys(names))
    codes = np.array([distinct.index(n) for n in names], np.int32)
    ledger.add(codes, distinct, np.full(len(names), at))


def test_counts_are_exact_below_the_capacity() -> None:
    rng = np.random.default_rng(1)
    ledger, truth = ClientLedger(), Counter[str]()
    for i in range(50):
        names = [f"c{n}" for n in rng.zipf(1.3, 200) % 500]
        truth.update(names)
        add(ledger, names, float(i))
    assert {c.client: c.queries for c in ledger.counts()} == dict(truth)
    assert ledger.exact and ledger.distinct == len(truth)


def test_unknown_clients_are_not_counted() -> None:
    ledger = ClientLedger()
    ledger.add(np.array([-1, -1], np.int32), (), np.array([1.0, 2.0]))
    assert ledger.distinct == 0 and ledger.dirty() == {}


def test_first_and_last_times() -> None:
    ledger = ClientLedger()
    for at in (5.0, 3.0, 9.0):
        add(ledger, ["a"], at)
    assert (ledger.counts()[0].first_seen, ledger.counts()[0].last_seen) == (3.0, 9.0)


def test_beyond_the_capacity_a_heavy_client_stays_and_the_number_is_estimated() -> None:
    ledger = ClientLedger(capacity=100)
    for i in range(200):
        add(ledger, [f"flood{i}-{j}" for j in range(20)] + ["heavy"] * 2)
    heavy = ledger.counts()[0]
    assert heavy.client == "heavy" and heavy.queries - heavy.error <= 400 <= heavy.queries
    assert not ledger.exact
    assert abs(ledger.distinct - 4_001) < 0.06 * 4_001
    assert len(ledger.counts()) <= 100


def test_pages_written_along_the_way_restore_an_equal_ledger() -> None:
    rng = np.random.default_rng(2)
    ledger = ClientLedger(capacity=300)
    pages: dict[str, Page] = {}
    for i in range(40):
        add(ledger, [f"c{n}" for n in rng.zipf(1.1, 100) % 1_000], float(i))
        if i % 7 == 0:
            pages |= ledger.dirty()
    pages |= ledger.dirty()
    twin = ClientLedger(capacity=300)
    twin.restore(pages)
    assert twin.counts() == ledger.counts() and twin.distinct == ledger.distinct and twin.exact == ledger.exact
    assert ledger.dirty() == {}
    add(ledger, ["c1", "new"])
    add(twin, ["c1", "new"])
    assert twin.counts() == ledger.counts()
