"""Queries made from earlier ones: the small steps of attacks that search for an adversarial input."""

from __future__ import annotations

import numpy as np

from detectors.base import F64, I64, Batch, Views, register
from detectors.queries.conformal import ConformalTest
from detectors.queries.query_log import Queries

_FAR = 1e3


@register
class NearDuplicateQueries(ConformalTest):
    """Distance to the nearest earlier other query among the model's last 4,096 of all clients; small is unusual."""

    name = "near_duplicate_queries"
    kind = "adversarial_input"
    raises = ("unusual_client", "adversarial_input")
    inputs = frozenset({"features", "reference", "client"})
    atlas = ("AML.T0043.001", "AML.T0015")
    small = True

    def values(self, batch: Batch, views: Views, rows: I64) -> F64:
        """Distances in units of the features' usual range; NaN while the ring still grows."""
        queries: Queries = views.get("queries")
        return np.where(queries.honest[rows], np.nan, np.minimum(queries.nearest[rows], _FAR))

    def _collect(self, batch: Batch, rows: I64, values: F64, queries: Queries) -> int:
        """The honest distances come from the log, which knows them once its ring has its size."""
        if queries.settled is not None:
            names, distances = queries.settled
            self._calibration.add(np.arange(len(names), dtype=np.int32), names, distances)
        return super()._collect(batch, rows, values, queries)
