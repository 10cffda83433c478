"""The only place that touches raw floats: finite masks, clips, quantile bins, normal scores, log moment functions.

Everything behind this module works on bins, ranks, clipped values and exact sums, so that one NaN, infinity or 1e308
neither blinds a statistic nor owns it.
"""

from __future__ import annotations

from functools import cache
from math import lgamma
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import F64, I64, U8, Bool, Cell

BELOW = 0
"""Bin of values below the reference's smallest. Behind the inner bins follow above, missing and not a number."""
EXTRA_BINS = 3
"""A column with e edges has e + 3 bins: below, e - 1 inner ones, above, missing, not a number."""
_SCORE_STEP = 2.0**-12
_SQUARE_STEP = 2.0**-10
_FACTOR_STEP = 2.0**-7
_MAX_SCORE = 5.0
_ABSURD_RANGES, _ABSURD_SIZES = 1e4, 1e6
_CELLS, _MOST_STEPS = 2_048, 2
_NORMAL = NormalDist()
_VALID, _NULL, _ABSENT, _NOT_FINITE, _MISTYPED, _FILLED = (
    np.uint8(cell) for cell in (Cell.VALID, Cell.NULL, Cell.ABSENT, Cell.NOT_FINITE, Cell.MISTYPED, Cell.FILLED)
)
"""An enumeration compares with an array ten times as slowly."""


def valid(values: F64, status: U8) -> Bool:
    """(n, d): cells that hold a finite number. Non-finite values are no numbers whatever their status says."""
    ok: Bool = ((status == _VALID) | (status == _FILLED)) & np.isfinite(values)
    return ok


def clipped(values: F64, ok: Bool, limit: F64) -> F64:
    """`values` (n, d) clipped to ±`limit` (d,); cells that are not `ok` become 0.0."""
    return np.where(ok, np.clip(np.where(ok, values, 0.0), -limit, limit), 0.0)


def clip_limit(values: F64) -> float:
    """Beyond a thousand times the largest magnitude of the reference a value adds nothing to a mean but noise."""
    return min(1e3 * float(np.max(np.abs(values), initial=0.0)), 1e100) or 1e3


def support(values: F64) -> tuple[float, float]:
    """Smallest and largest of the finite `values` (n,) of a reference column that are not absurd; of none, everything.

    Absurd is what lies farther from the median than ten thousand times the range of the middle 80 %, or, where that is
    nothing, than a million times the median magnitude of values that are not zero: a fault, of which alone a mean
    would speak.
    """
    if not len(values):
        return -np.inf, np.inf
    low, median, high = np.quantile(values, [0.1, 0.5, 0.9], method="inverted_cdf")
    with np.errstate(over="ignore"):
        reach = _ABSURD_RANGES * (high - low)
        if not reach and values.any():
            reach = _ABSURD_SIZES * np.median(np.abs(values[values != 0]))
        kept = values[np.abs(values - median) <= reach] if reach else values
    return float(kept.min()), float(kept.max())


def quantile_edges(values: F64, bins: int) -> F64:
    """Edges of at most about `bins` bins of equal counts between the smallest and the largest of `values` (finite).

    Bin i holds edges[i-1] < x <= edges[i]. Few distinct values get a bin each; a smallest value that occurs often
    (a flag, zeros of a skewed amount) has a bin of its own. Always at least 2 edges, strictly ascending.
    """
    if not len(values):
        values = np.zeros(1)
    distinct, count = np.unique(values, return_counts=True)
    if len(distinct) <= bins:
        edges = distinct
        own = True
    else:
        edges = np.unique(np.quantile(values, np.arange(bins + 1) / bins, method="inverted_cdf"))
        own = bool(count[0] * 2 * bins >= len(values))
    with np.errstate(over="ignore"):  # below the smallest float lies -inf, which is an edge as good
        start = np.nextafter(distinct[0], -np.inf)
    return np.concatenate([[start], edges]) if own else np.concatenate([[start], edges[1:]])


def bin_numbers(values: F64, status: U8, edges: F64, finder: Finder | None = None) -> I64:
    """Bin of every value of one column (n,): below, inner, above, missing (null or absent), not a number. A `finder`
    of the same edges is quicker."""
    finite = bool(np.isfinite(values).all())
    bins: I64 = edges.searchsorted(values, side="left") if finder is None or not finite else finder.bins(values)
    if status.any() or not finite:
        bins[(status == _NULL) | (status == _ABSENT)] = len(edges) + 1
        wrong = (status == _NOT_FINITE) | (status == _MISTYPED) | ((status == _VALID) & ~np.isfinite(values))
        bins[wrong] = len(edges) + 2
    return bins


