"""Joined labels cut into blocks of 25 of one model version, each label a loss in [0, 1].

A class is right (0) or wrong (1). A number's loss is its distance from the label over the distance that 19 in 20 of
the first 200 labelled predictions keep within, and 1 beyond it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.base import F64, I64, LabelBatch, Page
from detectors.performance.versions import SLOTS
from detectors.performance.wagers import BLOCK

FIRST: Final = 200
_KEPT: Final = 0.95
_MAX_ERROR: Final = 1e12


@dataclass(frozen=True, slots=True)
class LossBlock:
    """A full block of the version in `slot`: its losses (25,), the row of its last label, times of first and last."""

    row: int
    slot: int
    losses: F64
    opened: float
    closed: float


class LossBlocks:
    """The open block of each slot, and the distance that counts as a loss of 1 (`limit`, NaN while it is learnt)."""

    def __init__(self) -> None:
        self.limit = math.nan
        self._first: list[float] = []
        self._losses: F64 = np.zeros((SLOTS, BLOCK))
        self._begun: F64 = np.zeros((SLOTS, 2))
        """Labels in the open block, time of its first."""

    def losses(self, batch: LabelBatch, rows: I64) -> F64:
        """The loss of each of these rows, NaN while the limit is being learnt."""
        distance = np.minimum(np.nan_to_num(batch.error[rows], nan=0.0, posinf=_MAX_ERROR), _MAX_ERROR)
        if not batch.numeric:
            return distance
        learning = 0
        if math.isnan(self.limit):
            learning = min(FIRST - len(self._first), len(distance))
            self._first += distance[:learning].tolist()
            if len(self._first) == FIRST:
                self.limit = float(np.quantile(np.array(self._first), _KEPT))
                self._first = []
        loss = np.full(len(distance), np.nan)
        late = distance[learning:]
        loss[learning:] = np.minimum(late / self.limit, 1.0) if self.limit > 0 else (late > 0).astype(np.float64)
        return loss

    def cut(self, time: F64, rows: I64, slots: I64, loss: F64) -> list[LossBlock]:
        """The blocks that these rows complete, in the order of their last rows."""
        blocks = []
        for slot in np.unique(slots).tolist():
            begun = self._begun[slot]
            for i in np.flatnonzero((slots == slot) & ~np.isnan(loss)).tolist():
                if begun[0] == 0:
                    begun[1] = time[rows[i]]
                self._losses[slot, int(begun[0])] = loss[i]
                begun[0] += 1
                if begun[0] == BLOCK:
                    closed = float(time[rows[i]])
                    blocks.append(LossBlock(int(rows[i]), slot, self._losses[slot].copy(), float(begun[1]), closed))
                    begun[0] = 0
        return sorted(blocks, key=lambda b: b.row)

    def forget(self, slot: int) -> None:
        """The slot goes to another version."""
        self._begun[slot] = 0.0

    def page(self) -> Page:
        """All state as arrays."""
        filled = np.arange(BLOCK) < self._begun[:, :1]
        return {
            "open_losses": np.where(filled, self._losses, 0.0),
            "open_begun": self._begun.copy(),
            "limit": np.array([self.limit]),
            "first": np.array(self._first, np.float64),
        }

    def load(self, page: Page) -> None:
        """Take the arrays of `page`, of the right shapes."""
        self._losses, self._begun = page["open_losses"].astype(np.float64), page["open_begun"].astype(np.float64)
        self.limit, self._first = float(page["limit"][0]), page["first"].tolist()
