"""The per-client rule: a client is suspected when the evidence of one test against it is overwhelming.

Log-CUSUM of each (client, test), floored at 0: G ← max(0, G + log e). With E[e] <= 1 for honest events, a client of
N events crosses log A by chance with probability at most N/A, so with T tests and N₃₀ events in 30 days the threshold
max(1e8, T·N₃₀/F) keeps false suspicions within F a month. Nothing of another client is reset.

Evidence is kept in units of 2^-20, as integers: sums are exact, so results do not depend on the cut of the events.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detectors.base import F64, I64, ClientEvidence, Page, StateError, Suspect

MIN_THRESHOLD = 1e8
MAX_LOG_E = 100.0
"""Log-evidence of one event is capped here: far above any threshold."""
UNIT = 2.0**-20
BUCKETS = 16
"""Pages the clients are spread over, so that a quiet model writes the few that changed."""
NAME_BYTES = 180
"""A pseudonym with its place in a dictionary takes about this much."""
_MAX_CLIENTS = 100_000
_LIMIT = 1 << 40


class ClientAccount:
    """Evidence of every (client, test) of one subject. `n30` may be set as traffic is counted.

    Only clients with evidence above 0 take room: an honest one is at 0 most of the time.
    """

    def __init__(self, budget: float, tests: Sequence[str], n30: float, max_clients: int = _MAX_CLIENTS) -> None:
        """`budget` false suspicions a month (> 0), names of the `tests`, `n30` events in 30 days."""
        if not (budget > 0 and tests):
            raise ValueError(f"a client account needs a budget above 0 and a test, not {budget} and {list(tests)}")
        self.budget = budget
        self.tests = tuple(tests)
        self.n30 = n30
        self.max_clients = max_clients
        self.evicted = 0
        """Clients with evidence forgotten for want of room."""
        self.level: F64 = np.zeros(0)
        """Of each event judged last: the log-evidence of the strongest test against its client after it."""
        self._row: dict[str, int] = {}
        self._free: list[int] = []
        self._held = _Evidence.zeros(0, len(self.tests))
        self._changed: set[int] = set()
        self._new: set[str] = set()
        """Clients of the evidence being judged that are in no page."""

    @property
    def threshold(self) -> float:
        """Log-evidence at which a client is suspected."""
        return math.log(max(MIN_THRESHOLD, len(self.tests) * self.n30 / self.budget))

    @property
    def clients(self) -> int:
        """Clients with evidence above 0."""
        return len(self._row)

    @property
    def bytes(self) -> int:
        """What the evidence takes in memory, about."""
        return len(self._held.sum) * 32 * len(self.tests) + len(self._row) * NAME_BYTES

    def shrink(self, most: int, kept: Container[str]) -> None:
        """Forget the clients with least evidence beyond `most`, but none that is to be `kept`."""
        self._forget([c for c in self._by_evidence() if c not in kept], len(self._row) - most)
        rows = np.array(list(self._row.values()), np.int64)
        self._held = self._held.rows(rows)
        self._row = {client: i for i, client in enumerate(self._row)}
        self._free.clear()

    def evidence(self, client: str) -> dict[str, float]:
        """Log-evidence against a client by test; zeros for a client that is not known."""
        row = self._row.get(client)
        values = np.zeros(len(self.tests)) if row is None else self._held.sum[row] * UNIT
        return dict(zip(self.tests, values.tolist(), strict=True))

    def judge(self, evidence: ClientEvidence) -> tuple[Suspect, ...]:
        """Add the events in order: whoever crosses the threshold, in the order of the events.

        A (client, test) that crossed begins anew after these events. ValueError for evidence of the wrong shape, of
        tests that are not registered, or not a number.
        """
        self._check(evidence)
        self.level = np.zeros(len(evidence.client))
        rows = np.flatnonzero(evidence.client >= 0)
        if not len(rows):
            return ()
        columns = np.array([self.tests.index(t) for t in evidence.tests], np.int64)
        codes, counts = np.unique(evidence.client[rows], return_counts=True)
        order = rows[np.argsort(evidence.client[rows], kind="stable")]
        names = [evidence.clients[c] for c in codes.tolist()]
        at = self._places(names)
        step = np.zeros((len(order), len(self.tests)), np.int64)
        step[:, columns] = np.rint(np.clip(evidence.log_e[order], -MAX_LOG_E, MAX_LOG_E) / UNIT)
        path = _walk(self._held.rows(at), step, evidence.time[order], counts)
        self.level[order] = path.sum.max(axis=1) * UNIT
        suspects = self._suspects(names, order, counts, path)
        self._keep(names, at, np.cumsum(counts) - 1, path, suspects)
        return suspects

    def release(self, client: str) -> None:
        """Forget all evidence against a client."""
        row = self._row.pop(client, None)
        if row is not None:
            self._clear(row, client)

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        members: dict[int, list[str]] = {b: [] for b in self._changed}
        for client in self._row:
            if (bucket := _bucket(client)) in members:
                members[bucket].append(client)
        self._changed.clear()
        return {f"clients{b}": self._page(names) for b, names in sorted(members.items())}

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the pages of an account of the same tests. StateError, and no change, when they do not fit."""
        for page in pages.values():
            stored = json.loads(page["tests"].tobytes())
            if tuple(stored) != self.tests:
                raise StateError(f"stored evidence on clients is of tests {stored}, not {list(self.tests)}")
        width = len(self.tests)
        parts = [_Evidence(p["sum"], p["since"], p["n"], p["hits"]) for p in pages.values()]
        if any(a.ndim != 2 or a.shape[1] != width for p in parts for a in (p.sum, p.since, p.n, p.hits)):
            raise StateError(f"stored evidence on clients is not of {width} tests")
        clients = [c for page in pages.values() for c in json.loads(page["clients"].tobytes())]
        self._held = _Evidence.joined([_Evidence.zeros(0, width), *parts])
        self._row = {c: i for i, c in enumerate(clients)}
        self._free.clear()
        self._changed.clear()
        self.evicted = max((int(p["evicted"][0]) for p in pages.values()), default=0)

    def _check(self, evidence: ClientEvidence) -> None:
        if evidence.log_e.shape != (len(evidence.client), len(evidence.tests)) or np.isnan(evidence.log_e).any():
            raise ValueError(
                f"evidence of {evidence.detector} is not {len(evidence.client)} × {len(evidence.tests)} numbers"
            )
        unknown = set(evidence.tests) - set(self.tests)
        if unknown:
            raise ValueError(f"evidence of {evidence.detector} is of tests that are not registered: {sorted(unknown)}")

    def _suspects(self, names: Sequence[str], order: I64, counts: I64, path: _Path) -> tuple[Suspect, ...]:
        """The first crossing of each (client, test)."""
        over = path.sum >= math.ceil(self.threshold / UNIT)
        found = []
        for column in np.flatnonzero(over.any(axis=0)).tolist():
            crossed = np.flatnonzero(over[:, column])
            who, first = np.unique(np.searchsorted(np.cumsum(counts), crossed, side="right"), return_index=True)
            for i, at in zip(who.tolist(), crossed[first].tolist(), strict=True):
                logs = dict(zip(self.tests, (path.sum[at] * UNIT).tolist(), strict=True))
                since, n, hits = path.since[at, column], path.n[at, column], path.hits[at, column]
                found.append(
                    Suspect(names[i], self.tests[column], int(order[at]), float(since), int(n), int(hits), logs)
                )
        return tuple(sorted(found, key=lambda s: (s.row, s.test)))

    def _keep(self, names: Sequence[str], at: I64, last: I64, path: _Path, suspects: Sequence[Suspect]) -> None:
        """Store where every client stands; whoever has no evidence left is forgotten."""
        self._held.put(at, path, last)
        for suspect in suspects:
            self._held.clear(self._row[suspect.client], self.tests.index(suspect.test))
        gone = (self._held.sum[at] == 0).all(axis=1)
        for i in np.flatnonzero(gone).tolist():
            self._clear(self._row.pop(names[i]), names[i] if names[i] not in self._new else "")
        self._changed.update(_bucket(n) for n, empty in zip(names, gone.tolist(), strict=True) if not empty)
        self._evict()

    def _places(self, names: Sequence[str]) -> I64:
        """Rows of the clients, made where they are new."""
        self._new = {n for n in names if n not in self._row}
        missing = len(self._new) - len(self._free)
        if missing > 0:
            size = len(self._held.sum)
            more = max(missing, 64, size)
            self._held = _Evidence.joined([self._held, _Evidence.zeros(more, len(self.tests))])
            self._free.extend(range(size + more - 1, size - 1, -1))
        for name in names:
            if name in self._new:
                self._row[name] = self._free.pop()
        return np.array([self._row[n] for n in names], np.int64)

    def _evict(self) -> None:
        """Back to nine tenths of the cap, smallest evidence first, names break ties."""
        if len(self._row) <= self.max_clients:
            return
        self._forget(self._by_evidence(), len(self._row) - max(self.max_clients * 9 // 10, 1))

    def _by_evidence(self) -> list[str]:
        """Clients, least evidence first, names break ties."""
        strongest = self._held.sum.max(axis=1)
        return [client for _, client in sorted((int(strongest[row]), client) for client, row in self._row.items())]

    def _forget(self, clients: Sequence[str], n: int) -> None:
        """The first `n` of these."""
        for client in clients[: max(n, 0)]:
            self._clear(self._row.pop(client), client)
            self.evicted += 1

    def _clear(self, row: int, client: str) -> None:
        self._held.clear(row, slice(None))
        self._free.append(row)
        if client:
            self._changed.add(_bucket(client))

    def _page(self, names: list[str]) -> Page:
        held = self._held.rows(np.array([self._row[n] for n in names], np.int64))
        return {
            "tests": np.frombuffer(json.dumps(self.tests).encode(), np.uint8).copy(),
            "clients": np.frombuffer(json.dumps(names).encode(), np.uint8).copy(),
            "sum": held.sum,
            "since": held.since,
            "n": held.n,
            "hits": held.hits,
            "evicted": np.array([self.evicted], np.int64),
        }


@dataclass(slots=True)
class _Evidence:
    """Where each (client, test) stands, all (clients, tests): its sum in units, and since when, over how many events
    and how many hits it has been above 0."""

    sum: I64
    since: F64
    n: I64
    hits: I64

    @staticmethod
    def zeros(clients: int, tests: int) -> _Evidence:
        shape = clients, tests
        return _Evidence(
            np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        )

    @staticmethod
    def joined(parts: Sequence[_Evidence]) -> _Evidence:
        return _Evidence(
            np.concatenate([p.sum for p in parts]).astype(np.int64),
            np.concatenate([p.since for p in parts]).astype(np.float64),
            np.concatenate([p.n for p in parts]).astype(np.int64),
            np.concatenate([p.hits for p in parts]).astype(np.int64),
        )

    def rows(self, at: I64) -> _Evidence:
        return _Evidence(self.sum[at], self.since[at], self.n[at], self.hits[at])

    def put(self, at: I64, path: _Path, last: I64) -> None:
        self.sum[at], self.since[at] = np.minimum(path.sum[last], _LIMIT), path.since[last]
        self.n[at], self.hits[at] = path.n[last], path.hits[last]

    def clear(self, row: int, column: int | slice) -> None:
        self.sum[row, column] = self.n[row, column] = self.hits[row, column] = 0
        self.since[row, column] = 0.0


_Path = _Evidence
"""The same after every event: (events, tests), the clients one after the other."""


def _walk(start: _Evidence, step: I64, time: F64, counts: I64) -> _Path:
    """CUSUM of each client along its events: `step` (events, tests) in units, `counts` events for each client.

    G_t = U_t − min(0, min_{k<=t} U_k) with U the sum from the start: exact, because units are integers.
    """
    n = len(step)
    begin = np.repeat(np.cumsum(counts) - counts, counts)
    segment = np.repeat(np.arange(len(counts)), counts)
    at = np.arange(n)[:, None]

    def within(values: I64) -> I64:
        total = np.cumsum(values, axis=0)
        before = total[begin] - values[begin]
        return total - before

    free = start.sum[segment] + within(step)
    # Segments are moved apart, each below all before it, so that one running minimum serves them all.
    apart = segment[:, None] * (2 * int(np.abs(free).max(initial=0)) + 2)
    low = np.minimum.accumulate(free - apart, axis=0) + apart
    value = free - np.minimum(low, 0)
    # The last event at which the sum was 0, or the one before the client's first.
    zero = np.maximum.accumulate(np.where(value == 0, at, begin[:, None] - 1), axis=0)
    carried = zero < begin[:, None]
    telling, hit = within((step != 0).astype(np.int64)), within((step > 0).astype(np.int64))
    back = np.maximum(zero, 0)
    column = np.arange(step.shape[1])[None, :]
    own = carried & (start.sum[segment] > 0)
    return _Path(
        value,
        np.where(value == 0, 0.0, np.where(own, start.since[segment], time[np.minimum(zero + 1, n - 1)])),
        np.where(
            value == 0, 0, telling - np.where(carried, 0, telling[back, column]) + np.where(own, start.n[segment], 0)
        ),
        np.where(value == 0, 0, hit - np.where(carried, 0, hit[back, column]) + np.where(own, start.hits[segment], 0)),
    )


def _bucket(client: str) -> int:
    return zlib.crc32(client.encode()) % BUCKETS
