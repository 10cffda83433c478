"""Queries with more decimals than the data: numbers that were computed, not measured, counted or typed.

Mixtures of records, steps along a gradient and noise leave numbers finer than those the model is asked with. Another
export of honest data may as well: by itself this makes a client no attacker, only one to look at more closely.
"""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from detectors.base import F64, I64, Batch, Context, Views, register
from detectors.numeric import valid
from detectors.queries.conformal import ConformalParams, ConformalTest

_ROUND: Final = 2.0**-22
"""What a passage through float32 makes of a number, relatively, is not called finer."""
_EXACT: Final = 1e-6
_TINY: Final = 1e-9
"""The same of numbers in double precision."""
_MOST_DECIMALS: Final = 6
_MOSTLY: Final = 0.95
_LARGEST: Final = 1e29
_LOOKED_AT: Final = 32
"""Columns that tell enough, spread over all of them."""


@register
class FinerQueries(ConformalTest):
    """Share of a query's numbers that have more decimals than the reference's; large is unusual."""

    name = "finer_queries"
    kind = "model_extraction"
    raises = ("unusual_client", "model_extraction")
    inputs = frozenset({"features", "reference", "client"})
    views: ClassVar[tuple[str, ...]] = ("queries",)
    atlas = ("AML.T0024.002",)
    small = False

    def __init__(self, context: Context, params: ConformalParams) -> None:
        super().__init__(context, params)
        decimals = _decimals(context.reference.rows)
        rounded = np.flatnonzero(decimals >= 0)
        most = min(len(rounded), _LOOKED_AT)
        self._columns: I64 = rounded[np.linspace(0, len(rounded) - 1, most).astype(np.int64)]
        self._steps: F64 = 10.0 ** decimals[self._columns].astype(np.float64)

    def values(self, batch: Batch, views: Views, rows: I64) -> F64:
        """Shares; NaN where the reference's numbers have no decimals in common."""
        if not len(self._columns):
            return np.full(len(rows), np.nan)
        at = rows[:, None], self._columns
        numbers = batch.numeric.values[at]
        ok = valid(numbers, batch.numeric.status[at]) & (np.abs(numbers) < _LARGEST)
        steps = np.where(ok, numbers, 0.0) * self._steps
        finer = np.abs(steps - np.rint(steps)) > _EXACT + _ROUND * np.abs(steps)
        share: F64 = np.count_nonzero(finer, axis=1) / len(self._columns)
        return share


def _decimals(rows: Batch) -> I64:
    """The fewest decimals, at most 6, that 95 % of a column's values have; -1 where they have more."""
    ok = valid(rows.numeric.values, rows.numeric.status)
    out = np.full(len(rows.numeric.names), -1, np.int64)
    for j in range(len(out)):
        values = rows.numeric.values[ok[:, j], j]
        for k in range(_MOST_DECIMALS + 1):
            steps = values * 10.0**k
            whole = np.abs(steps - np.rint(steps)) <= _EXACT + _TINY * np.abs(steps)
            if len(values) and whole.mean() >= _MOSTLY:
                out[j] = k
                break
    return out
