"""The last 52 blocks of a model in groups of four: residuals, counts and raw sums of each block, null of each group.

Needed to find an onset, to go back to the null before it, and to tell an incident in the fields' own units. Stored by
group, so that a quiet model writes only the groups that changed, and nulls in four bytes a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import F64, I64, Page
from detectors.drift.bets import KEPT_Z, MAX_Z
from detectors.drift.blocks import Blocks
from detectors.drift.null import FIELDS, MIN_VARIANCE, Null
from detectors.drift.scores import BLOCK, INDICATORS
from detectors.drift.target import F32, Target
from detectors.numeric import as_counts

GROUP = 4
"""Blocks that share one null."""
GROUPS = 14
"""An onset lies at most 43 blocks back, and the null is wanted from two blocks before it."""
_CAPACITY = GROUP * GROUPS
_BLOCK_FIELDS = ("residual", "share", "raw_n", "raw_sum", "raw_square", "times", "bins")


class History:
    """A ring by block number. `first` is the oldest block whose residual still counts for onset and noise."""

    def __init__(self, target: Target) -> None:
        streams, numeric = len(target.scores), len(target.limit)
        self.first = 0
        indicators = [i for i, s in enumerate(target.scores) if s.family in INDICATORS]
        self._shares = np.array(indicators, np.int64)
        self._share_of = {i: n for n, i in enumerate(indicators)}
        self._sums = target.sums
        self._blocks: dict[str, npt.NDArray[Any]] = {
            "residual": np.zeros((_CAPACITY, streams), np.float32),
            "share": np.zeros((_CAPACITY, len(indicators)), np.uint8),
            "raw_n": np.zeros((_CAPACITY, numeric), np.uint8),
            "raw_sum": np.zeros((_CAPACITY, numeric)),
            "raw_square": np.zeros((_CAPACITY, numeric)),
            "times": np.zeros((_CAPACITY, 2)),
            "bins": np.zeros((_CAPACITY, BLOCK, target.columns), np.uint8),
        }
        widths = {"m": target.sums, "s1": target.sums, "s2": target.sums, "k": target.counts, "b": target.counts}
        self._nulls = {name: np.zeros((GROUPS, width), np.float32) for name, width in widths.items()}
        self._start = np.full(GROUPS, -1, np.int64)
        self._changed: set[int] = set()

    def open_group(self, block: int, null: Null) -> None:
        """Keep the null that the group beginning with `block` is judged by."""
        slot = block // GROUP % GROUPS
        for name, kept in self._nulls.items():
            kept[slot] = getattr(null, name)
        self._start[slot] = block
        self._changed.add(slot)

    def add(self, block: int, blocks: Blocks, residual: F32) -> None:
        """Keep `blocks`, the first of which has number `block`, with their residuals (blocks, streams)."""
        if len(blocks) > _CAPACITY:
            over = len(blocks) - _CAPACITY
            block, blocks, residual = block + over, blocks.part(over, len(blocks)), residual[over:]
        at = np.arange(block, block + len(blocks)) % _CAPACITY
        rows = self._blocks
        rows["residual"][at] = np.clip(residual, -KEPT_Z, KEPT_Z)
        rows["share"][at] = as_counts(np.hstack([blocks.sums, blocks.counts])[:, self._shares])
        rows["raw_n"][at], rows["raw_sum"][at], rows["raw_square"][at] = blocks.raw_n, blocks.raw_sum, blocks.raw_square
        rows["bins"][at] = blocks.bins
        rows["times"][at, 0], rows["times"][at, 1] = blocks.opened, blocks.closed
        self._changed.update((at // GROUP).tolist())

    def residuals(self, first: int, end: int) -> F64:
        """(blocks, streams) of these blocks, clipped as bets are."""
        return clipped(self._blocks["residual"][np.arange(first, end) % _CAPACITY])

    def path(self, stream: int, first: int, end: int) -> F64:
        """Residuals of one stream from `first` to `end` (exclusive), oldest first, clipped as bets are."""
        at = np.arange(first, end) % _CAPACITY
        return clipped(self._blocks["residual"][at, stream])

    def count(self, stream: int, first: int, end: int) -> int:
        """Events in blocks `first` to `end` (exclusive) that an indicator stream counted."""
        at = np.arange(first, end) % _CAPACITY
        return int(self._blocks["share"][at, self._share_of[stream]].sum())

    def raw(self, column: int, first: int, end: int) -> tuple[int, float, float]:
        """Valid cells, sum of deviations and sum of their squares of a numeric column in these blocks."""
        at = np.arange(first, end) % _CAPACITY
        rows = self._blocks
        return (
            int(rows["raw_n"][at, column].sum()),
            float(rows["raw_sum"][at, column].sum()),
            float(rows["raw_square"][at, column].sum()),
        )

    def histogram(self, column: int, bins: int, first: int, end: int) -> I64:
        """(bins,) events of these blocks in each bin of a column."""
        at = np.arange(first, end) % _CAPACITY
        return np.bincount(self._blocks["bins"][at, :, column].ravel(), minlength=bins).astype(np.int64)

    def cells(self, column: int, first: int, end: int) -> I64:
        """(events,) bins of a column in these blocks, in their order."""
        at = np.arange(first, end) % _CAPACITY
        return self._blocks["bins"][at, :, column].ravel().astype(np.int64)

    def mean(self, stream: int, first: int, end: int) -> float:
        """Mean score of a G stream over these blocks, from their residuals and nulls."""
        blocks = np.arange(first, end)
        group = blocks // GROUP % GROUPS
        m, s1, s2 = (self._nulls[name][group, stream].astype(np.float64) for name in ("m", "s1", "s2"))
        spread = np.sqrt(np.maximum(s2 / m - (s1 / m) ** 2, MIN_VARIANCE))
        residual = self._blocks["residual"][blocks % _CAPACITY, stream]
        return float(np.mean(s1 / m + residual * spread * np.sqrt(1 / BLOCK + 1 / m)))

    def times(self, block: int) -> tuple[float, float]:
        """Event times of first and last event of a block."""
        opened, closed = self._blocks["times"][block % _CAPACITY].tolist()
        return opened, closed

    def oldest(self, end: int) -> int:
        """The oldest block still kept when `end` is the next to come."""
        return max(0, (end + GROUP - 1) // GROUP * GROUP - _CAPACITY)

    def null_before(self, block: int) -> dict[str, F64]:
        """The null of the last group that began at or before `block`, else of the oldest kept."""
        kept = np.flatnonzero(self._start >= 0)
        early = kept[self._start[kept] <= block]
        slot = int(early[np.argmax(self._start[early])] if len(early) else kept[np.argmin(self._start[kept])])
        return {name: nulls[slot].astype(np.float64) for name, nulls in self._nulls.items()}

    def dirty(self) -> dict[str, Page]:
        """Pages of the groups changed since the last call."""
        pages = {f"group{slot}": self._page(slot) for slot in sorted(self._changed)}
        self._changed.clear()
        return pages

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array of a group's page."""
        return {name: array.shape for name, array in self._page(0).items()}

    def load(self, pages: Mapping[str, Page]) -> None:
        """Take pages that `dirty` gave, of the right shapes."""
        self._start[:] = -1
        for slot in range(GROUPS):
            page = pages.get(f"group{slot}")
            if page is None:
                continue
            rows = slice(slot * GROUP, (slot + 1) * GROUP)
            for name in _BLOCK_FIELDS:
                self._blocks[name][rows] = page[name]
            for name in FIELDS:
                self._nulls[name][slot] = page[name]
            self._start[slot] = page["start"][0]
        self._changed.clear()

    def _page(self, slot: int) -> Page:
        rows = slice(slot * GROUP, (slot + 1) * GROUP)
        page: Page = {name: self._blocks[name][rows].copy() for name in _BLOCK_FIELDS}
        page.update({name: nulls[slot].copy() for name, nulls in self._nulls.items()})
        page["start"] = self._start[slot : slot + 1].copy()
        return page


def clipped(residuals: F32) -> F64:
    """As bets are."""
    kept: F64 = residuals.astype(np.float64)
    np.maximum(kept, -MAX_Z, out=kept)
    return np.minimum(kept, MAX_Z, out=kept)
