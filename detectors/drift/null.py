"""The null of the change family: target plus all live traffic so far, forgetting exponentially beyond a memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from detectors.base import F64, Bool, Page
from detectors.drift.scores import BLOCK, FAMILIES
from detectors.drift.target import Target

MAX_LATE_BLOCKS = 20
"""Counts are absorbed this late: a rate of 1 % doubles in its own memory before 300 events have shown 6 %."""
LATE_SUMS = 1 / 16
"""Sums wait for so many blocks of those that the null holds. A mean that forgets errs less than its memory says; what
that leaves pays for the lag (docs/statistics.md)."""
MIN_VARIANCE = 1e-4
_FAULTS = ("new", "missing", "type")
_FAULT_MEMORY = 4.0
"""Faults are rarer than seasons: their memory is longer by this factor."""
FIELDS = ("m", "s1", "s2", "k", "b")


def memory_of(events_per_day: float) -> float:
    """Events the null remembers, W: long enough for power, short enough to follow a daily season."""
    return float(np.clip(4_000 * np.sqrt(events_per_day / 1e5), 1_000, 8_000))


class Null:
    """Of sums: `m` events with score sums `s1` and square sums `s2` (G,). Of counts: `k` in `b` events (P,)."""

    def __init__(self, target: Target, memory: float) -> None:
        rows = target.effective
        self.memory = memory
        self._of_sums = np.stack([np.full(target.sums, rows), rows * target.mean, rows * target.second])
        self._of_counts = np.stack([target.count * (rows / target.rows), np.full(target.counts, rows)])
        self.m: F64
        self.s1: F64
        self.s2: F64
        self.k: F64
        self.b: F64
        self.m, self.s1, self.s2 = self._of_sums
        self.k, self.b = self._of_counts
        fault = np.isin(target.family[target.sums :], [FAMILIES.index(f) for f in _FAULTS])
        self._count_memory = np.where(fault, _FAULT_MEMORY * memory, memory)
        self._late: list[tuple[int, F64]] = []
        self._late_sums: list[tuple[int, F64]] = []
        """Blocks that wait, with their counts (P,), or their sums and squares (2, G)."""

    def mean_and_spread(self) -> tuple[F64, F64]:
        """Mean and standard deviation of one score (G,)."""
        mean = self.s1 / self.m
        return mean, np.sqrt(np.maximum(self.s2 / self.m - mean * mean, MIN_VARIANCE))

    def absorb(self, blocks: int, sums: F64, squares: F64, counts: F64, learning: Bool) -> None:
        """Take the totals of `blocks` blocks into the streams that are `learning` (G + P,); all wait their turn."""
        g, all_learn = len(self.m), bool(learning.all())
        self._late_sums.append((blocks, np.stack([sums, squares])))
        for waited, late in _due(self._late_sums, float(self.m.min() if g else 0.0) / BLOCK * LATE_SUMS):
            self.m += waited * BLOCK * learning[:g]
            self._of_sums[1:] += late if all_learn else np.where(learning[:g], late, 0.0)
        self._late.append((blocks, counts))
        most = min(MAX_LATE_BLOCKS, float(self.b.min(initial=np.inf)) / BLOCK / 8)
        for waited, late in _due(self._late, most):
            self.k += late if all_learn else np.where(learning[g:], late, 0.0)
            self.b += waited * BLOCK * learning[g:]
        self._forget()

    def drop_waiting(self) -> None:
        """What waits is not absorbed: it led to an alarm."""
        self._late.clear()
        self._late_sums.clear()

    def snapshot(self) -> dict[str, F64]:
        """A copy of all sums and counts, by the names in FIELDS."""
        return {name: getattr(self, name).copy() for name in FIELDS}

    def go_back(self, snapshot: Mapping[str, F64], streams: Bool) -> None:
        """Take these `streams` (G + P,) from an earlier snapshot."""
        g = len(self.m)
        for name in FIELDS:
            mine = streams[:g] if name in ("m", "s1", "s2") else streams[g:]
            now: F64 = getattr(self, name)
            now[mine] = snapshot[name][mine]

    def page(self) -> Page:
        """All state as arrays."""
        return {
            **self.snapshot(),
            "waiting": np.array([n for n, _ in self._late], np.int64),
            "late": np.array([c for _, c in self._late], np.float64).reshape(len(self._late), len(self.k)),
            "waiting_sums": np.array([n for n, _ in self._late_sums], np.int64),
            "late_sums": np.array([s for _, s in self._late_sums], np.float64).reshape(
                len(self._late_sums), 2, len(self.m)
            ),
        }

    def load(self, page: Page) -> None:
        """Take the arrays of `page`, of the right shapes."""
        for name in FIELDS:
            getattr(self, name)[:] = page[name]
        self._late = [(int(n), c.astype(np.float64)) for n, c in zip(page["waiting"], page["late"], strict=True)]
        late = zip(page["waiting_sums"], page["late_sums"], strict=True)
        self._late_sums = [(int(n), s.astype(np.float64)) for n, s in late]

    def _forget(self) -> None:
        self._of_sums *= np.minimum(self.memory / self.m, 1)
        self._of_counts *= np.minimum(self._count_memory / self.b, 1)


def _due(waiting: list[tuple[int, F64]], most: float) -> Iterator[tuple[int, F64]]:
    """Take the oldest out while more than `most` blocks wait."""
    total = sum(n for n, _ in waiting)
    while total > most:
        total -= waiting[0][0]
        yield waiting.pop(0)
