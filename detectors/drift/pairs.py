"""Pairs of numeric columns: products of their normal scores, which see a correlation change that no column shows.

Scores are standardised first: most of the mass of a column can lie in one bin (a flag, an amount that is mostly zero).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from detectors.base import F64, I64, Bool, Stream
from detectors.drift.scores import BLOCK, Score
from detectors.numeric import exact_factors
from detectors.views.bins import I16, Binning

MAX_COLUMNS = 50
"""Up to this many columns all pairs are watched, beyond it the MAX_PAIRS most correlated in the reference."""
MAX_PAIRS = 500
MAX_ROWS = 2_000
"""Of the reference, for the tails of products."""
LABEL = "correlation"
_KIND = "multivariate_drift"
_MIN_BINS = 4
_LEAST_FILLED = 0.5
"""Share of rows with a number, below which a column's products have tails that no reference shows."""
_MAX_BET = 3.2
_MIN_ROOM = 0.05
_HEAVIER = 1.25
"""Both moment functions below are estimates: live tails may be a little heavier."""
_LEAST_SPREAD = 1e-2
_FEW = 8
"""One by one, where all products of a block would be so many times the watched ones."""
F32 = npt.NDArray[np.float32]
_NONE = np.zeros(0)


class Pairs:
    """The pair streams of a model: `scores`, with `mean` and `second` (pairs,), their moments under the reference."""

    def __init__(self, bins: Binning, index: I16, singles: Iterable[Score]) -> None:
        """`index` holds the bins of the reference, `singles` the G streams of single columns."""
        tables = {s.column: _factors(s) for s in singles if s.family == "loc" and _can_pair(s)}
        self._columns: I64 = np.array(sorted(tables), np.int64)
        width = max((len(t) for t in tables.values()), default=1)
        self._offset = np.arange(len(tables)) * width
        self._factors = np.zeros(len(tables) * width, np.float32)
        for start, column in zip(self._offset.tolist(), self._columns.tolist(), strict=True):
            table = tables[column]
            self._factors[start : start + len(table)] = table
        self._squares = self._factors.astype(np.float64) ** 2
        first, second = np.triu_indices(len(tables), 1)
        key = index.T[self._columns].astype(np.int64) + self._offset[:, None]
        mean, square = (
            (x @ x.T)[first, second] / len(index) for x in (self._factors[key].astype(np.float64), self._squares[key])
        )
        if len(tables) > MAX_COLUMNS:
            strength = np.abs(mean) / np.sqrt(np.maximum(square, 1e-4))
            kept = np.sort(np.argsort(-strength, kind="stable")[:MAX_PAIRS])
            first, second, mean, square = first[kept], second[kept], mean[kept], square[kept]
        self.mean: F64 = mean
        self.second: F64 = square
        self._first, self._second = first, second
        self._rows = self._factors[key[:, :: -(-len(index) // MAX_ROWS)]].astype(np.float64)
        self._at = first * len(tables) + second
        self.scores = tuple(
            _score(bins, a, b)
            for a, b in zip(self._columns[first].tolist(), self._columns[second].tolist(), strict=True)
        )

    def sums(self, index: I16, filled: Bool | None = None) -> tuple[F64, F64]:
        """Sums over blocks of whole `index` (blocks * 25, columns) of products and of their squares: (blocks, pairs)
        each, exact. Where a cell is `filled` with a stand-in, a product is what the target expects of it."""
        key = index.T[self._columns].astype(np.int64)
        key += self._offset[:, None]
        factors, squares = self._factors[key], self._squares[key]
        if filled is None or not (stands := filled.T[self._columns]).any():
            return self._products(factors), self._products(squares)
        factors[stands], squares[stands] = 0.0, 0.0
        expected = BLOCK - self._products((~stands).astype(np.float64))
        return (
            self._products(factors) + expected * _rounded(self.mean),
            self._products(squares) + expected * _rounded(self.second),
        )

    def excess(self, bets: F64) -> F64:
        """(pairs, bets) how far the mean of a block has heavier tails than a Gaussian, for each bet. Infinite where
        there should be no bet.

        The larger of two log moment generating functions of one centred product: that of Gaussian scores of
        correlation ρ, −½ log((1 − tρ)² − t²) − tρ, and that of the reference's rows, into which half a row of
        independent columns is mixed. Columns that are mostly zero have products far from the former.
        """
        rho = np.clip(self.mean, -0.95, 0.95)[:, None]
        t = bets / np.sqrt(BLOCK) / np.sqrt(1 + rho * rho)
        room = (1 - t * rho) ** 2 - t * t
        psi = np.maximum(-0.5 * np.log(np.maximum(room, _MIN_ROOM)) - t * rho, self._seen_psi(bets / np.sqrt(BLOCK)))
        excess = _HEAVIER * np.maximum(BLOCK * psi - bets**2 / 2, 0.0)
        return np.where((room > _MIN_ROOM) & (np.abs(bets) <= _MAX_BET), excess, np.inf)

    def _seen_psi(self, t: F64) -> F64:
        """(pairs, t) log moment generating function of the standardised products of the reference's rows."""
        psi = np.empty((len(self.mean), len(t)))
        rows = self._rows.shape[1]
        apart = np.roll(self._rows, rows // 3 or 1, axis=1)  # rows of one column beside other rows of the second
        for i, (a, b) in enumerate(zip(self._first.tolist(), self._second.tolist(), strict=True)):
            products = self._rows[a] * self._rows[b]
            mean, spread = float(products.mean()), max(float(products.std()), _LEAST_SPREAD)
            together, independent = (
                np.exp(np.minimum(np.outer(t / spread, x - mean), 50.0)).mean(axis=1)
                for x in (products, self._rows[a] * apart[b])
            )
            psi[i] = np.log((rows * together + 0.5 * independent) / (rows + 0.5))
        return psi

    def _products(self, factors: F32 | F64) -> F64:
        columns = len(factors)
        cells = factors.reshape(columns, -1, BLOCK)
        if len(self._at) * _FEW < columns * columns:
            made: F64 = np.einsum("pbe,pbe->bp", cells[self._first], cells[self._second]).astype(np.float64)
            return made
        cells = cells.transpose(1, 0, 2)
        products = cells @ cells.transpose(0, 2, 1)
        return products.reshape(-1, columns * columns).take(self._at, axis=1).astype(np.float64)


def _rounded(moments: F64) -> F64:
    """To multiples of 2^-20, so that sums over a block stay exact."""
    return np.rint(moments * 2.0**20) / 2.0**20


def _can_pair(score: Score) -> bool:
    return int((score.share > 0).sum()) >= _MIN_BINS and float(score.share[:-2].sum()) >= _LEAST_FILLED


def _factors(score: Score) -> F64:
    """Normal scores standardised under the reference; 0 where a cell holds no number (the last two bins)."""
    share, table = score.share[:-2], score.table[:-2]
    share = share / max(float(share.sum()), 1e-12)
    mean = float(share @ table)
    spread = max(float(np.sqrt(share @ (table - mean) ** 2)), _LEAST_SPREAD)
    made = np.zeros(len(score.table))
    made[:-2] = exact_factors((table - mean) / spread)
    return made


def _score(bins: Binning, first: int, second: int) -> Score:
    one, two = bins.numeric[first], bins.numeric[second]
    kind = "prediction_drift" if one.output and two.output else _KIND
    stream = Stream(f"{one.name} × {two.name}:{LABEL}", kind, "pair", (one.name, two.name))
    return Score(stream, "pair", first, _NONE, _NONE, 0.0, LABEL, second)
