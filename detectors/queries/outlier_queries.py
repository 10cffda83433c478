"""Queries far from the data the model was made for: random probing, foreign pools, out-of-range synthesis."""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors.base import F64, I64, Batch, Views, register
from detectors.queries.conformal import ConformalTest
from detectors.views.projection import F32, projection_of

NEIGHBOUR: Final = 4
"""Distance to the fourth nearest reference row: the nearest alone is at the mercy of one odd row."""
_CHUNK: Final = 256


@register
class OutlierQueries(ConformalTest):
    """Distance of a query to its 4th nearest row of the reference; large is unusual."""

    name = "outlier_queries"
    kind = "model_extraction"
    inputs = frozenset({"features", "reference", "client"})
    views = ("queries", "projection")
    atlas = ("AML.T0024.002",)
    small = False

    def values(self, batch: Batch, views: Views, rows: I64) -> F64:
        """Distances in units of the features' usual range."""
        points: F32 = views.get("projection")[rows]
        cache = views.context.cache
        if "outlier reference" not in cache:
            reference = projection_of(views).rows
            norm = np.einsum("ij,ij->i", reference, reference)[:, None]
            cache["outlier reference"] = np.ascontiguousarray(np.concatenate([reference, norm], axis=1).T)
        reference = cache["outlier reference"]
        take = min(NEIGHBOUR, reference.shape[1])
        out = np.empty(len(rows))
        for begin in range(0, len(rows), _CHUNK):
            chunk = points[begin : begin + _CHUNK]
            probe = np.concatenate([2 * chunk, np.full((len(chunk), 1), -1, np.float32)], axis=1)
            closeness = probe @ reference
            fourth = np.partition(closeness, closeness.shape[1] - take, axis=1)[:, -take]
            squared = np.einsum("ij,ij->i", chunk, chunk) - fourth
            out[begin : begin + _CHUNK] = np.sqrt(np.maximum(squared, 0.0))
        return out
