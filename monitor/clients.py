"""How many queries each client of a model has made: exact below 10,000 clients, heavy hitters and an estimate beyond.

Kept in the model's state pages, so a count moves in the same transaction as the offset it came from.
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Mapping
from typing import NamedTuple

import numpy as np
from datasketches import hll_sketch

from detectors.base import F64, I32, Page
from monitor.state.codec import array_text, text_array

CAPACITY = 10_000
BUCKETS = 16
"""Pages a ledger is split into: a quiet model then writes the few that changed."""
_HLL_LOG2 = 12
_ROW_BYTES = 420
"""Memory of one count: four numbers in a list, the name, its place in the dictionary."""


class ClientCount(NamedTuple):
    """One client: queries so far (past the capacity: at most `error` too many), first and last event time."""

    client: str
    queries: int
    error: int
    first_seen: float
    last_seen: float


class ClientLedger:
    """Space-Saving over client pseudonyms (Metwally et al. 2005), exact until `capacity` clients have been seen."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self._clients: dict[str, list[float]] = {}
        self._floor = 0.0
        self._sketch: hll_sketch | None = None
        self._dirty: set[int] = set()

    @property
    def exact(self) -> bool:
        """Whether every count is exact."""
        return self._sketch is None

    @property
    def distinct(self) -> int:
        """Number of clients: exact, or the HyperLogLog estimate (about 1.6 % standard error)."""
        return len(self._clients) if self._sketch is None else round(self._sketch.get_estimate())

    def add(self, client: I32, clients: tuple[str, ...], time: F64) -> None:
        """Count one batch: `client` indexes `clients`, -1 where no client is known."""
        known = client >= 0
        if not known.any():
            return
        counts = np.bincount(client[known], minlength=len(clients)).tolist()
        first = np.full(len(clients), np.inf)
        last = np.full(len(clients), -np.inf)
        np.minimum.at(first, client[known], time[known])
        np.maximum.at(last, client[known], time[known])
        held, dirty = self._clients, self._dirty
        for name, count, a, b in zip(clients, counts, first.tolist(), last.tolist(), strict=True):
            if not count:
                continue
            row = held.get(name)
            if row is None:
                row = self._begin(name, a, b)
            row[0] += count
            row[2] = min(row[2], a)
            row[3] = max(row[3], b)
            if len(dirty) < BUCKETS:
                dirty.add(_bucket(name))
        if len(self._clients) > self.capacity:
            self._compact(self.capacity)

    def __len__(self) -> int:
        """Clients held."""
        return len(self._clients)

    @property
    def bytes(self) -> int:
        """What the counts take in memory, about."""
        return len(self._clients) * _ROW_BYTES

    def summarise(self, most: int, kept: Container[str]) -> None:
        """Keep the `most` clients with most queries, and those to be `kept`; the others go into the summary."""
        if most < len(self._clients):
            self._compact(most, kept)

    def counts(self) -> list[ClientCount]:
        """All clients still held, most queries first."""
        rows = [ClientCount(c, int(v[0]), int(v[1]), v[2], v[3]) for c, v in self._clients.items()]
        return sorted(rows, key=lambda r: (-r.queries, r.client))

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        members: dict[int, list[str]] = {bucket: [] for bucket in self._dirty}
        for client in self._clients:
            bucket = _bucket(client)
            if bucket in members:
                members[bucket].append(client)
        pages = {f"bucket{b}": self._page(names) for b, names in members.items()}
        if pages:
            sketch = b"" if self._sketch is None else self._sketch.serialize_compact()
            pages["total"] = {
                "floor": np.array([self._floor]),
                "sketch": np.frombuffer(sketch, np.uint8).copy(),
            }
        self._dirty.clear()
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the pages of an equal ledger."""
        self._clients.clear()
        self._dirty.clear()
        for name, page in pages.items():
            if name == "total":
                self._floor = float(page["floor"][0])
                raw = page["sketch"].tobytes()
                self._sketch = hll_sketch.deserialize(raw) if raw else None
            else:
                rows = page["rows"].tolist()
                self._clients.update(zip(array_text(page["clients"]), rows, strict=True))

    def _begin(self, client: str, first: float, last: float) -> list[float]:
        """The row of a client that is not held; what it has asked already is not known, but no more than the floor."""
        row = self._clients[client] = [self._floor, self._floor, first, last]
        if self._sketch is not None:
            self._sketch.update(client)
        return row

    def _compact(self, most: int, kept: Container[str] = ()) -> None:
        """Drop the clients with the fewest queries; newcomers start at the largest count dropped (an upper bound)."""
        if self._sketch is None:
            self._sketch = hll_sketch(_HLL_LOG2)
            for client in self._clients:
                self._sketch.update(client)
        order = sorted(self._clients, key=lambda c: (self._clients[c][0], c))
        for client in [c for c in order[: len(order) - most] if c not in kept]:
            self._floor = max(self._floor, self._clients.pop(client)[0])
            self._dirty.add(_bucket(client))

    def _page(self, names: list[str]) -> Page:
        rows = np.array([self._clients[n] for n in names], np.float64).reshape(len(names), 4)
        return {"clients": text_array(names), "rows": rows}


def _bucket(client: str) -> int:
    return zlib.crc32(client.encode()) % BUCKETS
