"""Variations of a record that was never asked itself: an explainer sends masked copies of a hidden row."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from detectors.base import F64, I64, Page
from detectors.moves.threads import KEPT, STAR_SIZE
from detectors.views.projection import F32

RECENT: Final = 24
_SURE: Final = math.log(20)
_DOUBT: Final = -1.0
_LEAST: Final = 3
"""Queries that must share a value before it can be the hidden row's."""


class Recent:
    """The last queries that may be variations of a hidden row: cells, how common each value is, thread."""

    def __init__(self, columns: int) -> None:
        self._cells: F32 = np.zeros((0, columns), np.float32)
        self._share: F64 = np.zeros((0, columns))
        self._thread: I64 = np.zeros(0, np.int64)

    def take(self, cells: F32, share: F64, thread: int) -> None:
        """Hold one more; of more than 24 the oldest goes."""
        keep = slice(max(0, len(self._cells) - RECENT + 1), None)
        self._cells = np.concatenate([self._cells[keep], cells[None]])
        self._share = np.concatenate([self._share[keep], share[None]])
        self._thread = np.append(self._thread[keep], thread)

    def rename(self, old: frozenset[int], new: int) -> None:
        """Queries of the threads `old` are of `new` from now on."""
        self._thread[np.isin(self._thread, list(old))] = new

    def due(self, asked: int) -> bool:
        """Whether to look for a hidden row after `asked` queries: not at every one, it is dear."""
        n = len(self._cells)
        return n >= STAR_SIZE and n % 2 == 0 and (n < RECENT or asked % 4 == 0)

    def star(self) -> frozenset[int]:
        """Threads of the queries that look copied from one hidden row; empty when there are fewer than 8."""
        gain = self._gain()
        n = len(gain)
        sure = gain > _SURE
        if sure.sum() >= max(STAR_SIZE, n / 2):
            # An established row: the odds now speak for membership too.
            sure = gain > _DOUBT
        return frozenset(self._thread[sure].tolist()) if sure.sum() >= STAR_SIZE else frozenset()

    def _gain(self) -> F64:
        """(n,) how likely each query is a copy, by the value of each column that speaks most for one, if any does."""
        n = len(self._cells)
        same = self._cells[:, None, :] == self._cells[None, :, :]
        count = same.sum(axis=1)
        kept = np.log((KEPT + (1 - KEPT) * self._share) / self._share)
        weight = np.where(count >= _LEAST, count * kept + (n - count) * math.log(1 - KEPT), -np.inf)
        best = np.argmax(weight, axis=0)
        columns = np.arange(weight.shape[1])
        # Pays for having chosen the value after the fact.
        columns = columns[weight[best, columns] > math.log(n)]
        best = best[columns]
        told = np.where(same[best, :, columns], kept[best, columns][:, None], math.log(1 - KEPT))
        gain: F64 = told.sum(axis=0)
        return gain

    def page(self) -> Page:
        """Everything, as arrays."""
        return {"recent_cells": self._cells.copy(), "recent_thread": self._thread.copy()}

    def restore(self, page: Page, share: F64) -> None:
        """Take what `page` gave; `share` is how common its cells are."""
        self._cells, self._share = page["recent_cells"].astype(np.float32), share
        self._thread = page["recent_thread"].astype(np.int64)
