"""The null of the change family: target plus all live traffic so far, forgetting exponentially beyond a memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from detectors.base import F64, I64, Bool, Page
from detectors.drift.scores import BLOCK, FAMILIES
from detectors.drift.target import Target

MAX_LATE_BLOCKS = 20
"""Counts are absorbed this late: a rate of 1 % doubles in its own memory before 300 events have shown 6 %."""
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

    def mean_and_spread(self) -> tuple[F64, F64]:
        """Mean and standard deviation of one score (G,)."""
        mean = self.s1 / self.m
        return mean, np.sqrt(np.maximum(self.s2 / self.m - mean * mean, MIN_VARIANCE))

    def absorb(self, blocks: int, sums: F64, squares: F64, counts: F64, learning: Bool) -> None:
        """Take the totals of `blocks` blocks into the streams that are `learning` (G + P,); counts wait their turn."""
        g = len(self.m)
        if learning.all():
            self._take_sums(blocks * BLOCK, sums, squares)
        else:
            own = learning[:g]
            self._take_sums(blocks * BLOCK * own, np.where(own, sums, 0.0), np.where(own, squares, 0.0))
        self._late.append((blocks, counts))
        while self._late and self._waiting() > min(MAX_LATE_BLOCKS, float(self.b.min(initial=np.inf)) / BLOCK / 8):
            waited, late = self._late.pop(0)
            self.k += late if learning.all() else np.where(learning[g:], late, 0.0)
            self.b += waited * BLOCK * learning[g:]
        self._forget()

    def drop_waiting(self) -> None:
        """Counts that wait are not absorbed: they led to an alarm."""
        self._late.clear()

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
        waiting = np.array([n for n, _ in self._late], np.int64)
        late = np.array([c for _, c in self._late], np.float64).reshape(len(self._late), len(self.k))
        return {**self.snapshot(), "waiting": waiting, "late": late}

    def load(self, page: Page) -> None:
        """Take the arrays of `page`, of the right shapes."""
        for name in FIELDS:
            getattr(self, name)[:] = page[name]
        self._late = [(int(n), c.astype(np.float64)) for n, c in zip(page["waiting"], page["late"], strict=True)]

    def _waiting(self) -> int:
        return sum(n for n, _ in self._late)

    def _take_sums(self, events: int | I64, sums: F64, squares: F64) -> None:
        self.m += events
        self.s1 += sums
        self.s2 += squares

    def _forget(self) -> None:
        self._of_sums *= np.minimum(self.memory / self.m, 1)
        self._of_counts *= np.minimum(self._count_memory / self.b, 1)
