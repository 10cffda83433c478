"""The scores of a column: what each watched stream adds up, as a table over the column's bins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from detectors.base import F64, Stream
from detectors.numeric import exact_scores, exact_squares, normal_scores
from detectors.views.bins import I16, Binning, CategoryColumn, NumericColumn

Family = Literal["loc", "scale", "shape", "cat", "pair", "tail", "rare", "new", "missing", "range", "type"]
FAMILIES: tuple[Family, ...] = (
    "loc", "scale", "shape", "cat", "pair", "tail", "rare", "new", "missing", "range", "type",
)  # fmt: skip
INDICATORS = frozenset({"cat", "tail", "rare", "new", "missing", "range", "type"})
"""Families whose score is 1 or 0: a sum over a block counts events."""
BLOCK = 25
"""Events a block."""
_QUALITY = frozenset({"new", "missing", "range", "type"})
_MAX_TAIL = 0.15
_COMMON = 0.1
"""Share from which a category is a sum of its own, not a rare count."""
_STATISTIC = {"cat": "category", "rare": "category", "type": "not_a_number"}


@dataclass(frozen=True, slots=True)
class Score:
    """One stream: `table` (bins,) holds its score for each bin of `column`, `share` (bins,) the target's law.

    `pseudo` is the count a P stream starts with besides those of the reference; `label` names it for people. A pair
    has no table (pairs.py).
    """

    stream: Stream
    family: Family
    column: int
    table: F64
    share: F64
    pseudo: float
    label: str
    other: int = -1
    """The second column of a pair."""

    @property
    def mean(self) -> float:
        """Expected score under the target: the share itself where the score is an indicator."""
        return float(self.share @ self.table)

    @property
    def second(self) -> float:
        """Expected square of the score under the target."""
        return float(self.share @ exact_squares(self.table))


def scores_of(bins: Binning, index: I16) -> Iterator[Score]:
    """The streams of single columns, in the order of the columns; `index` holds the bins of the reference."""
    rows = len(index)
    for j, numeric in enumerate(bins.numeric):
        share = np.bincount(index[:, j], minlength=numeric.bins) / rows
        yield from _numeric_scores(numeric, j, share, rows)
    for j, category in enumerate(bins.category, len(bins.numeric)):
        share = np.bincount(index[:, j], minlength=category.bins) / rows
        yield from _category_scores(category, j, share, rows)


def _numeric_scores(column: NumericColumn, j: int, share: F64, rows: int) -> Iterator[Score]:
    k = column.bins
    missing, wrong, above = k - 2, k - 1, k - 3
    filled = int((share > 0).sum())
    loc = np.zeros(k)
    loc[:missing] = exact_scores(normal_scores(share[:missing], rows))
    scale = np.zeros(k)
    scale[:missing] = exact_scores(loc[:missing] ** 2 - 1)
    shape = np.zeros(k)
    shape[:missing] = exact_scores(_third_moment(share[:missing]))
    make = _Maker(column.name, column.output, j, share)
    yield make("loc", loc, "mean")
    if filled > 3:
        yield make("scale", scale, "sd")
        yield make("shape", shape, "shape")
    if filled > 6:
        for label, inside in (("lower tail", (0, 1)), ("upper tail", (above - 1, above))):
            if share[list(inside)].sum() <= _MAX_TAIL:
                yield make("tail", _indicator(k, inside), label)
    if column.threshold:
        beyond = tuple(range(column.threshold, missing))
        family: Family = "cat" if share[list(beyond)].sum() >= _COMMON else "rare"
        yield make(family, _indicator(k, beyond), "beyond the threshold")
    # by exchangeability a new row lies beyond either end of the reference with probability 1/(rows + 1)
    yield make("range", _indicator(k, (0, above)), "out of range", pseudo=2.0)
    yield make("missing", _indicator(k, (missing,)), "missing")
    yield make("type", _indicator(k, (wrong,)), "not a number")


def _category_scores(column: CategoryColumn, j: int, share: F64, rows: int) -> Iterator[Score]:
    k = column.bins
    rest, new = k - 3, k - 2
    # of the rarer values as many are new the next time as occur once (Good & Turing): all of them, where they are ids
    unseen = min(column.singletons / rows, float(share[rest]))
    share = share.copy()
    share[rest] -= unseen
    share[new] += unseen
    make = _Maker(column.name, column.output, j, share)
    for i, word in enumerate((*column.top, None)):
        if share[i] > 0:
            label = "rarer values" if word is None else f"category '{word[:40]}'"
            yield make("cat" if share[i] >= _COMMON else "rare", _indicator(k, (i,)), label)
    yield make("new", _indicator(k, (new,)), "new value", pseudo=column.singletons - unseen * rows)
    yield make("missing", _indicator(k, (k - 1,)), "missing")


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the streams of one column."""

    name: str
    output: bool
    column: int
    share: F64

    def __call__(self, family: Family, table: F64, label: str, pseudo: float = 0.0) -> Score:
        kind = "prediction_drift" if self.output else "data_quality" if family in _QUALITY else "feature_drift"
        stream = Stream(f"{self.name}:{label}", kind, _STATISTIC.get(family, family), (self.name,))
        return Score(stream, family, self.column, table, self.share, pseudo, label)


def _third_moment(share: F64) -> F64:
    """Third Legendre polynomial of the mid-ranks, -1 to 1: sees what location and scale leave out."""
    inner = share / max(float(share.sum()), 1e-12)
    y = 2 * (np.cumsum(inner) - inner / 2) - 1
    score: F64 = (5 * y**3 - 3 * y) / 2
    return score


def _indicator(bins: int, ones: tuple[int, ...]) -> F64:
    table = np.zeros(bins)
    table[list(ones)] = 1.0
    return table
