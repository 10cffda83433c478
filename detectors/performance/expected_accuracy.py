"""How right a classifier probably is, from its scores alone (confidence-based performance estimation).

The labelled rows of the reference say how often each score was right: rates by score bin, made monotone (isotonic
regression, pool adjacent violators). The mean of these rates over live events estimates their accuracy, as long as
what a score means has not changed: covariate shift is seen, concept drift is not (Białek et al., arXiv 2401.08348).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.base import F64, I64, Context
from detectors.views.bins import I16, Binning, binning

LEAST_ROWS: Final = 200
"""Labelled rows of the reference below which nothing is estimated."""
LEAST_EVENTS: Final = 50


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Estimated share of right answers, with its standard error; `before` is that of the reference's rows."""

    before: float
    now: float
    error: float

    @property
    def drop(self) -> float:
        """By how much it fell at least, two standard errors allowed for."""
        return max(0.0, self.before - self.now - 2 * self.error)


class ExpectedAccuracy:
    """Rates by bin of the score. `columns` are those of score and class among the watched columns."""

    def __init__(self, columns: tuple[int, int], right: F64, share: float, spread: float) -> None:
        self.columns = columns
        self._right = right
        """(score bins, class bins), NaN where a bin says nothing."""
        self._share, self._spread = share, spread

    def of(self, score: I16 | I64, answer: I16 | I64) -> Accuracy | None:
        """The accuracy of events by their bins of score and class, both (n,). None where too few have a score."""
        rates = self._right[score, answer]
        rates = rates[~np.isnan(rates)]
        if len(rates) < LEAST_EVENTS:
            return None
        return Accuracy(
            self._share, float(rates.mean()), math.hypot(float(rates.std()) / math.sqrt(len(rates)), self._spread)
        )


def expected_accuracy(context: Context) -> ExpectedAccuracy | None:
    """The estimate for a model, compiled once; None where the reference has too few labelled rows, or no scores."""
    if "expected_accuracy" not in context.cache:
        context.cache["expected_accuracy"] = _made(context, binning(context))
    made: ExpectedAccuracy | None = context.cache["expected_accuracy"]
    return made


def _made(context: Context, bins: Binning) -> ExpectedAccuracy | None:
    right = context.reference.right
    scores = [j for j, c in enumerate(bins.numeric) if c.output]
    answers = [j for j, c in enumerate(bins.category, len(bins.numeric)) if c.output]
    if right is None or len(scores) != 1 or len(answers) != 1:
        return None
    index = bins.index(context.reference.rows)
    column, answer = bins.numeric[scores[0]], bins.category[answers[0] - len(bins.numeric)]
    score = index[:, scores[0]].astype(np.int64)
    known = ~np.isnan(right) & (score < column.bins - 2) & (index[:, answers[0]] < len(answer.top))
    if known.sum() < LEAST_ROWS:
        return None
    words = context.reference.rows.outputs_category.vocabulary[0]
    # of two classes the score is that of the last one, of more that of the answer
    positive = answer.lookup.get(words[-1], -1) if len(words) == 2 else -1
    is_positive = index[:, answers[0]] == positive
    hit = right == 1 if len(words) != 2 else is_positive == (right == 1)
    rate = np.full(column.bins, np.nan)
    rate[:-2] = _isotonic(score[known], hit[known], column.bins - 2)
    table = np.repeat(rate[:, None], answer.bins, axis=1)
    if len(words) == 2:
        table[:, np.arange(answer.bins) != positive] = 1 - rate[:, None]
    table[:, len(answer.top) :] = np.nan
    estimated = table[score[known], index[known, answers[0]]]
    spread = float(estimated.std()) / math.sqrt(len(estimated))
    return ExpectedAccuracy((scores[0], answers[0]), table, float(estimated.mean()), spread)


def _isotonic(bins: I64, hit: np.ndarray, size: int) -> F64:
    """Rate of hits by bin, not falling with it; a bin without rows has that of the nearest before, else after."""
    n = np.bincount(bins, minlength=size).astype(np.float64)
    hits = np.bincount(bins, hit, minlength=size)
    filled = np.flatnonzero(n)
    pools: list[list[float]] = []
    """Hits, rows, bins of each pool."""
    for i in filled.tolist():
        pools.append([float(hits[i]), float(n[i]), 1.0])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    rates = np.repeat([h / m for h, m, _ in pools], [int(k) for _, _, k in pools])
    nearest = np.maximum(np.searchsorted(filled, np.arange(size), side="right") - 1, 0)
    made: F64 = rates[nearest]
    return made
