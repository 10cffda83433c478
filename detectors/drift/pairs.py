"""Pairs of numeric columns: products of their normal scores, which see a correlation change that no column shows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from detectors.base import F64, I64, Stream
from detectors.drift.scores import BLOCK, Score
from detectors.numeric import exact_factors
from detectors.views.bins import I16, Binning

MAX_COLUMNS = 50
"""Up to this many columns all pairs are watched, beyond it the MAX_PAIRS most correlated in the reference."""
MAX_PAIRS = 500
LABEL = "correlation"
_KIND = "feature_drift"
_MIN_BINS = 4
_MAX_BET = 3.2
_MIN_ROOM = 0.05
_HEAVIER = 1.25
"""The moment function below is that of Gaussian scores; binned scores of real columns may be a little heavier."""
F32 = npt.NDArray[np.float32]
_NONE = np.zeros(0)


class Pairs:
    """The pair streams of a model: `scores`, with `mean` and `second` (pairs,), their moments under the reference."""

    def __init__(self, bins: Binning, index: I16, singles: Iterable[Score]) -> None:
        """`index` holds the bins of the reference, `singles` the G streams of single columns."""
        tables = {s.column: s.table for s in singles if s.family == "loc" and int((s.share > 0).sum()) >= _MIN_BINS}
        self._columns: I64 = np.array(sorted(tables), np.int64)
        width = max((len(t) for t in tables.values()), default=1)
        self._offset = np.arange(len(tables)) * width
        self._factors, self._squares = np.zeros((2, len(tables) * width), np.float32)
        for start, column in zip(self._offset.tolist(), self._columns.tolist(), strict=True):
            table = tables[column]
            self._factors[start : start + len(table)], self._squares[start : start + len(table)] = exact_factors(table)
        first, second = np.triu_indices(len(tables), 1)
        key = index.T[self._columns].astype(np.int64) + self._offset[:, None]
        mean, square = (
            (x @ x.T)[first, second] / len(index)
            for x in (self._factors[key].astype(np.float64), self._squares[key].astype(np.float64))
        )
        if len(tables) > MAX_COLUMNS:
            strength = np.abs(mean) / np.sqrt(np.maximum(square, 1e-4))
            kept = np.sort(np.argsort(-strength, kind="stable")[:MAX_PAIRS])
            first, second, mean, square = first[kept], second[kept], mean[kept], square[kept]
        self.mean: F64 = mean
        self.second: F64 = square
        self._at = first * len(tables) + second
        self.scores = tuple(
            _score(bins, a, b)
            for a, b in zip(self._columns[first].tolist(), self._columns[second].tolist(), strict=True)
        )

    def sums(self, index: I16) -> tuple[F64, F64]:
        """Sums over blocks of whole `index` (blocks * 25, columns) of products and of their squares: (blocks, pairs)
        each, exact."""
        key = index.T[self._columns].astype(np.int64)
        key += self._offset[:, None]
        return self._products(self._factors[key]), self._products(self._squares[key])

    def excess(self, bets: F64) -> F64:
        """(pairs, bets) how far the mean of a block has heavier tails than a Gaussian, for each bet.

        From ψ(t) = −½ log((1 − tρ)² − t²) − tρ, the log moment generating function of the product of two Gaussian
        scores of correlation ρ, centred. Infinite where there should be no bet.
        """
        rho = np.clip(self.mean, -0.95, 0.95)[:, None]
        t = bets / np.sqrt(BLOCK) / np.sqrt(1 + rho * rho)
        room = (1 - t * rho) ** 2 - t * t
        psi = -0.5 * np.log(np.maximum(room, _MIN_ROOM)) - t * rho
        excess = _HEAVIER * np.maximum(BLOCK * psi - bets**2 / 2, 0.0)
        return np.where((room > _MIN_ROOM) & (np.abs(bets) <= _MAX_BET), excess, np.inf)

    def _products(self, factors: F32) -> F64:
        columns = len(factors)
        cells = factors.reshape(columns, -1, BLOCK).transpose(1, 0, 2)
        products = cells @ cells.transpose(0, 2, 1)
        return products.reshape(-1, columns * columns).take(self._at, axis=1).astype(np.float64)


def _score(bins: Binning, first: int, second: int) -> Score:
    one, two = bins.numeric[first], bins.numeric[second]
    kind = "prediction_drift" if one.output and two.output else _KIND
    stream = Stream(f"{one.name} × {two.name}:{LABEL}", kind, "pair", (one.name, two.name))
    return Score(stream, "pair", first, _NONE, _NONE, 0.0, LABEL, second)
