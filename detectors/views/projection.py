"""View "projection": every event as a point of at most 32 coordinates, in which distances are like those of the data.

Numbers are scaled by the reference's 1-99 % range, categories are one-hot / √2, so that two values of one field are
1 apart whatever the field. Wider inputs are projected at random (Johnson & Lindenstrauss 1984), which keeps distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.base import F64, I64, Batch, Context, Views, view
from detectors.numeric import valid
from detectors.reference import Reference

F32 = npt.NDArray[np.float32]
DIMENSIONS = 32
MAX_ROWS = 2_000
"""Reference rows that queries are compared with."""
_GRID = 2.0**-16
_LARGEST = 1e300
"""Of the numbers that ranges are taken of: differences of larger ones overflow."""
_REACH = 3.0
"""Scaled numbers are cut off this far outside the range: an absurd value is far, and not beyond all comparison."""


@dataclass(frozen=True, slots=True)
class _Table:
    """Coordinates of each code of one categorical column; unseen values and missing ones have rows of their own."""

    known: int
    coordinates: F64


class Projection:
    """How the events of a model become points, learnt from its reference. `rows` are the reference's own points."""

    def __init__(self, reference: Reference) -> None:
        rows = reference.rows
        ok = valid(rows.numeric.values, rows.numeric.status)
        self._low, self._width, self._median = _ranges(rows.numeric.values, ok)
        sizes = [known + 2 for known in rows.category.known]
        numbers = len(rows.numeric.names)
        basis = _basis(numbers + sum(sizes))
        self._numeric: F64 | None = None if len(basis) <= DIMENSIONS else basis[:numbers]
        """None where nothing is projected: numbers are the first coordinates."""
        at = np.cumsum([numbers, *sizes])
        self._tables = tuple(
            _Table(size - 2, basis[a : a + size] / np.sqrt(2)) for a, size in zip(at.tolist(), sizes, strict=False)
        )
        self._names = rows.numeric.names, rows.category.names
        self._numbers = numbers
        self._centre: F64 = np.zeros(basis.shape[1])
        take = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).astype(np.int64))
        self.taken = take
        """Rows of the reference that `rows` are the points of."""
        points = self.points(rows)
        self._centre = _on_grid(points.mean(axis=0, dtype=np.float64))
        self.rows: F32 = (points[take] - self._centre).astype(np.float32)

    @property
    def dimensions(self) -> int:
        """Coordinates of a point."""
        return len(self._centre)

    @property
    def width(self) -> F64:
        """(numbers,) usual range of each number: what `scaled` divides by."""
        return self._width

    def points(self, batch: Batch) -> F32:
        """(n, dimensions) float32, multiples of 2^-16: equal for any cut of the events.

        ValueError when the batch has other columns than the reference.
        """
        if (batch.numeric.names, batch.category.names) != self._names:
            raise ValueError("the batch has other columns than the reference")
        scaled = self.scaled(batch.numeric.values, valid(batch.numeric.values, batch.numeric.status))
        return self.points_of(scaled, batch.category.codes)

    def scaled(self, values: F64, ok: npt.NDArray[np.bool_]) -> F64:
        """(n, numbers) numbers in units of their usual range; the median where a cell is not `ok`."""
        with np.errstate(over="ignore"):  # what overflows is beyond the reach
            scaled: F64 = np.clip((np.where(ok, values, self._median) - self._low) / self._width, -_REACH, 1 + _REACH)
        return scaled

    def points_of(self, scaled: F64, codes: npt.NDArray[np.int32]) -> F32:
        """As `points`, of numbers that are scaled and category codes (n, categories)."""
        if self._numeric is None:
            points = np.zeros((len(scaled), self.dimensions))
            points[:, : self._numbers] = scaled
        else:
            points = scaled @ self._numeric
        for j, table in enumerate(self._tables):
            points += table.coordinates[_codes(codes[:, j], table.known)]
        return _on_grid(points - self._centre).astype(np.float32)


@view("projection")
def _projection(views: Views) -> F32:
    return projection_of(views).points(views.batch)


def projection_of(views: Views) -> Projection:
    """The compiled projection of the model, made once."""
    return projection_for(views.context)


def projection_for(context: Context) -> Projection:
    """As `projection_of`, where there is no batch yet."""
    cache = context.cache
    if "projection" not in cache:
        cache["projection"] = Projection(context.reference)
    made: Projection = cache["projection"]
    return made


def _codes(column: npt.NDArray[np.int32], known: int) -> I64:
    """Rows of the table: known values, then unseen ones, then missing ones."""
    codes = column.astype(np.int64)
    rows: I64 = np.where(codes < 0, known + 1, np.minimum(codes, known))
    return rows


def _ranges(values: F64, ok: npt.NDArray[np.bool_]) -> tuple[F64, F64, F64]:
    """Low end, width and median of each column; a column of one value has width 1."""
    low, width, median = (np.zeros(values.shape[1]) for _ in range(3))
    for j in range(values.shape[1]):
        column = np.clip(values[ok[:, j], j], -_LARGEST, _LARGEST)
        if not len(column):
            width[j] = 1.0
            continue
        a, median[j], b = np.quantile(column, [0.01, 0.5, 0.99])
        low[j] = a
        width[j] = b - a if b > a else (float(np.ptp(column)) or 1.0)
    return low, width, median


def _on_grid(values: F64) -> F64:
    """Rounded to what float32 holds exactly: the product behind them may differ in the last bits from cut to cut."""
    grid: F64 = np.rint(values / _GRID) * _GRID
    return grid


def _basis(width: int) -> F64:
    """(width, dimensions): the identity where that is narrow enough, else random directions, always the same."""
    if width <= DIMENSIONS:
        return np.eye(width)
    directions: F64 = np.random.default_rng(20_260).normal(size=(width, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    return directions
