"""What a model was asked lately: tells repeats from new queries, and how near a query is to an earlier one.

Exact repeats are taken out before any similarity logic: retries, batches, load tests and popular inputs are what
makes published similarity detectors alarm on everyone. The ring holds the queries of all clients, so that an attacker
who spreads over accounts does not escape it (Chen 2020; Li et al., Blacklight, 2022).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from detectors.base import (
    F64,
    I64,
    Batch,
    Bool,
    ClientEvidence,
    Context,
    Detector,
    Evidence,
    Finding,
    Page,
    StateError,
    Views,
    register,
)
from detectors.queries.calibration import array_names, names_array
from detectors.views.projection import F32
from detectors.views.query_hash import U64

RING: Final = 4_096
"""Distinct queries, at most, that near duplicates are sought among."""
SMALLEST_RING: Final = 256
SEEN: Final = 8_192
"""Distinct queries whose exact repeats are known."""
_RING_PAGE, _SEEN_PAGE = 64, 512
_ROUNDING: Final = 1e-3
"""Squared distances below this share of the largest squared norm are at the mercy of rounding in float32."""
_CHUNK: Final = 256
"""Rows compared with the ring at a time: the products stay in the cache."""
_GONE: Final[F32] = np.where(np.tri(_CHUNK, k=-1) > 0, -np.inf, 0).astype(np.float32)
"""(row, column) -inf where the column comes before the row, 0 elsewhere."""
_EARLIER: Final[F64] = np.where(np.tri(_CHUNK, k=-1) > 0, 0.0, -np.inf)
"""The opposite."""


@dataclass(frozen=True, slots=True)
class Queries:
    """What the log knows of the events of a batch, all (n,).

    `distinct`: by a known client, and no exact repeat; `honest`: falls into the stretch that is declared honest, or
    taken as such; `nearest`: distance to the nearest earlier other query of the ring, inf where there is none, where
    the event is not distinct, or while the ring still grows; `other`: that query was another client's. `settled`, in
    the batch where the honest stretch ends: client and distance of its queries, as if the ring had had its final size.
    """

    distinct: Bool
    honest: Bool
    nearest: F64
    other: Bool
    settled: tuple[tuple[str, ...], F64] | None = None


@dataclass(frozen=True)
class QueryLogParams:
    """How much traffic is taken as honest where none is declared."""

    calibration_queries: int = 2_000
    # Distinct queries at the start that are taken as honest use where no `calibration:` is declared.
    calibration_events: int = 20_000
    # Events of any kind after which the calibration ends even with fewer distinct queries.


@register
class QueryLog(Detector):
    """Remembers the last distinct queries of a model. Raises nothing itself: the tests of the queries build on it."""

    name = "query_log"
    kind = "unusual_client"
    raises = ()
    scope = "model"
    inputs = frozenset({"features", "reference", "client"})
    state_version = 1
    views = ("projection", "query_hash")
    gives = ("queries",)
    Params = QueryLogParams

    def __init__(self, context: Context, params: QueryLogParams) -> None:
        super().__init__(context, params)
        self._ring = _Ring()
        self._seen = _Seen()
        self._begin = np.nan
        self._events = self._distinct = 0
        self._honest = True

    def update(self, batch: Batch, views: Views) -> Iterator[Evidence | ClientEvidence | Finding]:
        """Look every query up, then take it in. Yields nothing."""
        n = len(batch)
        nearest, other, distinct = np.full(n, np.inf), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        settled = None
        rows = np.flatnonzero(batch.client >= 0)
        if len(rows):
            hashes: U64 = views.get("query_hash")
            distinct[rows[self._seen.take(hashes[rows])]] = True
        was_honest = self._honest
        honest = self._prefix(batch, distinct)
        if len(rows):
            points: F32 = views.get("projection")
            early, late = np.flatnonzero(distinct & honest), np.flatnonzero(distinct & ~honest)
            self._ring.learn(points[early], [batch.clients[c] for c in batch.client[early].tolist()])
            if was_honest and not self._honest:
                settled = self._ring.settle()
            nearest[late], other[late] = self._ring.take(points[late], _owners(batch, late))
        elif was_honest and not self._honest:
            settled = self._ring.settle()
        views.put("queries", Queries(distinct, honest, nearest, other, settled))
        return iter(())

    @property
    def bytes(self) -> int:
        """What the queries held take in memory, about."""
        return self._ring.bytes + 2 * 8 * SEEN

    @property
    def calibrating(self) -> bool:
        """Whether traffic is still taken as honest."""
        return self._honest

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        count = np.array([self._events, self._distinct, self._honest], np.int64)
        pages: dict[str, Page] = {**self._ring.dirty(), **self._seen.dirty()}
        if pages or self._events:
            pages["counts"] = {"counts": count, "begin": np.array([self._begin])}
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the state of an equal log."""
        ring, seen = _Ring(), _Seen()
        ring.restore(pages)
        seen.restore(pages)
        if "counts" not in pages or pages["counts"]["counts"].shape != (3,):
            raise StateError("the page with the counts of the query log is missing or has another shape")
        self._ring, self._seen = ring, seen
        self._events, self._distinct, honest = pages["counts"]["counts"].tolist()
        self._honest = bool(honest)
        self._begin = float(pages["counts"]["begin"][0])

    def _prefix(self, batch: Batch, distinct: Bool) -> Bool:
        """Which rows are taken as honest: those up to the event that ends the calibration."""
        n = len(batch)
        if n and np.isnan(self._begin):
            self._begin = float(batch.time[0])
        if self._honest and n:
            if self.context.calibration is not None:
                over = batch.time >= self._begin + self.context.calibration
            else:
                queries = self._distinct + np.cumsum(distinct) - distinct
                events = self._events + np.arange(n)
                over = (queries >= self.params.calibration_queries) | (events >= self.params.calibration_events)
            self._honest = not over.any()
            end = n if self._honest else int(np.argmax(over))
        else:
            end = 0
        self._events += n
        self._distinct += int(distinct.sum())
        return np.arange(n) < end


