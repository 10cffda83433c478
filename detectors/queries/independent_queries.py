"""Queries drawn field by field: synthetic records whose fields do not belong together, sent to learn the model."""

from __future__ import annotations

from detectors.base import F64, I64, Batch, Views, register
from detectors.queries.conformal import ConformalTest


@register
class IndependentQueries(ConformalTest):
    """How well the fields of a query belong together (view "dependence"); small is unusual."""

    name = "independent_queries"
    kind = "model_extraction"
    raises = ("unusual_client", "model_extraction")
    inputs = frozenset({"features", "reference", "client"})
    views = ("queries", "dependence")
    atlas = ("AML.T0024.002",)
    small = True

    def values(self, batch: Batch, views: Views, rows: I64) -> F64:
        """Sums of pointwise mutual information, in nats."""
        together: F64 = views.get("dependence")[rows]
        return together
