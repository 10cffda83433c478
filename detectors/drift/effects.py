"""Effect sizes of a changed column, from the bins of its events: for people to judge by, never to alarm by."""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors.base import F64
from detectors.drift.scores import BLOCK
from detectors.views.bins import NumericColumn

_GROUPS: Final = 10
"""Bins are joined to about so many of equal share: the index of sparse bins is mostly noise."""
LEAST_EVENTS: Final = 2 * BLOCK
"""Events below which an index says little."""
_HALF: Final = 0.5
"""Added to each count: an empty bin is not impossible."""


def stability_index(expected: F64, count: F64) -> float:
    """Population stability index (PSI) of counts (k,) against shares (k,), in groups of about a tenth."""
    place = np.minimum((np.cumsum(expected) - expected / 2) * _GROUPS, _GROUPS - 1).astype(np.int64)
    groups = np.unique(place, return_inverse=True)[1]
    wanted = np.bincount(groups, expected)
    seen = np.bincount(groups, count)
    n = float(seen.sum())
    p = (wanted * n + _HALF) / (wanted * n + _HALF).sum()
    q = (seen + _HALF) / (seen + _HALF).sum()
    return float(((q - p) * np.log(q / p)).sum())


def median_of(column: NumericColumn, weight: F64) -> float | None:
    """Median by the weights of the bins (k,), interpolated; at an end of the range where it lies beyond. None without a
    number."""
    inner = weight[: len(column.edges) + 1]
    total = float(inner.sum())
    if total <= 0:
        return None
    before = np.cumsum(inner)
    i = int(np.searchsorted(before, total / 2))
    if i in (0, len(column.edges)):
        return float(column.edges[0 if i == 0 else -1])
    share = (total / 2 - float(before[i - 1])) / float(inner[i])
    low, high = float(column.edges[i - 1]), float(column.edges[i])
    return low + share * (high - low)
