"""A named column before and after: bins, shares and quantiles, small enough to be stored with an incident."""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors.base import F64, Profile
from detectors.drift.effects import quantile_of
from detectors.numeric import EXTRA_BINS
from detectors.views.bins import CategoryColumn, NumericColumn

MOST_BINS: Final = 32
LEVELS: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_DIGITS: Final = 6
_MAX_TEXT: Final = 60


def profile_of(column: NumericColumn | CategoryColumn, before: F64, count: F64) -> Profile:
    """The profile of a column with shares `before` (bins,) and counts since the onset (bins,), at least one."""
    n = int(count.sum())
    if isinstance(column, CategoryColumn):
        names = (*(word[:_MAX_TEXT] for word in column.top), "(rarer)", "(new)", "(missing)")
        return Profile(names, (), _rounded(before), _rounded(count / n), (), n)
    kept = np.arange(len(column.edges))
    if column.bins > MOST_BINS:
        kept = np.unique(np.linspace(0, len(column.edges) - 1, MOST_BINS - EXTRA_BINS).round().astype(np.int64))
    first = np.concatenate([[0], kept + 1, [column.bins - 2, column.bins - 1]])
    levels = ((q, quantile_of(column, before, q), quantile_of(column, count, q)) for q in LEVELS)
    return Profile(
        (),
        tuple(np.nan_to_num(column.edges[kept]).tolist()),
        _rounded(np.add.reduceat(before, first)),
        _rounded(np.add.reduceat(count, first) / n),
        tuple((q, a, b) for q, a, b in levels if a is not None and b is not None),
        n,
    )


def _rounded(shares: F64) -> tuple[float, ...]:
    return tuple(np.round(shares, _DIGITS).tolist())