class _Ring:
    """The last distinct queries as points, with the hash of the client that sent each.

    How near the nearest of many queries is depends on how many there are. So the ring takes everything while it
    learns, then settles to half of that: the second half of the honest queries is looked up among as many before it
    as any later query will be.
    """

    def __init__(self) -> None:
        self.size = 0
        """Queries held once settled; 0 while it learns."""
        self._points: F32 = np.zeros((0, 0), np.float32)
        """(capacity, dimensions + 1): the last column is the squared norm."""
        self._owner: I64 = np.zeros(0, np.int64)
        self._names: list[str] = []
        """Clients of the points while it learns."""
        self._taken = 0
        """Queries taken in so far; the next goes to row `taken % capacity`."""
        self._dirty: set[int] = set()

    @property
    def bytes(self) -> int:
        return self._points.nbytes + self._owner.nbytes + 80 * len(self._names)

    def learn(self, points: F32, clients: Sequence[str]) -> None:
        """Take in honest queries; of more than two rings the oldest go."""
        if not len(points):
            return
        if not len(self._points):
            self._allocate(2 * RING, points.shape[1])
            self._names = [""] * (2 * RING)
        for begin in range(0, len(points), _CHUNK):
            at = self._keep(points[begin : begin + _CHUNK], np.zeros(len(points[begin : begin + _CHUNK]), np.int64))
            for row, name in zip(at.tolist(), clients[begin : begin + _CHUNK], strict=True):
                self._names[row] = name

    def settle(self) -> tuple[tuple[str, ...], F64]:
        """Take the final size. Clients and distances of the honest queries that have as many before them."""
        held = min(self._taken, 2 * RING)
        order = np.arange(self._taken - held, self._taken) % max(len(self._points), 1)
        points = self._points[order, :-1] if held else np.zeros((0, 0), np.float32)
        names = [self._names[i] for i in order.tolist()]
        pages = -(-min(self._taken, 2 * RING) // _RING_PAGE)
        self.size = int(np.clip(held // 2, SMALLEST_RING, RING))
        self._points, self._names, self._taken = np.zeros((0, 0), np.float32), [], 0
        owners = np.array([hash_name(name) for name in names], np.int64)
        first = min(held, self.size)
        distance = np.zeros(0)
        if held:
            self._allocate(self.size, points.shape[1])
            self._keep(points[:first], owners[:first])
            distance, _ = self.take(points[first:], owners[first:])
        self._dirty = set(range(max(pages, -(-self.size // _RING_PAGE))))
        return tuple(names[first:]), distance

    def take(self, points: F32, owner: I64) -> tuple[F64, Bool]:
        """Distance of each point to the nearest earlier one, and whether that is another client's; then keep them."""
        n = len(points)
        distance, other = np.full(n, np.inf), np.zeros(n, np.bool_)
        if n and not len(self._points):
            self._allocate(self.size, points.shape[1])
        for begin in range(0, n, _CHUNK):
            chunk = slice(begin, min(begin + _CHUNK, n))
            self._look_up(points[chunk], owner[chunk], distance[chunk], other[chunk])
            self._keep(points[chunk], owner[chunk])
        return distance, other

    def dirty(self) -> dict[str, Page]:
        pages = {f"ring{k}": self._page(k) for k in sorted(self._dirty)}
        if pages:
            pages["ring"] = {"taken": np.array([self._taken, self.size, len(self._points)], np.int64)}
        self._dirty.clear()
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        if "ring" not in pages:
            return
        if pages["ring"]["taken"].shape != (3,):
            raise StateError("the page with the place in the query ring has another shape")
        self._taken, self.size, capacity = pages["ring"]["taken"].tolist()
        learns = not self.size
        self._names = [""] * capacity if learns else []
        for k in range(-(-min(self._taken, capacity) // _RING_PAGE)):
            page = pages[f"ring{k}"]
            rows = slice(k * _RING_PAGE, min((k + 1) * _RING_PAGE, capacity))
            points, owner = page["points"], page["owner"]
            if points.ndim != 2 or len(points) != rows.stop - rows.start or owner.shape != (len(points),):
                raise StateError(f"a page of the query ring has shape {points.shape}")
            if not len(self._points):
                self._allocate(capacity, points.shape[1] - 1)
            self._points[rows], self._owner[rows] = points, owner
            if learns:
                self._names[rows] = array_names(page["clients"])

    def _allocate(self, capacity: int, dimensions: int) -> None:
        self._points = np.zeros((capacity, dimensions + 1), np.float32)
        self._owner = np.zeros(capacity, np.int64)

    def _look_up(self, points: F32, owner: I64, distance: F64, other: Bool) -> None:
        """Against the ring, and against the earlier ones of this chunk."""
        held, size = min(self._taken, len(self._points)), len(self._points)
        rows = np.arange(len(points))
        # 2 x·y − |y|² is largest for the nearest y; as one product, with the norms as a further column.
        probe = np.concatenate([2 * points, np.full((len(points), 1), -1, np.float32)], axis=1)
        if held:
            closeness = probe @ self._points[:held].T
            if self._taken + len(points) - 1 > size:
                # Row `first` of the chunk drives out the first query of the ring that goes, the next row the next.
                first = max(0, size - self._taken)
                begin, count = (self._taken + first) % size, len(points) - 1 - first
                for gone in (slice(0, min(count, size - begin)), slice(min(count, size - begin), count)):
                    at = slice((begin + gone.start) % size, (begin + gone.start) % size + gone.stop - gone.start)
                    closeness[first:, at] += _GONE[: len(points) - first, gone]
            best = np.argmax(closeness, axis=1)
            distance[:] = _distance(points, self._points[best, :-1])
            close = np.flatnonzero(distance**2 < _ROUNDING * float(self._points[:held, -1].max()))
            if len(close):
                # Points are multiples of 2^-16, so that this product in float64 is exact.
                exact = probe[close].astype(np.float64) @ _with_norm64(self._points[:held, :-1]).T
                exact[np.isneginf(closeness[close])] = -np.inf
                best[close] = np.argmax(exact, axis=1)
                distance[close] = _distance(points[close], self._points[best[close], :-1])
            other[:] = self._owner[best] != owner
        if len(points) > 1:
            within = probe.astype(np.float64) @ _with_norm64(points).T
            within += _EARLIER[: len(points), : len(points)]
            near = np.argmax(within, axis=1)
            own = np.where(rows > 0, _distance(points, points[near]), np.inf)
            closer = own < distance
            distance[closer] = own[closer]
            other[closer] = (owner[near] != owner)[closer]

    def _keep(self, points: F32, owner: I64) -> I64:
        """The rows they went to."""
        at: I64 = (self._taken + np.arange(len(points))) % len(self._points)
        self._points[at], self._owner[at] = _with_norm(points), owner
        self._taken += len(points)
        self._dirty.update((at // _RING_PAGE).tolist())
        return at

    def _page(self, k: int) -> Page:
        """A page; of rows that are no more, an empty one."""
        at = slice(k * _RING_PAGE, (k + 1) * _RING_PAGE)
        page: Page = {"points": self._points[at].copy(), "owner": self._owner[at].copy()}
        if self._names:
            page["clients"] = names_array(self._names[at])
        return page


class _Seen:
    """Hashes of the last distinct queries."""

    def __init__(self) -> None:
        self._hashes: U64 = np.zeros(SEEN, np.uint64)
        self._taken = 0
        self._sorted: U64 = np.zeros(0, np.uint64)
        self._dirty: set[int] = set()

    def take(self, hashes: U64) -> I64:
        """Indices (ascending) of those not seen before, which are remembered."""
        if not len(hashes):
            return np.zeros(0, np.int64)
        _, first = np.unique(hashes, return_index=True)
        first.sort()
        candidates = hashes[first]
        if len(self._sorted):
            at = np.minimum(np.searchsorted(self._sorted, candidates), len(self._sorted) - 1)
            first = first[self._sorted[at] != candidates]
        fresh = hashes[first]
        if len(fresh):
            at = (self._taken + np.arange(len(fresh))) % SEEN
            self._hashes[at] = fresh
            self._taken += len(fresh)
            self._dirty.update((at // _SEEN_PAGE).tolist())
            self._sorted = np.sort(self._hashes[: min(self._taken, SEEN)])
        return first.astype(np.int64)

    def dirty(self) -> dict[str, Page]:
        pages = {
            f"seen{k}": {"hashes": self._hashes[k * _SEEN_PAGE : (k + 1) * _SEEN_PAGE].copy()}
            for k in sorted(self._dirty)
        }
        if pages:
            pages["seen"] = {"taken": np.array([self._taken], np.int64)}
        self._dirty.clear()
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        if "seen" not in pages:
            return
        self._taken = int(pages["seen"]["taken"][0])
        for k in range(SEEN // _SEEN_PAGE):
            page = pages.get(f"seen{k}")
            if page is None:
                continue
            if page["hashes"].shape != (_SEEN_PAGE,):
                raise StateError(f"a page of seen queries has shape {page['hashes'].shape}")
            self._hashes[k * _SEEN_PAGE : (k + 1) * _SEEN_PAGE] = page["hashes"].astype(np.uint64)
        self._sorted = np.sort(self._hashes[: min(self._taken, SEEN)])


def _owners(batch: Batch, rows: I64) -> I64:
    """A stable number for the client of each row: the log keeps no names."""
    names = np.array([hash_name(name) for name in batch.clients], np.int64)
    owners: I64 = names[batch.client[rows]]
    return owners


@lru_cache(16_384)
def hash_name(name: str) -> int:
    """A 63-bit number of a name, the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()) >> 1


def _with_norm(points: F32) -> F32:
    norm = np.einsum("ij,ij->i", points, points)[:, None]
    joined: F32 = np.concatenate([points, norm], axis=1)
    return joined


def _with_norm64(points: F32) -> F64:
    wide = points.astype(np.float64)
    joined: F64 = np.concatenate([wide, np.einsum("ij,ij->i", wide, wide)[:, None]], axis=1)
    return joined


def _distance(a: F32, b: F32) -> F64:
    """Exact where the product above is rounded: nearest queries may be very near."""
    gap = a.astype(np.float64) - b
    distance: F64 = np.sqrt(np.einsum("ij,ij->i", gap, gap))
    return distance
