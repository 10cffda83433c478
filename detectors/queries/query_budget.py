"""How many distinct queries a client makes in an hour and in a day, against its peers and against its own past.

Who copies a model with real records is like an honest client in every single query; only how many different ones it
asks tells (Juuti et al. 2019; Kesarwani et al. 2018 count coverage alike). Honest jobs do the same, so this finds a
client worth a look, no attack: an incident of severity info. It closes when the client has kept within its budget for
a day. Exact repeats do not count. A budget is `factor` times what the 99 % quantile of the clients asked at most in
the calibration, or the client itself, and never below a floor; it is no statistical test.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.base import (
    F64,
    I64,
    JOINS,
    Batch,
    ClientEvidence,
    Context,
    Detector,
    Evidence,
    Finding,
    Measure,
    Page,
    StateError,
    SubjectRef,
    Views,
    register,
)
from detectors.queries.calibration import array_names, names_array
from detectors.queries.query_log import Queries

HOUR: Final = 3_600.0
LENGTHS: Final = (HOUR, 86_400.0)
_WORDS: Final = ("distinct queries an hour", "distinct queries a day")
QUIET: Final = 86_400.0
"""Seconds within budget after which an incident closes."""
MOST: Final = 10_000
"""Clients counted at a time; beyond, the half with fewest queries is forgotten."""
_KINDS: Final = ("unusual_client", "adversarial_input", "model_extraction", "membership_inference")
_QUANTILE: Final = 0.99
_SHORTEST: Final = 60.0
_ROW_BYTES: Final = 420
_BUSIEST: Final = 100
"""Clients whose counts are always kept."""
BUCKETS: Final = 16
"""Pages the counts are spread over, so that a quiet model writes the few that changed."""


@dataclass(frozen=True)
class QueryBudgetParams:
    """When a client asks for more than its share."""

    factor: float = 4.0
    # A client may ask this many times what its busiest peers asked, or itself, in the calibration.
    hour: int = 200
    # Distinct queries an hour that are within everybody's budget.
    day: int = 1_000
    # Distinct queries a day that are within everybody's budget.


@register
class QueryBudget(Detector):
    """Counts the distinct queries of every client by the hour and by the day, and tells who is beyond its budget."""

    name = "query_budget"
    kind = "unusual_client"
    scope = "client"
    inputs = frozenset({"features", "reference", "client"})
    state_version = 1
    views = ("queries",)
    Params = QueryBudgetParams

    def __init__(self, context: Context, params: QueryBudgetParams) -> None:
        super().__init__(context, params)
        self._begin()

    def _begin(self) -> None:
        self._first = self._clock = np.nan
        self._window = [-1, -1]
        self._counts: dict[str, list[float]] = {}
        """Of each client: distinct queries in the hour and in the day, and when the first of either came."""
        self._stale: set[int] = set()
        """Buckets that changed."""
        self._most: dict[str, list[float]] = {}
        """While it calibrates: what each client asked at most in a window of either length."""
        self._usual: F64 | None = None
        """(2,) what the busiest peers ask at most; None while it calibrates."""
        self._own: dict[str, list[float]] = {}
        """The same of clients that ask more than that."""
        self._over: dict[str, float] = {}
        """Clients that an incident is open about, and when they were last beyond their budget."""
        self._changed = False

    def update(self, batch: Batch, views: Views) -> Iterator[Evidence | ClientEvidence | Finding]:
        """Count the distinct queries of the batch."""
        queries: Queries = views.get("queries")
        learnt = queries.distinct if queries.trusted is None else queries.distinct & (queries.trusted | ~queries.honest)
        rows = np.flatnonzero(learnt)
        honest = queries.honest[rows]
        yield from self._take(batch, rows[honest])
        if self._usual is None and not queries.honest.all():
            self._close()
        yield from self._take(batch, rows[~honest])

    def advance(self, watermark: float) -> Iterator[Evidence | ClientEvidence | Finding]:
        """Let go who has kept within its budget for a day."""
        for client in [c for c, last in self._over.items() if watermark - last > QUIET]:
            last = self._over.pop(client)
            self._changed = True
            yield Finding(
                detector=self.name, kind=self.kind, account="attack", severity="info", time=watermark, row=-1,
                position=0, subjects=(), onset=last, measures=(), cause=budget_cause(client), action="recover",
            )  # fmt: skip

    def _take(self, batch: Batch, rows: I64) -> Iterator[Finding]:
        if not len(rows):
            return
        self._changed = True
        window = np.floor(self._clocked(batch.time[rows])[:, None] / np.array(LENGTHS)).astype(np.int64)
        for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(window, axis=0).any(axis=1)) + 1):
            for k in range(len(LENGTHS)):
                self._roll(k, int(window[part[0], k]))
            yield from self._count(batch, rows[part])

    def _clocked(self, times: F64) -> F64:
        """Event time as it goes on: never back, and an hour a query at most, so that one wrong time does no harm."""
        now = float(times[0]) if np.isnan(self._clock) else self._clock
        out: F64 = np.maximum.accumulate(np.maximum(times, now))
        if out[-1] > now + HOUR:
            for i, time in enumerate(times.tolist()):
                now = max(now, min(time, now + HOUR))
                out[i] = now
        self._first = float(out[0]) if np.isnan(self._first) else self._first
        self._clock = float(out[-1])
        return out

    def _roll(self, k: int, window: int) -> None:
        if window == self._window[k]:
            return
        if self._usual is None:
            self._note(k, 1.0)
        self._window[k] = window
        for held in self._counts.values():
            held[k] = 0.0
        self._counts = {client: held for client, held in self._counts.items() if held[0] or held[1]}
        self._stale.update(range(BUCKETS))

    def _note(self, k: int, scale: float) -> None:
        """The windows of the calibration tell what clients ask at most."""
        for client, held in self._counts.items():
            most = self._most.get(client)
            if most is None:
                if len(self._most) >= MOST:
                    continue
                most = self._most[client] = [0.0, 0.0]
            most[k] = max(most[k], held[k] * scale)

    def _close(self) -> None:
        """The calibration is over. Of a length that it does not fill, its counts are taken at their pace."""
        span = max(self._clock - self._first, _SHORTEST) if not np.isnan(self._clock) else _SHORTEST
        for k, length in enumerate(LENGTHS):
            self._note(k, max(1.0, length / span))
        most = np.array(list(self._most.values())).reshape(-1, 2)
        zero = np.zeros(2)
        self._usual = np.quantile(most, _QUANTILE, axis=0, method="higher") if len(most) else zero
        self._own = {c: m for c, m in self._most.items() if (np.array(m) > self._usual).any()}
        self._most = {}
        self._changed = True

    def _count(self, batch: Batch, rows: I64) -> Iterator[Finding]:
        """Count queries of one hour and one day."""
        codes, first, number = np.unique(batch.client[rows], return_index=True, return_counts=True)
        weighed = (number * batch.one_in).tolist()
        counts, stale, least = self._counts, self._stale, (self.params.hour, self.params.day)
        for code, time, n in zip(codes.tolist(), batch.time[rows[first]].tolist(), weighed, strict=True):
            client = batch.clients[code]
            held = counts.get(client)
            if held is None:
                held = counts[client] = [0.0] * 4
            if len(stale) < BUCKETS:
                stale.add(_bucket(client))
            for k, floor in enumerate(least):
                before = held[k]
                if not before:
                    held[2 + k] = time
                held[k] = before + n * batch.one_in
                if held[k] > floor and self._usual is not None:
                    yield from self._judge(batch, rows[batch.client[rows] == code], client, k, int(before))
        if len(counts) > MOST:
            self._forget(len(counts) // 2)

    def _judge(self, batch: Batch, rows: I64, client: str, k: int, before: int) -> Iterator[Finding]:
        """A client's queries at `rows`, after `before` earlier ones, against its budget."""
        budget = self._budget(client, k)
        if before + len(rows) * batch.one_in <= budget:
            return
        self._over_budget(client, float(batch.time[rows[-1]]), begins=before <= budget)
        if before <= budget:
            row = int(rows[(budget - before) // batch.one_in])
            yield self._finding(batch, row, client, k, self._counts[client][2 + k])

    def _forget(self, n: int) -> None:
        """The clients with fewest queries."""
        order = sorted(self._counts, key=lambda c: (self._counts[c][1], c))
        self._counts = {client: self._counts[client] for client in order[n:]}
        self._changed = True
        self._stale.update(range(BUCKETS))

    def _over_budget(self, client: str, last: float, begins: bool) -> None:
        if begins or client in self._over:
            self._over[client] = max(last, self._over.get(client, last))

    def _budget(self, client: str, k: int) -> int:
        least = (self.params.hour, self.params.day)[k]
        return int(max(least, self.params.factor * self._usual_of(client, k)))

    def _usual_of(self, client: str, k: int) -> float:
        assert self._usual is not None
        own = self._own.get(client)
        return float(self._usual[k]) if own is None else max(float(self._usual[k]), own[k])

    def _finding(self, batch: Batch, row: int, client: str, k: int, first: float) -> Finding:
        now, n = float(batch.time[row]), self._budget(client, k) + 1
        usual = float(round(self._usual_of(client, k)))
        measure = Measure(
            self.name, f"client {client}", float(n), usual, _WORDS[k], n, min(first, now), now, statistic="volume"
        )
        version = int(batch.version[row])
        return Finding(
            detector=self.name,
            kind=self.kind,
            account="attack",
            severity="info",
            time=now,
            row=row,
            position=batch.start + row,
            subjects=(SubjectRef("client", client),),
            onset=min(first, now),
            measures=(measure,),
            cause=budget_cause(client),
            model_version=batch.versions[version] if version >= 0 else None,
            # What is known of the client already is told in one incident.
            detail={JOINS: "\n".join(f"client:{client}:{kind}" for kind in _KINDS)},
        )

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        if not self._changed:
            return {}
        self._changed = False
        told = [self._window, self._own, self._over]
        pages: dict[str, Page] = {
            "all": {
                "told": np.frombuffer(json.dumps(told).encode(), np.uint8).copy(),
                "clock": np.array([self._first, self._clock]),
                "usual": np.zeros(0) if self._usual is None else self._usual.copy(),
                "names": names_array(list(self._most)),
                "most": np.array(list(self._most.values())).reshape(-1, 2),
            }
        }
        names: dict[int, list[str]] = {bucket: [] for bucket in self._stale}
        for client in self._counts:
            if (bucket := _bucket(client)) in names:
                names[bucket].append(client)
        for bucket, clients in names.items():
            rows = np.array([self._counts[c] for c in clients]).reshape(-1, 4)
            pages[f"counts{bucket}"] = {
                "names": names_array(clients), "n": rows[:, :2].astype(np.int32), "first": rows[:, 2:].copy()
            }  # fmt: skip
        self._stale = set()
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the state of an equal detector."""
        page = pages.get("all")
        if page is None or page["clock"].shape != (2,) or page["usual"].shape not in ((0,), (2,)):
            raise StateError("the page with the query budgets of clients is missing or has another shape")
        counts: dict[str, list[float]] = {}
        for name, part in pages.items():
            if name.startswith("counts"):
                rows = np.concatenate([part["n"].astype(np.float64), part["first"]], axis=1)
                counts |= zip(array_names(part["names"]), rows.tolist(), strict=True)
        told = json.loads(page["told"].astype(np.uint8).tobytes())
        self._begin()
        self._counts = counts
        self._window, self._own, self._over = told
        self._most = dict(zip(array_names(page["names"]), page["most"].tolist(), strict=True))
        self._first, self._clock = page["clock"].tolist()
        self._usual = page["usual"].astype(np.float64) if len(page["usual"]) else None

    @property
    def bytes(self) -> int:
        """What the counts take in memory, about."""
        return (len(self._counts) + len(self._most)) * _ROW_BYTES

    def shrink(self, excess: int) -> None:
        """Forget the counts of the clients with fewest queries, but for the busiest."""
        n = min(-(-excess // _ROW_BYTES), len(self._counts) - _BUSIEST)
        if n > 0:
            self._forget(n)


def _bucket(client: str) -> int:
    return zlib.crc32(client.encode()) % BUCKETS


def budget_cause(client: str) -> str:
    """The cause under which an incident is held open about a client beyond its budget."""
    return f"client:{client}:query_budget"
