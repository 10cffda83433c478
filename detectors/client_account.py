"""The per-client rule: a client is suspected when the evidence of one test against it is overwhelming.

Log-CUSUM of each (client, test), floored at 0: G ← max(0, G + log e). With E[e] <= 1 for honest events, a client of
N events crosses log A by chance with probability at most N/A, so with T tests and N₃₀ events in 30 days the threshold
max(1e8, T·N₃₀/F) keeps false suspicions within F a month. Nothing of another client is reset.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from detectors.base import F64, I64, Bool, ClientEvidence, Page, StateError, Verdict

MIN_THRESHOLD = 1e8
MAX_EVIDENCE = 1e4
"""Log-evidence is capped here: far above any threshold, and finite."""
BUCKETS = 16
"""Pages the clients are spread over, so that a quiet model writes the few that changed."""
_MAX_CLIENTS = 100_000


class ClientAccount:
    """Evidence of every (client, test) of one subject. `n30` may be set as traffic is counted."""

    def __init__(self, budget: float, tests: Sequence[str], n30: float, max_clients: int = _MAX_CLIENTS) -> None:
        """`budget` false suspicions a month (> 0), names of the `tests`, `n30` events in 30 days."""
        if not (budget > 0 and tests):
            raise ValueError(f"a client account needs a budget above 0 and a test, not {budget} and {list(tests)}")
        self.budget = budget
        self.tests = tuple(tests)
        self.n30 = n30
        self.max_clients = max_clients
        self.evicted = 0
        """Clients forgotten for want of room."""
        self._row: dict[str, int] = {}
        self._free: list[int] = []
        self._evidence: F64 = np.zeros((0, len(self.tests)))
        self._suspect: Bool = np.zeros((0, len(self.tests)), np.bool_)
        self._changed: set[int] = set()

    @property
    def threshold(self) -> float:
        """Log-evidence at which a client is suspected."""
        return math.log(max(MIN_THRESHOLD, len(self.tests) * self.n30 / self.budget))

    def evidence(self, client: str) -> dict[str, float]:
        """Log-evidence against a client by test; zeros for a client that is not known."""
        row = self._row.get(client)
        values = np.zeros(len(self.tests)) if row is None else self._evidence[row]
        return dict(zip(self.tests, values.tolist(), strict=True))

    def suspects(self) -> list[tuple[str, str]]:
        """All (client, test) under suspicion, sorted."""
        return sorted(
            (c, t)
            for c, row in self._row.items()
            for t, on in zip(self.tests, self._suspect[row].tolist(), strict=True)
            if on
        )

    def judge(self, evidence: ClientEvidence) -> Verdict:
        """Add the events in order. A (client, test) is reported once, until it is released.

        ValueError for evidence of the wrong shape, of tests that are not registered, or not a number.
        """
        if evidence.log_e.shape != (len(evidence.client), len(evidence.tests)) or np.isnan(evidence.log_e).any():
            raise ValueError(
                f"evidence of {evidence.detector} is not {len(evidence.client)} × {len(evidence.tests)} numbers"
            )
        unknown = set(evidence.tests) - set(self.tests)
        if unknown:
            raise ValueError(f"evidence of {evidence.detector} is of tests that are not registered: {sorted(unknown)}")
        rows = np.flatnonzero(evidence.client >= 0)
        if not len(rows):
            return Verdict(evidence.detector, len(evidence.client))
        columns = np.array([self.tests.index(t) for t in evidence.tests], np.int64)
        codes, counts = np.unique(evidence.client[rows], return_counts=True)
        order = rows[np.argsort(evidence.client[rows], kind="stable")]
        names = [evidence.clients[c] for c in codes.tolist()]
        at = np.array([self._place(name) for name in names], np.int64)
        now = self._evidence[np.ix_(at, columns)]
        now, peak = _cusum(now, evidence.log_e[order], counts)
        self._evidence[np.ix_(at, columns)] = now
        suspects = self._new_suspects(names, at, columns, peak)
        self._changed.update(map(_bucket, names))
        self._evict()
        return Verdict(evidence.detector, len(evidence.client), suspects=suspects)

    def release(self, client: str) -> None:
        """Forget all evidence against a client, and its suspicion."""
        row = self._row.pop(client, None)
        if row is not None:
            self._clear(row)
            self._changed.add(_bucket(client))

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
        clients = [c for page in pages.values() for c in json.loads(page["clients"].tobytes())]
        self._row = {c: i for i, c in enumerate(clients)}
        self._free.clear()
        self._changed.clear()
        width = len(self.tests)
        self._evidence = np.concatenate(
            [np.zeros((0, width)), *(p["evidence"].astype(np.float64) for p in pages.values())]
        )
        suspect = [p["suspect"].astype(np.bool_) for p in pages.values()]
        self._suspect = np.concatenate([np.zeros((0, width), np.bool_), *suspect])
        self.evicted = max((int(p["evicted"][0]) for p in pages.values()), default=0)

    def _new_suspects(self, names: Sequence[str], at: I64, columns: I64, peak: F64) -> tuple[tuple[str, str], ...]:
        crossed = (peak >= self.threshold) & ~self._suspect[np.ix_(at, columns)]
        found = []
        for i, k in np.argwhere(crossed).tolist():
            self._suspect[at[i], columns[k]] = True
            found.append((names[i], self.tests[columns[k]]))
        return tuple(sorted(found))

    def _place(self, client: str) -> int:
        """Row of a client, made when it is new."""
        row = self._row.get(client)
        if row is None:
            if not self._free:
                size = len(self._evidence)
                more = max(64, size)
                self._evidence = np.concatenate([self._evidence, np.zeros((more, len(self.tests)))])
                self._suspect = np.concatenate([self._suspect, np.zeros((more, len(self.tests)), np.bool_)])
                self._free.extend(range(size + more - 1, size - 1, -1))
            row = self._row[client] = self._free.pop()
        return row

    def _evict(self) -> None:
        """Back to nine tenths of the cap, smallest evidence first, names break ties. A suspect is never forgotten."""
        if len(self._row) <= self.max_clients:
            return
        strongest = self._evidence.max(axis=1)
        held: Bool = np.asarray(self._suspect.any(axis=1))
        free = sorted((float(strongest[row]), client) for client, row in self._row.items() if not held[row])
        for _, client in free[: len(self._row) - max(self.max_clients * 9 // 10, 1)]:
            self._clear(self._row.pop(client))
            self._changed.add(_bucket(client))
            self.evicted += 1

    def _clear(self, row: int) -> None:
        self._evidence[row] = 0.0
        self._suspect[row : row + 1] = False
        self._free.append(row)

    def _page(self, names: list[str]) -> Page:
        rows = [self._row[n] for n in names]
        return {
            "tests": np.frombuffer(json.dumps(self.tests).encode(), np.uint8).copy(),
            "clients": np.frombuffer(json.dumps(names).encode(), np.uint8).copy(),
            "evidence": self._evidence[rows],
            "suspect": self._suspect[rows],
            "evicted": np.array([self.evicted], np.int64),
        }


def _cusum(start: F64, log_e: F64, counts: I64) -> tuple[F64, F64]:
    """CUSUM of each client over its rows: `log_e` (rows, tests) holds the clients one after the other, `counts` rows
    each. Returns state and peak (clients, tests). Row by row, so equal for any cut of the events."""
    most_first = np.argsort(-counts, kind="stable")
    first = (np.cumsum(counts) - counts)[most_first]
    left = counts[most_first]
    now = start[most_first]
    peak = now.copy()
    for turn in range(int(left[0])):
        active = int(np.searchsorted(-left, -turn, side="left"))
        grown = now[:active] + log_e[first[:active] + turn]
        np.clip(grown, 0.0, MAX_EVIDENCE, out=now[:active])
        np.maximum(peak[:active], now[:active], out=peak[:active])
    back = np.argsort(most_first, kind="stable")
    return now[back], peak[back]


def _bucket(client: str) -> int:
    return zlib.crc32(client.encode()) % BUCKETS
