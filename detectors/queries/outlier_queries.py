"""Queries far from the data the model was made for: random probing, foreign pools, out-of-range synthesis."""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors.base import F64, I64, Batch, Views, register, view
from detectors.queries.conformal import ConformalTest
from detectors.views.projection import F32, projection_of

DISTANCE: Final = "outlier"
"""Name of the view."""
NEIGHBOUR: Final = 4
"""Distance to the fourth nearest reference row: the nearest alone is at the mercy of one odd row."""
_CHUNK: Final = 256
_GROUP: Final = 20
_INFINITELY: Final = 1e30


@register
class OutlierQueries(ConformalTest):
    """Distance of a query to its 4th nearest row of the reference; large is unusual."""

    name = "outlier_queries"
    kind = "model_extraction"
    raises = ("unusual_client", "model_extraction")
    inputs = frozenset({"features", "reference", "client"})
    views = ("queries", DISTANCE)
    atlas = ("AML.T0024.002",)
    small = False

    def values(self, batch: Batch, views: Views, rows: I64) -> F64:
        """Distances in units of the features' usual range."""
        distance: F64 = views.get(DISTANCE)[rows]
        return distance


@view(DISTANCE)
def _outlier(views: Views) -> F64:
    """(n,) distance of each distinct query to its 4th nearest row of the reference, NaN of the others."""
    rows = np.flatnonzero(views.get("queries").distinct)
    points: F32 = views.get("projection")[rows]
    cache = views.context.cache
    if "outlier reference" not in cache:
        cache["outlier reference"] = _laid_out(projection_of(views).rows)
    reference: F32 = cache["outlier reference"]
    out = np.full(len(views.batch), np.nan)
    for begin in range(0, len(rows), _CHUNK):
        chunk = points[begin : begin + _CHUNK]
        probe = np.concatenate([2 * chunk, np.full((len(chunk), 1), -1, np.float32)], axis=1)
        squared = np.einsum("ij,ij->i", chunk, chunk) - _fourth_largest(probe @ reference)
        out[rows[begin : begin + _CHUNK]] = np.sqrt(np.maximum(squared, 0.0))
    return out


def _laid_out(rows: F32) -> F32:
    """(dimensions + 1, n): the rows with their squared norms, so that one product gives 2 x·y − |y|².

    Rows are repeated up to four, and infinitely far ones fill the last groups.
    """
    if len(rows) < NEIGHBOUR:
        rows = rows[np.arange(NEIGHBOUR) % len(rows)]
    norm = np.einsum("ij,ij->i", rows, rows)[:, None]
    fill = -len(rows) % _GROUP
    joined = np.concatenate([rows, norm], axis=1)
    far = np.zeros((fill, joined.shape[1]), np.float32)
    far[:, -1] = _INFINITELY
    return np.ascontiguousarray(np.concatenate([joined, far]).T)


def _fourth_largest(values: F32) -> F32:
    """(n,) the fourth largest of each row, exact.

    The four largest are in the four groups with the largest maxima, so only these are sorted: several times as fast
    as sorting the whole row. A group is every k-th value, so that the maxima of all groups are taken side by side.
    """
    n, width = values.shape
    groups = width // _GROUP
    if groups > 2 * NEIGHBOUR:
        table = values.reshape(n, _GROUP, groups)
        largest = table[:, 0].copy()
        for k in range(1, _GROUP):
            np.maximum(largest, table[:, k], out=largest)
        best = np.argpartition(largest, groups - NEIGHBOUR, axis=1)[:, -NEIGHBOUR:]
        values = table[np.arange(n)[:, None], :, best].reshape(n, NEIGHBOUR * _GROUP)
    fourth: F32 = np.partition(values, values.shape[1] - NEIGHBOUR, axis=1)[:, -NEIGHBOUR]
    return fourth