class Finder:
    """Finds the bin of many finite numbers as `searchsorted` (left) does, some twice as fast: a table over even cells
    of the range tells how many edges lie below a cell, and the few edges within it are compared one after another."""

    def __init__(self, edges: F64) -> None:
        self._edges = np.append(edges, np.inf)
        self._low, self._high = float(edges[0]), float(edges[-1])
        self._steps = 0
        with np.errstate(over="ignore", invalid="ignore"):
            width = self._high - self._low
        if not 1e-300 < width < 1e300:
            return
        self._scale = _CELLS / width
        cell = self._cell(edges)
        steps = int(np.bincount(cell).max())
        if steps <= _MOST_STEPS:
            self._steps = steps
            self._below: I64 = np.searchsorted(cell, np.arange(_CELLS + 2), side="left")

    @property
    def quick(self) -> bool:
        """Whether there is a table."""
        return self._steps > 0

    def bins(self, values: F64) -> I64:
        """(n,) how many edges lie below each of `values`, all finite."""
        if not self._steps:
            return self._edges[:-1].searchsorted(values, side="left")
        found: I64 = self._below.take(self._cell(values))
        for _ in range(self._steps):
            found += self._edges.take(found) < values
        return found

    def _cell(self, values: F64) -> I64:
        """Ascends with the value, rounding included: what lies in a lower cell is smaller."""
        at = np.minimum(np.maximum(values, self._low), self._high)
        at -= self._low
        at *= self._scale
        return at.astype(np.int64)


def normal_quantile(p: npt.ArrayLike) -> F64:
    """Inverse of the standard normal distribution function, elementwise, 0 < p < 1 (Wichura, AS 241)."""
    given = np.asarray(p, np.float64)
    return np.array([_NORMAL.inv_cdf(x) for x in given.ravel().tolist()], np.float64).reshape(given.shape)


def normal_scores(share: F64, rows: int) -> F64:
    """Normal scores of ordered bins that hold `share` (k,) of `rows` rows: mid-rank, so ties share one score."""
    inner = share / max(float(share.sum()), 1e-12)
    rank = np.clip(np.cumsum(inner) - inner / 2, 0.3 / (rows + 1), 1 - 0.3 / (rows + 1))
    return np.clip(normal_quantile(rank), -_MAX_SCORE, _MAX_SCORE)


def exact_scores(scores: F64) -> F64:
    """Scores rounded to multiples of 2^-12: sums over a block are then exact in float32, in any order of adding.

    Results therefore do not depend on batch size, BLAS or SIMD width.
    """
    return np.rint(scores / _SCORE_STEP) * _SCORE_STEP


def exact_squares(scores: F64) -> F64:
    """Squares of scores rounded to multiples of 2^-10, for the same reason (|score| <= 25 and blocks of 25)."""
    return np.rint(scores * scores / _SQUARE_STEP) * _SQUARE_STEP


def exact_factors(scores: F64) -> F64:
    """Scores clipped to ±5 and rounded to multiples of 2^-7: sums over a block (25 events) of products of two are exact
    in float32, and of products of two squares in float64, in any order of adding."""
    return np.rint(np.clip(scores, -_MAX_SCORE, _MAX_SCORE) / _FACTOR_STEP) * _FACTOR_STEP


def log_mgf_excess(scores: F64, share: F64, bets: F64, n: int) -> F64:
    """How far the mean of `n` scores has heavier tails than a Gaussian, for each bet (b,).

    n ψ(λ/√n) − λ²/2, at least 0, with ψ the exact log moment generating function of one standardised score whose
    bins `scores` (k,) have probabilities `share` (k,).
    """
    mean = share @ scores
    spread = np.sqrt(share @ (scores - mean) ** 2) + 1e-9
    exponent = np.minimum(np.outer(bets / np.sqrt(n), (scores - mean) / spread), 50.0)
    excess: F64 = np.maximum(n * np.log(np.exp(exponent) @ share) - bets**2 / 2, 0.0)
    return excess


@cache
def trimmed_chi2_means(upto: int) -> tuple[float, ...]:
    """Mean of the lower 90 % of chi²(ν)/ν for ν = 1 ... `upto`: corrects a trimmed mean of variances.

    With q the 90 % quantile it is F(q; ν + 2)/.9 = 1 − (q/2)^(ν/2) exp(−q/2) / (.9 Γ(ν/2 + 1)).
    """
    half = np.arange(1, upto + 1) / 2
    log_gamma = _log_gamma_halves(upto)
    normal = _NORMAL.inv_cdf(0.9)
    x = half * (1 - 1 / (9 * half) + normal * np.sqrt(1 / (9 * half))) ** 3
    for _ in range(8):
        density = half * np.exp((half - 1) * np.log(x) - x - log_gamma)
        x = np.maximum(x - (_gamma_p(half, x, log_gamma) - 0.9) / density, x / 2)
    return tuple((1 - np.exp(half * np.log(x) - x - log_gamma) / 0.9).tolist())


def _log_gamma_halves(upto: int) -> F64:
    """log Γ(ν/2 + 1) for ν = 1 ... `upto`."""
    return np.array([lgamma(nu / 2 + 1) for nu in range(1, upto + 1)])


def _gamma_p(a: F64, x: F64, log_gamma: F64) -> F64:
    """Regularised lower incomplete gamma function by its series; `log_gamma` is log Γ(a + 1)."""
    term = np.exp(a * np.log(x) - x - log_gamma)
    total = term.copy()
    for n in range(1, 1_000):
        term = term * (x / (a + n))
        total += term
        if float(term.max()) < 1e-16:
            break
    return total


def as_counts(histogram: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Counts of a block, at most 255 each, in one byte."""
    counts: U8 = np.minimum(histogram, 255).astype(np.uint8)
    return counts
