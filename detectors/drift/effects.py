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
    p, q = _grouped(expected, count)
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon(expected: F64, count: F64) -> float:
    """Jensen-Shannon distance (base 2, 0 to 1) of counts (k,) from shares (k,), in groups of about a tenth."""
    p, q = _grouped(expected, count)
    middle = (p + q) / 2
    divergence = 0.5 * float((p * np.log2(p / middle) + q * np.log2(q / middle)).sum())
    return float(np.sqrt(max(divergence, 0.0)))


def transport(column: NumericColumn, expected: F64, count: F64, sd: float) -> float | None:
    """Wasserstein distance of counts (bins,) from shares (bins,) in units of `sd`. What lies beyond the outer edges
    counts as lying on them. None without a number on either side, or without a spread."""
    inner = len(column.edges) + 1
    before, after = expected[:inner], count[:inner]
    if not (before.sum() > 0 and after.sum() > 0 and sd > 0):
        return None
    gap = np.cumsum(before)[:-1] / before.sum() - np.cumsum(after)[:-1] / after.sum()
    middle = (gap[:-1] + gap[1:]) / 2  # within a bin both grow evenly
    with np.errstate(over="ignore", invalid="ignore"):  # edges may be as far apart as numbers go
        distance = float(np.abs(middle * np.diff(column.edges)).sum()) / sd
    return distance if np.isfinite(distance) else None


def _grouped(expected: F64, count: F64) -> tuple[F64, F64]:
    """Shares of groups of about a tenth each: expected, and counted."""
    place = np.minimum((np.cumsum(expected) - expected / 2) * _GROUPS, _GROUPS - 1).astype(np.int64)
    groups = np.unique(place, return_inverse=True)[1]
    wanted = np.bincount(groups, expected)
    seen = np.bincount(groups, count)
    n = float(seen.sum())
    p = (wanted * n + _HALF) / (wanted * n + _HALF).sum()
    q = (seen + _HALF) / (seen + _HALF).sum()
    return p, q


def median_of(column: NumericColumn, weight: F64) -> float | None:
    """Median by the weights of the bins (k,)."""
    return quantile_of(column, weight, 0.5)


def quantile_of(column: NumericColumn, weight: F64, level: float) -> float | None:
    """Quantile by the weights of the bins (k,), interpolated; at an end of the range where it lies beyond. None without
    a number."""
    inner = weight[: len(column.edges) + 1]
    total = float(inner.sum())
    if total <= 0:
        return None
    before = np.cumsum(inner)
    i = int(np.searchsorted(before, total * level))
    if i in (0, len(column.edges)):
        return float(column.edges[0 if i == 0 else -1])
    share = (total * level - float(before[i - 1])) / float(inner[i])
    low, high = float(column.edges[i - 1]), float(column.edges[i])
    return low + share * (high - low)
