"""The target: what a model's data should be, compiled from a reference to scores, prior sums and prior counts.

Every watched stream is a score over the bins of one column. G streams are sums of a standardised score (location,
scale, frequent categories), P streams counts of something rare (tails, out of range, missing, rare or new values).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from detectors.base import F64, I64, Context, Stream
from detectors.numeric import (
    clip_limit,
    clipped,
    exact_scores,
    exact_squares,
    normal_scores,
    valid,
)
from detectors.reference import Origin, Reference
from detectors.views.bins import I16, Binning, CategoryColumn, NumericColumn, binning

BLOCK = 25
"""Events a block."""
Family = Literal["loc", "scale", "cat", "tail", "rare", "new", "missing", "range", "type"]
FAMILIES: tuple[Family, ...] = ("loc", "scale", "cat", "tail", "rare", "new", "missing", "range", "type")
GAP: dict[Origin, float] = {"file": 0.1, "same_traffic": 0.03, "live": 0.03}
"""τ: how far live traffic is from the target even without drift, in σ; the target is worth 1/(1/m + τ²) rows."""
_QUALITY = frozenset({"new", "missing", "range", "type"})
_MIN_VARIANCE = 1e-4
_MAX_TAIL = 0.15
_STATISTIC = {"cat": "category", "rare": "category", "type": "not_a_number"}
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Score:
    """One stream: `table` (bins,) holds its score for each bin of `column`, `share` (bins,) the target's law.

    `pseudo` is the count a P stream starts with besides those of the reference; `label` names it for people.
    """

    stream: Stream
    family: Family
    column: int
    table: F64
    share: F64
    pseudo: float
    label: str

    @property
    def mean(self) -> float:
        """Expected score under the target: the share itself where the score is an indicator."""
        return float(self.share @ self.table)

    @property
    def second(self) -> float:
        """Expected square of the score under the target."""
        return float(self.share @ exact_squares(self.table))


class Target:
    """Streams of a model in fixed order (`sums` G streams, then P streams) with what the reference says of each."""

    def __init__(self, reference: Reference, bins: Binning) -> None:
        self.binning = bins
        self.rows = len(reference)
        self.effective = 1 / (1 / self.rows + GAP[reference.origin] ** 2)
        index = bins.index(reference.rows)
        sums, counts = [], []
        for score in _scores(bins, index):
            if score.family not in ("loc", "scale", "cat"):
                counts.append(score)
            elif score.second - score.mean**2 > _MIN_VARIANCE:
                sums.append(score)
        self.scores = (*sums, *counts)
        self.sums, self.counts = len(sums), len(counts)
        self.mean = np.array([s.mean for s in sums], np.float64)
        self.second = np.array([s.second for s in sums], np.float64)
        self.share = np.array([s.mean for s in self.scores], np.float64)
        self.count = np.array([s.mean * self.rows + s.pseudo + 0.5 for s in counts], np.float64)
        self.family: I64 = np.array([FAMILIES.index(s.family) for s in self.scores], np.int64)
        self.column: I64 = np.array([s.column for s in self.scores], np.int64)
        self._tables = _Tables(bins, self.scores, self.sums)
        self._raw(reference)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams as detectors declare them."""
        return tuple(s.stream for s in self.scores)

    def block_sums(self, index: I16) -> tuple[F64, F64, F64]:
        """Sums over blocks of whole `index` (blocks * 25, columns): scores (blocks, G), their squares (blocks, G),
        counts (blocks, P). Exact, so equal however events were cut into batches."""
        return self._tables.sums(index)

    def _raw(self, reference: Reference) -> None:
        """What explanations show: clip limit, mean and sd of each numeric column in its own unit."""
        rows = reference.rows
        values = np.hstack([rows.numeric.values, rows.outputs_numeric.values])
        status = np.hstack([rows.numeric.status, rows.outputs_numeric.status])
        ok = valid(values, status)
        self.limit = np.array([clip_limit(values[ok[:, j], j]) for j in range(values.shape[1])], np.float64)
        n = np.maximum(ok.sum(axis=0), 1)
        kept = clipped(values, ok, self.limit)
        self.raw_mean: F64 = kept.sum(axis=0) / n
        self.raw_sd: F64 = np.sqrt((np.where(ok, kept - self.raw_mean, 0.0) ** 2).sum(axis=0) / n)


def target(context: Context) -> Target:
    """The target of a model, compiled once."""
    if "drift.target" not in context.cache:
        context.cache["drift.target"] = Target(context.reference, binning(context))
    made: Target = context.cache["drift.target"]
    return made


