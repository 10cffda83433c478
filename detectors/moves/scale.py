"""The lengths and likelihoods by which a client's moves are judged. All are quantiles or counts of the reference."""

from __future__ import annotations

import numpy as np

from detectors.base import F64, I64, Bool
from detectors.moves.asked import HUGE, Cells
from detectors.reference import Reference
from detectors.views.dependence import Tree
from detectors.views.projection import F32, MAX_ROWS, Projection

DISCRETE = 32
"""Numbers of more distinct values than this are also on the grid between the values of the reference."""
_COARSEST = 9
_SOME = 500
"""Reference rows, about, that queries mapped by their ranks are compared with."""
_LEAST = 1e-3
_CHUNK = 1_024
FINEST = 1e-4
"""Share of their usual range to which numbers count as rounded even where no decimal step is seen."""


class Scale:
    """What is near, what is a small step, and how common each value is, for one model."""

    def __init__(self, reference: Reference, projection: Projection, tree: Tree) -> None:
        rows = reference.rows
        self.cells = Cells(rows)
        self.projection = projection
        self.tree = tree
        take = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).astype(np.int64))
        self.rows = self.cells.of(rows, take)
        """(n, columns) cells of the reference."""
        self.numbers = self.cells.numbers
        self._lengths(projection.rows.astype(np.float64))
        self._values = [np.unique(column, return_counts=True) for column in self.rows.T]
        self.levels: I64 = np.array([len(v) for v, _ in self._values], np.int64)
        """Distinct values of each column of the reference."""
        self._step = [_resolution(self.rows[:, j]) for j in range(self.numbers)]
        self.rounded: I64 = np.flatnonzero(np.array(self._step, np.float64))
        """Numeric columns whose values are multiples of some decimal step."""
        self.unit: F64 = np.array(self._step, np.float64)[self.rounded]
        """That step."""
        self.reach: F64 = _reach(self.rows[:, self.rounded])
        """How far their values lie apart."""
        self.scaled_unit: F64 = np.maximum(np.array(self._step, np.float64) / projection.width, FINEST)
        """That step of each number, in units of its usual range."""
        self._sorted: F32 = np.sort(self.rows[:, : self.numbers], axis=0)
        points = projection.rows.astype(np.float64)
        self._some: F64 = points[:: max(1, len(points) // _SOME)]
        self.grained: I64 = np.flatnonzero(self.levels[: self.numbers] < 0.1 * len(self.rows))
        """Numeric columns with few distinct values."""

    def points(self, cells: F32) -> F64:
        """(n, dimensions) of the view "projection", in float64: multiples of 2^-16, so sums of squares are exact."""
        return self.projection.points_of(self.scaled(cells), self.cells.codes(cells)).astype(np.float64)

    def scaled(self, cells: F32) -> F64:
        """(n, numbers) numbers in units of their usual range."""
        return self.projection.scaled(*self.cells.numeric(cells))

    def frequency(self, cells: F32) -> tuple[F64, Bool]:
        """(n, columns) probability of each value in the reference, and whether it is on the data's own grid."""
        share, grid = np.empty(cells.shape), np.empty(cells.shape, np.bool_)
        for j, (values, count) in enumerate(self._values):
            x = cells[:, j]
            at = np.clip(np.searchsorted(values, x), 0, len(values) - 1)
            hit = values[at] == x
            share[:, j] = np.maximum(np.where(hit, count[at] / len(self.rows), 0.0), 1 / len(values))
            if j < self.numbers and len(values) > DISCRETE:
                hit = hit | (_multiple(x, self._step[j]) & (x >= values[0]) & (x <= values[-1]))
            grid[:, j] = hit
        return share, grid

    def rescaled(self, mixes: F32, some: int = 1) -> tuple[F64, F64]:
        """Of each mix of queries, (mixes, n, columns), the mean of the view "dependence", and of the first `some` that
        of the log distance to the reference, once each number is replaced by the reference's value of the same rank.

        That undoes any increasing change of scale: other units, another calibration of a sensor.
        """
        n, last = mixes.shape[1], len(self._sorted) - 1
        numbers = mixes[:, :, : self.numbers]
        order = np.argsort(numbers, axis=1)
        rising = np.take_along_axis(numbers, order, axis=1)
        place = np.arange(n)[:, None]
        fresh = np.ones(rising.shape, np.bool_)
        fresh[:, 1:] = rising[:, 1:] != rising[:, :-1]
        low = np.maximum.accumulate(np.where(fresh, place, 0), axis=1)
        final = np.ones(rising.shape, np.bool_)
        final[:, :-1] = fresh[:, 1:]
        high = np.minimum.accumulate(np.where(final, place + 1, n)[:, ::-1], axis=1)[:, ::-1]
        rank = np.empty(rising.shape)
        np.put_along_axis(rank, order, (low + high) / (2 * n), axis=1)
        nearest = np.minimum((rank * (last + 1)).astype(np.int64), last)
        mapped = self._sorted[nearest, np.arange(self.numbers)].astype(np.float64).reshape(-1, self.numbers)
        there, codes = np.abs(mapped) < HUGE, self.cells.codes(mixes.reshape(-1, mixes.shape[2]))
        kept = self.tree.of_columns(mapped, there, codes).reshape(len(mixes), n).mean(axis=1)
        first = slice(some * n)
        scaled = self.projection.scaled(mapped[first], there[first])
        points = self.projection.points_of(scaled, codes[first]).astype(np.float64)
        return kept, np.log(self._distance(points) + _LEAST).reshape(-1, n).mean(axis=1)

    def _distance(self, points: F64) -> F64:
        """(n,) distance of each point to the nearest of some rows of the reference."""
        out, norm = np.empty(len(points)), np.einsum("ij,ij->i", self._some, self._some)
        for begin in range(0, len(points), _CHUNK):
            some = points[begin : begin + _CHUNK]
            apart = norm - 2 * some @ self._some.T
            out[begin : begin + _CHUNK] = apart.min(axis=1) + np.einsum("ij,ij->i", some, some)
        distance: F64 = np.sqrt(np.maximum(out, 0.0))
        return distance

    def spread(self, cells: F32) -> F64:
        """(n,) mean distance of each query's numbers from the middle of the reference's ranks, 0 to 0.5."""
        far = np.zeros(len(cells))
        for column in np.abs(self.ranks(cells)).T:
            far += column
        return far / max(self.numbers, 1)

    def ranks(self, cells: F32) -> F64:
        """(n, numbers) place of each number among the reference's: -0.5 below all of them, 0.5 above."""
        out = np.empty((len(cells), self.numbers))
        for j in range(self.numbers):
            low = np.searchsorted(self._sorted[:, j], cells[:, j], side="left")
            high = np.searchsorted(self._sorted[:, j], cells[:, j], side="right")
            out[:, j] = (low + high) / (2 * len(self._sorted)) - 0.5
        return out

    def belonging(self, cells: F32) -> F64:
        """(n, edges) how well each pair of dependent fields belongs together: terms of the view "dependence"."""
        return self.tree.terms(*self.cells.numeric(cells), self.cells.codes(cells))

    def grain(self, mixes: F32) -> F64:
        """(mixes,) of each mix of queries, (mixes, n, columns), the mean share of distinct values in the columns that
        have few of them in the reference."""
        if not len(self.grained):
            return np.zeros(len(mixes))
        rising = np.sort(mixes[:, :, self.grained], axis=1)
        distinct = 1 + (rising[:, 1:] != rising[:, :-1]).sum(axis=1)
        share: F64 = distinct.mean(axis=1) / mixes.shape[1]
        return share

    def _lengths(self, points: F64) -> None:
        norm = np.einsum("ij,ij->i", points, points)
        apart = norm[:, None] - 2 * points @ points.T + norm[None]
        apart[apart < 1e-5] = np.inf
        nearest = np.sqrt(np.maximum(apart.min(axis=1, initial=np.inf), 0.0))
        nearest = nearest[np.isfinite(nearest)]
        mixed = points[np.random.default_rng(1).permutation(len(points))]
        pairs = np.sqrt(((mixed - points) ** 2).sum(axis=1))
        pairs = pairs[pairs > 0]
        self.near = 0.5 * float(np.quantile(nearest, 0.25)) if len(nearest) else 0.0
        """Two queries nearer than this were made from one another."""
        self.spacing = float(np.median(nearest)) if len(nearest) else 0.0
        """Usual distance of neighbours."""
        self.step = float(np.quantile(pairs, 0.01)) if len(pairs) else 0.0
        """A small step."""
        self.radius = float(np.quantile(pairs, 0.05)) if len(pairs) else 0.0
        """How far a path may lead from where it began."""


def _reach(columns: F32) -> F64:
    """(columns,) largest value less the smallest, missing ones left out; 1 where all are one."""
    there = np.where(np.abs(columns) < HUGE, columns.astype(np.float64), np.nan)
    if not len(there):
        return np.ones(columns.shape[1])
    apart = np.fmax.reduce(there, axis=0) - np.fmin.reduce(there, axis=0)
    reach: F64 = np.where(apart > 0, apart, 1.0)
    return reach


def _resolution(column: F32) -> float:
    """The coarsest decimal step of which 95 % of the values are multiples; 0 where there is none."""
    values = column.astype(np.float64)
    for k in range(_COARSEST):
        scaled = values * 10.0**k
        if (np.abs(scaled - np.rint(scaled)) < 1e-3 * max(1.0, np.abs(scaled).max() * 1e-3)).mean() > 0.95:
            return float(10.0**-k)
    return 0.0


def _multiple(values: F32, step: float) -> Bool:
    """Which values are multiples of `step`, as far as float32 can tell; all where there is no step."""
    if step == 0.0:
        return np.ones(len(values), np.bool_)
    ratio = values.astype(np.float64) / step
    told: Bool = np.abs(ratio - np.rint(ratio)) <= np.maximum(1e-2, np.abs(ratio) * 2.0**-22)
    return told
