"""Threads: what a client made from one another counts as one.

Frames of a camera, variations of a record, a form filled in field by field: many queries, one origin, and so one piece
of evidence. A thread weighs as the mean of the e-values of its members, which is an e-value under any dependence
between them; between threads evidence multiplies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from detectors.base import F64, Page, StateError
from detectors.moves.relations import Query
from detectors.moves.window import MASK_LLR, MASK_OFF_GRID, Link
from detectors.views.projection import F32

OPEN: Final = 24
"""Threads that can still grow; older ones are folded into one sum."""
KEPT: Final = 0.5
"""Share of cells that an explainer keeps of the record it explains."""
STAR_SIZE: Final = 8
STAR_SHARE: Final = 0.6
_ROWS_SOUGHT: Final = 8
"""Youngest threads that a query may be a variation of."""
_ROW_FROM: Final = 4
"""Members of a thread from which on it has a row that others may be variations of."""
_COUNTS = ("id", "n", "mask", "edit", "walk")


@dataclass(slots=True)
class Thread:
    """One origin: `row` is the majority of its members, cell by cell (Boyer & Moore 1981), `votes` their lead."""

    id: int
    row: F32
    votes: F64
    anchor: F64
    total: F64
    """Sum of the e-values of its members, one for each test."""
    n: int = 0
    mask: int = 0
    edit: int = 0
    walk: int = 0
    """Edits of the query just before."""
    step: F64 = field(init=False)
    """What it weighs: log of the mean e-value of its members."""

    def __post_init__(self) -> None:
        self.weigh()

    def weigh(self) -> None:
        """Bring `step` up to date."""
        self.step = np.log(self.total / self.n) if self.n else np.zeros(len(self.total))

    @property
    def star(self) -> bool:
        """Variations of one record: they say nothing about a client's mix of queries."""
        return self.n >= STAR_SIZE and self.mask >= STAR_SHARE * (self.n - 1)

    def take(self, q: Query, link: Link, edited: bool, e: F64, walked: bool = False) -> None:
        """One more member."""
        self.walk += walked
        self.n += 1
        self.mask += link == "mask"
        self.edit += edited
        self.total = self.total + e
        self.weigh()
        self.votes = self.votes + np.where(self.row == q.cells, 1.0, -1.0)
        lost = self.votes < 0
        if lost.any():
            self.row = np.where(lost, q.cells, self.row)
            self.votes = np.where(lost, 1.0, self.votes)


