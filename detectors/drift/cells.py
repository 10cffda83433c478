"""The cells of numeric columns: their bins one by one, and joined to eighths, with the bets that are placed on them.

A bet on a cell multiplies by ρ for each event in it; counts are judged by the predictive law of a Poisson rate that was
seen in `b` events before, and its logarithm is divided by the design effect, as those on rare values are (bets.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detectors.base import F64, I64, Bool
from detectors.numeric import normal_scores
from detectors.views.bins import I16, NumericColumn

GROUP = 100
"""Events that are judged at once."""
FINE = np.array([2.0, 4.0])
"""ρ of the bets on single bins: a value that a pipeline fills in, a gap that closes."""
COARSE = np.array([0.6, 1.4, 2.0])
"""ρ of the bets on eighths: two humps where there was one."""
EIGHTHS = 8
BANDS = 4
"""From the middle of a column's values outward: outer cells move with every shift, and vary more than inner ones."""
KINDS = 2 * BANDS
"""Of cells: single bins of each band, then eighths."""
_LEAST_SCORE = 0.5
_MIN_ROOM = 0.02
_MAX_LOG_E = 30.0
_LEAK = 0.92
"""Of the capital, per group: a rare bin has E > 1 while nothing falls into it, a frequent one while little does."""


class Cells:
    """Cells of `columns`: every bin that holds numbers, then the eighths. `column` (cells,) is the column of each,
    `fine` the number of single bins, `on` (cells,) the cells that are bet on."""

    def __init__(self, columns: Sequence[NumericColumn], share: Sequence[F64], rows: int) -> None:
        """`share` (bins,) of each column in the reference of `rows` rows."""
        sizes = [len(c.edges) + 1 for c in columns]
        self.columns = len(columns)
        self.shares = share
        self.rows: F64 = np.array([float(s[:n].sum()) for s, n in zip(share, sizes, strict=True)]) * rows
        """(columns,) numbers in the reference."""
        self._width = max(c.bins for c in columns)
        self.fine = sum(sizes)
        self._first: I64 = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        bins = np.concatenate([np.arange(n) for n in sizes])
        of_fine = np.repeat(np.arange(len(sizes)), sizes)
        self._place: I64 = of_fine * self._width + bins
        shares = [s[:n] / max(float(s[:n].sum()), 1e-12) for s, n in zip(share, sizes, strict=True)]
        scores = np.concatenate([normal_scores(s, rows) for s in shares])
        starts = [f + _eighths(s) for f, s in zip(self._first.tolist(), shares, strict=True)]
        self._starts: I64 = np.concatenate(starts).astype(np.int64)
        of_coarse = np.repeat(np.arange(len(sizes)), [len(s) for s in starts])
        self.column: I64 = np.concatenate([of_fine, of_coarse])
        """(cells,)"""
        self.first_bin: I64 = np.concatenate([bins, bins[self._starts]])
        self.last_bin: I64 = np.concatenate([bins, bins[self._ends()]])
        """(cells,) the bins that each consists of."""
        self.of_reference: F64 = self.joined(np.concatenate(shares))
        """(cells,) shares of the numbers."""
        self.slope: F64 = np.maximum(np.abs(np.append(scores, scores[self._starts])), _LEAST_SCORE)
        """(cells,) by which a shift of all values changes the logarithm of a share, about."""
        rank = np.concatenate([np.cumsum(x) - x / 2 for x in shares])
        outward = np.abs(2 * np.append(rank, (rank[self._starts] + rank[self._ends()]) / 2) - 1)
        band = np.minimum((outward * BANDS).astype(np.int64), BANDS - 1)
        of_coarse_cells = np.arange(len(self.column)) >= self.fine
        self._kind_of: I64 = (band + BANDS * of_coarse_cells) * self.columns + self.column
        inner = (bins > 0) & (bins < np.array(sizes)[of_fine] - 1)
        several = np.bincount(of_coarse, minlength=len(sizes)) > 2
        self.on: Bool = np.concatenate([inner & (np.array(sizes)[of_fine] > 3), several[of_coarse]])

    def _ends(self) -> I64:
        """The last single bin of each eighth."""
        ends: I64 = np.append(self._starts[1:], self.fine) - 1
        return ends

    def joined(self, fine: F64) -> F64:
        """(..., cells) from what the single bins (..., fine) hold."""
        if not self.fine:
            return fine
        return np.concatenate([fine, np.add.reduceat(fine, self._starts, axis=-1)], axis=-1)

    def counts(self, bins: I16) -> F64:
        """(groups, fine) events of whole groups `bins` (groups * 100, columns) in each bin that holds numbers."""
        groups = len(bins) // GROUP
        key = bins.astype(np.int64)
        key += np.arange(self.columns) * self._width
        key += (np.arange(len(bins)) // GROUP * (self.columns * self._width))[:, None]
        table = np.bincount(key.ravel(), minlength=groups * self.columns * self._width)
        counted: F64 = table.reshape(groups, self.columns * self._width)[:, self._place].astype(np.float64)
        return counted

    def numbers(self, fine: F64) -> F64:
        """(..., columns) events that hold a number."""
        counted: F64 = np.add.reduceat(fine, self._first, axis=-1)
        return counted

    def by_kind(self, cells: F64) -> F64:
        """(KINDS, columns) sums over the `cells` (cells,) of each kind that are bet on."""
        own = np.where(self.on, cells, 0.0)
        made = np.asarray(np.bincount(self._kind_of, own, KINDS * self.columns), np.float64)
        return made.reshape(KINDS, self.columns)

    def of_kind(self, kinds: F64) -> F64:
        """(cells,) the number that `kinds` (KINDS, columns) has for each."""
        made: F64 = kinds.ravel()[self._kind_of]
        return made


def _eighths(share: F64) -> I64:
    """The first bins of about eight joined cells of equal share."""
    middle = np.cumsum(share) - share / 2
    return np.unique(np.minimum(middle * EIGHTHS, EIGHTHS - 1).astype(np.int64), return_index=True)[1]


class CellOdds(NamedTuple):
    """A null and its noise compiled for judging, (bets,) each: for every event in the cell, and for every number."""

    slope: F64
    base: F64


class CellBets:
    """Bets on the cells that are `on`: half of each column's weight on single bins, half on eighths."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        at = np.flatnonzero(cells.on)
        fine, coarse = at[at < cells.fine], at[at >= cells.fine]
        self.cell: I64 = np.concatenate([np.repeat(fine, len(FINE)), np.repeat(coarse, len(COARSE))])
        """(bets,)"""
        self.factor: F64 = np.concatenate([np.tile(FINE, len(fine)), np.tile(COARSE, len(coarse))])
        self._log: F64 = np.log(self.factor)
        self.stream: I64 = cells.column[self.cell]
        half = (self.cell >= cells.fine).astype(np.int64)
        own = np.bincount(2 * self.stream + half, minlength=2 * cells.columns)
        halves = (own.reshape(-1, 2) > 0).sum(axis=1)
        weight = 1 / own[2 * self.stream + half] / halves[self.stream]
        self.weight: F64 = weight / max(float(weight.sum()), 1e-12)
        self.leak: F64 = np.full(len(weight), _LEAK)

    def odds(self, k: F64, b: F64, v: F64, tilt: F64) -> CellOdds:
        """Compile a null for judging: `k` (cells,) were seen among `b` (columns,) numbers before; `v` and `tilt`
        (cells,) are design effect and allowed season."""
        cell = self.cell
        noise, rate = v[cell], np.where(self.factor > 1, tilt[cell], 1 / tilt[cell])
        room = 1 - GROUP * (self.factor - 1) * rate * noise / b[self.stream]
        base = k[cell] / noise**2 * np.log(np.maximum(room, _MIN_ROOM))
        slope = self._log / noise
        # where the null is too small for a factor there is no bet: E = 1
        off = room <= _MIN_ROOM
        base[off] = slope[off] = 0.0
        return CellOdds(slope, base / GROUP)

    def log_e(self, odds: CellOdds, x: F64, n: F64) -> F64:
        """(groups, bets) of groups with counts `x` (groups, cells) among `n` (groups, columns) numbers. A group with
        fewer numbers pays in proportion: by the concavity of the logarithm that is no less than it costs."""
        log: F64 = x.take(self.cell, axis=1)
        log *= odds.slope
        log += n.take(self.stream, axis=1) * odds.base
        np.minimum(log, _MAX_LOG_E, out=log)
        return log
