"""The last groups of whole histograms: to learn them late, to find an onset, and to tell what moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from detectors.base import F64, I64, Page
from detectors.drift.cells import Cells

_KEPT: Final = 24
"""Groups."""
_PAGES: Final = 3
"""Stored apart, so that a quiet model writes only what changed."""
_ROWS: Final = _KEPT // _PAGES


class CellPast:
    """A ring by group number; `next` is the number of the next group."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self.next = 0
        self._counts = np.zeros((_KEPT, cells.fine), np.uint8)
        self._times: F64 = np.zeros((_KEPT, 2))
        self._changed: set[int] = set()

    @property
    def oldest(self) -> int:
        """The oldest group that is kept."""
        return max(self.next - _KEPT, 0)

    def add(self, counts: F64, opened: F64, closed: F64) -> None:
        """Keep groups with counts (groups, fine), first and last times (groups,)."""
        at = np.arange(self.next, self.next + len(counts)) % _KEPT
        self._counts[at], self._times[at, 0], self._times[at, 1] = counts, opened, closed
        self._changed.update((at // _ROWS).tolist())
        self.next += len(counts)

    def fine(self, first: int, end: int | None = None) -> F64:
        """(groups, fine) counts of groups `first` to `end` (exclusive), those that are kept."""
        groups = np.arange(max(first, self.oldest), self.next if end is None else end)
        return self._counts[groups % _KEPT].astype(np.float64)

    def summed(self, first: int, end: int | None = None) -> tuple[F64, F64]:
        """Counts (cells,) and numbers (columns,) of these groups together."""
        total: F64 = self.fine(first, end).sum(axis=0)
        return self._cells.joined(total), self._cells.numbers(total)

    def histogram(self, column: int, bins: int, first: int) -> F64:
        """(bins,) counts of a column since `first`; bins that hold no numbers are not counted."""
        own = self._cells.column[: self._cells.fine] == column
        made = np.zeros(bins)
        made[: int(own.sum())] = self.fine(first)[:, own].sum(axis=0)
        return made

    def times(self, group: int) -> tuple[float, float]:
        """Event times of first and last event."""
        opened, closed = self._times[group % _KEPT].tolist()
        return opened, closed

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        pages = {f"past{i}": self._page(i) for i in sorted(self._changed)}
        self._changed.clear()
        return pages

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array of a page."""
        return {name: array.shape for name, array in self._page(0).items()}

    def load(self, pages: Mapping[str, Page], next_group: I64) -> None:
        """Take pages that `dirty` gave, of the right shapes."""
        self.next = int(next_group)
        for i in range(_PAGES):
            page = pages.get(f"past{i}")
            if page is not None:
                rows = slice(i * _ROWS, (i + 1) * _ROWS)
                self._counts[rows], self._times[rows] = page["counts"], page["times"]
        self._changed.clear()

    def _page(self, number: int) -> Page:
        rows = slice(number * _ROWS, (number + 1) * _ROWS)
        return {"counts": self._counts[rows].copy(), "times": self._times[rows].copy()}