@dataclass(slots=True)
class Threads:
    """The open threads of one client, oldest first, and what older ones came to."""

    tests: int
    open: list[Thread] = field(default_factory=list)
    folded: F64 = field(init=False)
    begun: F64 = field(init=False)
    """(tests,) the thread at which each of these sums has begun."""
    made: int = 0

    def __post_init__(self) -> None:
        self.folded = np.zeros(self.tests)
        self.begun = np.zeros(self.tests)

    def get(self, id: int) -> Thread | None:
        """The open thread of this number."""
        return next((t for t in reversed(self.open) if t.id == id), None)

    def begin(self, q: Query) -> Thread:
        """A new thread; of more than 24 the oldest is folded."""
        votes = np.zeros(len(q.cells))
        thread = Thread(self.made, q.cells.copy(), votes, q.point.copy(), np.zeros(self.tests))
        self.made += 1
        self.open.append(thread)
        if len(self.open) > OPEN:
            old = self.open.pop(0)
            if not old.star and old.n:
                self.begun = np.where(self.folded > 0, self.begun, old.id)
                self.folded = np.maximum(0.0, self.folded + old.step)
        return thread

    def varied(self, q: Query) -> Thread | None:
        """The young thread whose row the query is the likeliest masked copy of."""
        if q.off_grid > MASK_OFF_GRID or len(q.cells) <= 4:
            return None
        sought = [t for t in self.open[-_ROWS_SOUGHT:] if t.n >= _ROW_FROM]
        if not sought:
            return None
        gain = copy_gain(q.share)
        same = np.array([t.row for t in sought]) == q.cells
        likely = np.where(same, gain, math.log(1 - KEPT)).sum(axis=1)
        best = int(np.argmax(likely))
        return sought[best] if likely[best] > MASK_LLR else None

    def on_path(self, q: Query, previous: int, reach: float) -> Thread | None:
        """The thread of the previous query, when this one is within `reach` of its beginning."""
        thread = self.get(previous)
        if thread is None:
            return None
        gap = q.point - thread.anchor
        return thread if math.sqrt(float(np.einsum("i,i->", gap, gap))) < reach else None

    def merge(self, ids: Sequence[int]) -> int | None:
        """Put the threads among these that are small, or variations already, into the oldest of them."""
        join = [t for t in self.open if t.id in ids and (t.n <= STAR_SIZE or t.mask >= 0.5 * t.n)]
        if not join:
            return None
        keep = join[0]
        for other in join[1:]:
            self.open.remove(other)
            keep.n += other.n
            keep.mask += other.mask + 1
            keep.edit += other.edit
            keep.walk += other.walk
            keep.total = keep.total + other.total
        keep.weigh()
        return keep.id

    def evidence(self) -> F64:
        """(tests,) CUSUM over the threads in order of their first queries, floored at 0."""
        steps = np.array([t.step for t in self.open if not t.star])
        if not len(steps):
            return self.folded
        after = np.cumsum(steps[::-1], axis=0)
        value: F64 = np.maximum(np.maximum(after.max(axis=0), after[-1] + self.folded), 0.0)
        return value

    def bearing(self, test: int) -> int:
        """How many of the latest threads the sum of this test has been above 0 for."""
        held = [t for t in reversed(self.open) if not t.star]
        after = np.cumsum([t.step[test] for t in held]) if held else np.full(1, -np.inf)
        k = int(np.argmax(after))
        if not held or (self.folded[test] > 0 and after[-1] + self.folded[test] > after[k]):
            return self.made - int(self.begun[test])
        return self.made - held[k].id

    def page(self) -> Page:
        """Everything, as arrays."""
        counts = [[getattr(t, c) for c in _COUNTS] for t in self.open]
        d = len(self.open[0].row) if self.open else 0
        m = len(self.open[0].anchor) if self.open else 0
        return {
            "thread_counts": np.array(counts, np.int64).reshape(len(self.open), len(_COUNTS)),
            "thread_rows": np.array([t.row for t in self.open], np.float32).reshape(-1, d),
            "thread_votes": np.array([t.votes for t in self.open], np.int32).reshape(-1, d),
            "thread_anchors": np.array([t.anchor for t in self.open], np.float32).reshape(-1, m),
            "thread_totals": np.array([t.total for t in self.open], np.float64).reshape(-1, self.tests),
            "thread_folded": np.stack([self.folded, self.begun]),
            "thread_made": np.array([self.made], np.int64),
        }

    def restore(self, page: Page) -> None:
        """Take what `page` gave. StateError when it is of other tests."""
        totals, counts = page["thread_totals"], page["thread_counts"]
        if totals.shape != (len(counts), self.tests) or page["thread_folded"].shape != (2, self.tests):
            raise StateError(f"stored threads have sums of shape {totals.shape}, not of {self.tests} tests")
        self.folded, self.begun = page["thread_folded"].astype(np.float64)
        self.made = int(page["thread_made"][0])
        self.open = [
            Thread(
                int(count[0]), page["thread_rows"][i].astype(np.float32), page["thread_votes"][i].astype(np.float64),
                page["thread_anchors"][i].astype(np.float64), totals[i].astype(np.float64),
                int(count[1]), int(count[2]), int(count[3]),
                int(count[4]),
            )
            for i, count in enumerate(counts)
        ]  # fmt: skip


def copy_gain(share: F64) -> F64:
    """Log likelihood ratio of each cell that agrees: kept of a row, rather than drawn from the reference."""
    gain: F64 = np.log((KEPT + (1 - KEPT) * share) / share)
    return gain