class _Tables:
    """Scores as one (bins, streams) table a column, padded to equal shapes: two batched products make all sums."""

    def __init__(self, bins: Binning, scores: tuple[Score, ...], sums: int) -> None:
        self._numeric = len(bins.numeric)
        self._groups: list[tuple[int, int, F32]] = []
        place: dict[tuple[int, bool], int] = {}
        flat = 0
        for first, sizes in ((0, [c.bins for c in bins.numeric]), (self._numeric, [c.bins for c in bins.category])):
            if not sizes:
                continue
            wanted = [
                [(i, square) for i, s in enumerate(scores) if s.column == first + c for square in _forms(s, i < sums)]
                for c in range(len(sizes))
            ]
            width = max(max(map(len, wanted)), 1)
            table = np.zeros((len(sizes), max(sizes), width), np.float32)
            for c, forms in enumerate(wanted):
                for slot, (i, square) in enumerate(forms):
                    made = exact_squares(scores[i].table) if square else scores[i].table
                    table[c, : len(made), slot] = made
                    place[i, square] = flat + c * width + slot
            self._groups.append((first, len(sizes), table))
            flat += len(sizes) * width
        self._sums: I64 = np.array([place[i, False] for i in range(sums)], np.int64)
        self._squares: I64 = np.array([place.get((i, True), place[i, False]) for i in range(sums)], np.int64)
        self._counts: I64 = np.array([place[i, False] for i in range(sums, len(scores))], np.int64)

    def sums(self, index: I16) -> tuple[F64, F64, F64]:
        """Histogram every block, then multiply by the score tables."""
        blocks = len(index) // BLOCK
        made = []
        of_block = np.arange(blocks * BLOCK) // BLOCK
        for first, columns, table in self._groups:
            size = table.shape[1]
            key = index.T[first : first + columns].astype(np.int64)
            key += of_block * size
            key += (np.arange(columns) * (blocks * size))[:, None]
            histogram = np.bincount(key.ravel(), minlength=columns * blocks * size)
            product = histogram.astype(np.float32).reshape(columns, blocks, size) @ table
            made.append(product.transpose(1, 0, 2).reshape(blocks, columns * table.shape[2]))
        flat = np.hstack(made).astype(np.float64)
        return flat[:, self._sums], flat[:, self._squares], flat[:, self._counts]


def _forms(score: Score, is_sum: bool) -> tuple[bool, ...]:
    """Which tables a stream needs: its score, and the square where that is another one (not of an indicator)."""
    return (False, True) if is_sum and score.family != "cat" else (False,)


def _scores(bins: Binning, index: I16) -> Iterator[Score]:
    rows = len(index)
    for j, numeric in enumerate(bins.numeric):
        share = np.bincount(index[:, j], minlength=numeric.bins) / rows
        yield from _numeric_scores(numeric, j, share, rows)
    for j, category in enumerate(bins.category, len(bins.numeric)):
        share = np.bincount(index[:, j], minlength=category.bins) / rows
        yield from _category_scores(category, j, share)


def _numeric_scores(column: NumericColumn, j: int, share: F64, rows: int) -> Iterator[Score]:
    k = column.bins
    missing, wrong, above = k - 2, k - 1, k - 3
    filled = int((share > 0).sum())
    loc = np.zeros(k)
    loc[:missing] = exact_scores(normal_scores(share[:missing], rows))
    scale = np.zeros(k)
    scale[:missing] = exact_scores(loc[:missing] ** 2 - 1)
    make = _Maker(column.name, column.output, j, share)
    yield make("loc", loc, "mean")
    if filled > 3:
        yield make("scale", scale, "sd")
    if filled > 6:
        for label, inside in (("lower tail", (0, 1)), ("upper tail", (above - 1, above))):
            if share[list(inside)].sum() <= _MAX_TAIL:
                yield make("tail", _indicator(k, inside), label)
    # by exchangeability a new row lies beyond either end of the reference with probability 1/(rows + 1)
    yield make("range", _indicator(k, (0, above)), "out of range", pseudo=2.0)
    yield make("missing", _indicator(k, (missing,)), "missing")
    yield make("type", _indicator(k, (wrong,)), "not a number")


def _category_scores(column: CategoryColumn, j: int, share: F64) -> Iterator[Score]:
    k = column.bins
    make = _Maker(column.name, column.output, j, share)
    for i, word in enumerate((*column.top, None)):
        if share[i] > 0:
            label = "rarer values" if word is None else f"category '{word[:40]}'"
            yield make("cat" if share[i] >= 0.1 else "rare", _indicator(k, (i,)), label)
    yield make("new", _indicator(k, (k - 2,)), "new value", pseudo=float(column.singletons))
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


def _indicator(bins: int, ones: tuple[int, ...]) -> F64:
    table = np.zeros(bins)
    table[list(ones)] = 1.0
    return table
