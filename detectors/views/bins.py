"""View "bins": for every event the integer bin of each watched column, computed once a batch.

Columns: numeric inputs, numeric outputs, categorical inputs, categorical outputs. Every cell has a bin, also missing,
not-a-number, out-of-range and never-seen ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from detectors.base import Batch, Category, Cell, Context, Numeric, Views, view
from detectors.numeric import EXTRA_BINS, Finder, bin_numbers, quantile_edges, valid
from detectors.reference import Reference

I16 = npt.NDArray[np.int16]
FILLED = 1_000
"""Added to the bin of a stand-in: what it says of its own column is as good as any, of other columns nothing."""
_FILLED = np.uint8(Cell.FILLED)
TOP = 12
"""Categories with a bin of their own."""


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """Bins of one numeric column: below, inner bins between `edges`, above, missing, not a number."""

    name: str
    output: bool
    edges: npt.NDArray[np.float64]
    threshold: int = 0
    """The first bin from the decision threshold on; 0 where none lies within the reference's range."""
    finder: Finder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "finder", Finder(self.edges))

    @property
    def bins(self) -> int:
        """Number of bins."""
        return len(self.edges) + EXTRA_BINS


@dataclass(frozen=True, slots=True)
class CategoryColumn:
    """Bins of one categorical column: one for each of the `top` values, then rest, new, missing."""

    name: str
    output: bool
    top: tuple[str, ...]
    singletons: int
    """Values that occur once in the reference: they estimate the mass of the unseen (Good & Turing)."""
    known: tuple[str, ...]
    lookup: dict[str, int] = field(repr=False)
    table: I16 = field(repr=False)
    """Bin of each code of `known`, then of mistyped, absent and null (codes -3, -2, -1 from the end)."""

    @property
    def bins(self) -> int:
        """Number of bins."""
        return len(self.top) + 3


class Binning:
    """How the columns of a model fall into bins, learnt from its reference."""

    def __init__(self, reference: Reference, thresholds: Mapping[str, float]) -> None:
        rows = reference.rows
        if not len(rows):
            raise ValueError("the reference has no rows: give at least one, better 500")
        self.rows = len(rows)
        bins = int(np.clip(len(rows) // 10, 8, 60))
        self.numeric = tuple(
            _numeric_column(table, j, output, bins, thresholds.get(name))
            for output, table in ((False, rows.numeric), (True, rows.outputs_numeric))
            for j, name in enumerate(table.names)
        )
        self.category = tuple(
            _category_column(table, j, output)
            for output, table in ((False, rows.category), (True, rows.outputs_category))
            for j in range(len(table.names))
        )
        self._names = _names(rows)

    def index(self, batch: Batch) -> I16:
        """(n, columns) bins, FILLED higher where a value stands for one that was not sent.

        ValueError when the batch has other columns than the reference.
        """
        if _names(batch) != self._names:
            raise ValueError(f"columns of {batch.subject} differ from its reference: {_names(batch)} and {self._names}")
        out = np.empty((len(self.numeric) + len(self.category), len(batch)), np.int16)
        at = 0
        for table in (batch.numeric, batch.outputs_numeric):
            values, status = np.ascontiguousarray(table.values.T), np.ascontiguousarray(table.status.T)
            for j in range(len(table.names)):
                column = self.numeric[at]
                out[at] = bin_numbers(values[j], status[j], column.edges, column.finder)
                if status[j].any():
                    out[at, status[j] == _FILLED] += FILLED
                at += 1
        for categories in (batch.category, batch.outputs_category):
            for j in range(len(categories.names)):
                out[at] = _bin_codes(self.category[at - len(self.numeric)], categories, j)
                at += 1
        return out.T


@view("bins")
def bins(views: Views) -> I16:
    """(n, columns) int16. ValueError where the model has no reference."""
    return binning(views.context).index(views.batch)


def binning(context: Context) -> Binning:
    """The bins of a model, compiled once."""
    if "bins" not in context.cache:
        if not isinstance(context.reference, Reference):
            raise ValueError(f"{context.subject} has no reference to take bins from")
        context.cache["bins"] = Binning(context.reference, context.thresholds)
    made: Binning = context.cache["bins"]
    return made


def _names(batch: Batch) -> tuple[tuple[str, ...], ...]:
    return batch.numeric.names, batch.outputs_numeric.names, batch.category.names, batch.outputs_category.names


def _numeric_column(table: Numeric, j: int, output: bool, bins: int, threshold: float | None) -> NumericColumn:
    edges = quantile_edges(table.values[valid(table.values, table.status)[:, j], j], bins)
    if threshold is None or not edges[0] < threshold < edges[-1]:
        return NumericColumn(table.names[j], output, edges)
    below = np.nextafter(threshold, -np.inf)
    edges = np.union1d(edges, [below])
    return NumericColumn(table.names[j], output, edges, int(np.searchsorted(edges, below)) + 1)


def _category_column(table: Category, j: int, output: bool) -> CategoryColumn:
    codes, words = table.codes[:, j], table.vocabulary[j]
    count = np.bincount(codes[codes >= 0], minlength=len(words))
    order = np.argsort(-count, kind="stable")
    order = order[count[order] > 0]
    top = tuple(words[i] for i in order[:TOP].tolist())
    lookup = {word: i for i, word in enumerate(top)}
    lookup.update({words[i]: len(top) for i in order[TOP:].tolist()})
    return CategoryColumn(
        table.names[j], output, top, int((count == 1).sum()), words, lookup, _table(words, lookup, len(top))
    )


def _table(words: tuple[str, ...], lookup: dict[str, int], top: int) -> I16:
    """Bin of each code; the codes below zero (null -1, absent -2, mistyped -3) index it from its end."""
    new, missing = top + 1, top + 2
    return np.array([*(lookup.get(w, new) for w in words), new, missing, missing], np.int16)


def _bin_codes(column: CategoryColumn, table: Category, j: int) -> I16:
    words = table.vocabulary[j]
    bin_of = column.table if words == column.known else _table(words, column.lookup, len(column.top))
    return bin_of[table.codes[:, j]]
