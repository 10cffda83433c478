"""The target: what a model's data should be, compiled from a reference to scores, prior sums and prior counts.

Every watched stream is a score over the bins of one column, or the product of two. G streams are sums of a
standardised score (location, scale, shape, frequent categories, pairs), P streams counts of something rare (tails, out
of range, missing, rare or new values).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from detectors.base import F64, I64, Bool, Context, Stream
from detectors.drift.pairs import Pairs
from detectors.drift.scores import BLOCK, FAMILIES, Score, scores_of
from detectors.numeric import clip_limit, clipped, exact_squares, support, valid
from detectors.reference import Origin, Reference
from detectors.views.bins import FILLED, I16, Binning, binning

GAP: dict[Origin, float] = {"file": 0.1, "same_traffic": 0.03, "live": 0.03}
"""τ: how far live traffic is from the target even without drift, in σ; the target is worth 1/(1/m + τ²) rows."""
_MIN_VARIANCE = 1e-4
F32 = npt.NDArray[np.float32]


class Target:
    """Streams of a model in fixed order with what the reference says of each: `sums` G streams, of which the first
    `linear` are scores of one column and the others pairs, then P streams."""

    def __init__(self, reference: Reference, bins: Binning) -> None:
        self.binning = bins
        self.rows = len(reference)
        self.origin = reference.origin
        self.effective = 1 / (1 / self.rows + GAP[reference.origin] ** 2)
        index = bins.index(reference.rows)
        sums, counts = [], []
        for score in scores_of(bins, index):
            if score.family not in ("loc", "scale", "shape", "cat"):
                counts.append(score)
            elif score.second - score.mean**2 > _MIN_VARIANCE:
                sums.append(score)
        self.pairs = Pairs(bins, index, sums)
        self.scores = (*sums, *self.pairs.scores, *counts)
        self.linear, self.sums, self.counts = len(sums), len(sums) + len(self.pairs.scores), len(counts)
        self.mean = np.array([*(s.mean for s in sums), *self.pairs.mean], np.float64)
        self.second = np.array([*(s.second for s in sums), *self.pairs.second], np.float64)
        self.share = np.array([*self.mean, *(s.mean for s in counts)], np.float64)
        self.count = np.array([s.mean * self.rows + s.pseudo + 0.5 for s in counts], np.float64)
        self.family: I64 = np.array([FAMILIES.index(s.family) for s in self.scores], np.int64)
        self.column: I64 = np.array([s.column for s in self.scores], np.int64)
        self.columns = len(bins.numeric) + len(bins.category)
        self.location = {s.column: i for i, s in enumerate(sums) if s.family == "loc"}
        """The stream of location of each numeric column that has one."""
        self._tables = _Tables(bins, tuple(sums), tuple(counts))
        self._raw(reference, index)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams as detectors declare them."""
        return tuple(s.stream for s in self.scores)

    @property
    def spread(self) -> F64:
        """(G,) standard deviation of one score under the target."""
        return np.sqrt(np.maximum(self.second - self.mean**2, _MIN_VARIANCE))

    def block_sums(self, index: I16) -> tuple[F64, F64, F64]:
        """Sums over blocks of whole `index` (blocks * 25, columns): scores (blocks, G), their squares (blocks, G),
        counts (blocks, P). Exact, so equal however events were cut into batches."""
        filled: Bool | None = index >= FILLED
        index, filled = (index % FILLED, filled) if np.any(filled) else (index, None)
        sums, squares, counts = self._tables.sums(index)
        if not self.pairs.scores:
            return sums, squares, counts
        products, product_squares = self.pairs.sums(index, filled)
        return np.hstack([sums, products]), np.hstack([squares, product_squares]), counts

    def _raw(self, reference: Reference, index: I16) -> None:
        """What explanations show of each numeric column in its own unit, as if absurd values were not there: support,
        clip limit, mean, sd, bins, and the mean of each bin less that of the column."""
        rows = reference.rows
        values = np.hstack([rows.numeric.values, rows.outputs_numeric.values])
        status = np.hstack([rows.numeric.status, rows.outputs_numeric.status])
        ok = valid(values, status)
        self.support = np.array([support(values[ok[:, j], j]) for j in range(values.shape[1])], np.float64).reshape(
            -1, 2
        )
        low, high = self.support.T
        ok = ok & (values >= low) & (values <= high)
        self.limit = np.array([clip_limit(values[ok[:, j], j]) for j in range(values.shape[1])], np.float64)
        n = np.maximum(ok.sum(axis=0), 1)
        kept = clipped(values, ok, self.limit)
        self.raw_mean: F64 = kept.sum(axis=0) / n
        self.raw_sd: F64 = np.sqrt((np.where(ok, kept - self.raw_mean, 0.0) ** 2).sum(axis=0) / n)
        self.bin_mean = tuple(
            _means(index[ok[:, j], j] % FILLED, kept[ok[:, j], j] - self.raw_mean[j], len(column.edges) + 1)
            for j, column in enumerate(self.binning.numeric)
        )
        reach = np.nextafter(low, -np.inf), np.nextafter(high, np.inf)
        self.told = tuple(
            replace(column, edges=np.clip(column.edges, reach[0][j], reach[1][j]))
            for j, column in enumerate(self.binning.numeric)
        )


def _means(index: I16, value: F64, bins: int) -> F64:
    """(bins,) mean value of each bin; 0 of one without a value."""
    count = np.bincount(index, minlength=bins)[:bins]
    made: F64 = np.bincount(index, value, bins)[:bins] / np.maximum(count, 1)
    return made


def target(context: Context) -> Target:
    """The target of a model, compiled once."""
    if "drift.target" not in context.cache:
        context.cache["drift.target"] = Target(context.reference, binning(context))
    made: Target = context.cache["drift.target"]
    return made


class _Tables:
    """Scores as one (bins, streams) table a column, padded to equal shapes: two batched products make all sums."""

    def __init__(self, bins: Binning, of_sums: tuple[Score, ...], of_counts: tuple[Score, ...]) -> None:
        scores, sums = (*of_sums, *of_counts), len(of_sums)
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
