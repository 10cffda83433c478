"""Queries at the model's decision boundary: where evasion attacks walk, and where a copy learns most."""

from __future__ import annotations

import numpy as np

from detectors.base import F64, I64, Batch, Views, register
from detectors.queries.conformal import ConformalTest


@register
class MarginQueries(ConformalTest):
    """Largest score minus the second largest; small is unusual. Off where scores are not logged."""

    name = "margin_queries"
    kind = "adversarial_input"
    raises = ("unusual_client", "adversarial_input")
    inputs = frozenset({"features", "reference", "client", "scores"})
    atlas = ("AML.T0043.001", "AML.T0015")
    small = True

    def values(self, batch: Batch, views: Views, rows: I64) -> F64:
        """Margins; NaN where scores are not logged."""
        return np.full(len(rows), np.nan) if batch.margin is None else batch.margin[rows]
