"""The null of whole histograms: target plus all live traffic so far, forgetting exponentially beyond a memory."""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors.base import F64, Bool, Page
from detectors.drift.cells import Cells
from detectors.drift.target import GAP, Target

_LEAST: Final = 0.5
"""Events that each cell is worth at least: what has not been seen for long is not impossible."""


class CellNull:
    """`k` (cells,) events in each cell among `b` (columns,) numbers."""

    def __init__(self, cells: Cells, target: Target, memory: float) -> None:
        self._cells, self._memory = cells, memory
        rows = cells.rows
        # the reference is worth what its numbers are, as far as live traffic may differ from them
        worth = np.where(rows > 0, 1 / (1 / np.maximum(rows, 1.0) + GAP[target.origin] ** 2), 0.0)
        self._start = np.concatenate([cells.of_reference * worth[cells.column] + _LEAST, worth + _LEAST])
        self._copies = np.stack([self._start, self._start])
        self.k: F64
        self.b: F64
        self.k, self.b = self._parted(self._start)

    @property
    def share(self) -> F64:
        """(cells,) of the numbers."""
        made: F64 = self.k / self.b[self._cells.column]
        return made

    def absorb(self, x: F64, n: F64, learning: Bool) -> None:
        """Take counts `x` (cells,) among `n` (columns,) numbers into the columns that are `learning` (columns,)."""
        self.k += np.where(learning[self._cells.column], x, 0.0)
        self.b += np.where(learning, n, 0.0)

    def forget(self) -> None:
        """What is beyond the memory."""
        keep = np.minimum(self._memory / self.b, 1.0)
        self.k = np.maximum(self.k * keep[self._cells.column], _LEAST)
        self.b = self.b * keep

    def copy(self) -> None:
        """Remember the null as it is, and as it was at the call before."""
        self._copies = np.stack([self._copies[1], np.append(self.k, self.b)])

    def go_back(self, columns: Bool) -> None:
        """Of these `columns` (columns,) to the older copy: before the onset of what has just alarmed."""
        self._set(columns, self._copies[0])

    def begin_anew(self, columns: Bool) -> None:
        """Of these `columns` (columns,) to the reference: their null is of the hour of an alarm, and now is another."""
        self._copies = np.where(np.append(columns[self._cells.column], columns), self._start, self._copies)
        self._set(columns, self._start)

    def page(self) -> Page:
        """All state as arrays."""
        return {"k": self.k.copy(), "b": self.b.copy(), "copies": self._copies.copy()}

    def load(self, page: Page) -> None:
        """Take the arrays of `page`, of the right shapes."""
        self.k, self.b = page["k"].astype(np.float64), page["b"].astype(np.float64)
        self._copies = page["copies"].astype(np.float64)

    def _set(self, columns: Bool, state: F64) -> None:
        k, b = self._parted(state)
        self.k = np.where(columns[self._cells.column], k, self.k)
        self.b = np.where(columns, b, self.b)

    def _parted(self, state: F64) -> tuple[F64, F64]:
        cells = len(self._cells.column)
        return state[:cells].copy(), state[cells:].copy()
