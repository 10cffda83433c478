"""What is bet on a block of 25 labelled predictions: that errors became more likely, or losses larger.

Right or wrong: likelihood ratios of raised odds, each a supermartingale for every rate up to the null's. Losses in
[0, 1]: products of 1 + λ(loss - null), with λ from the spread so far, valid for every law whose mean is at most the
null (betting on bounded means, Waudby-Smith & Ramdas, JRSS B 2024). Logs are divided by the excess variance of runs,
which by Jensen keeps them valid.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from detectors.base import F64

BLOCK: Final = 25
"""Labels a block."""
ODDS: Final = np.array([1.3, 1.6, 2.2, 3.5, 8.0])
"""Factors on the odds of an error that are bet on."""
SHIFTS: Final = np.array([0.1, 0.2, 0.35, 0.6, 1.0])
"""Rises of the mean loss that are bet on, in standard deviations of one loss."""
MIX: Final = np.array([0.2, 0.3, 0.25, 0.15, 0.1])
LEVEL: Final = np.array([6, 6, 5, 4, 2])
"""A small factor or shift is a slow bet: its spread is taken over 2^level blocks."""
MAX_LOG_E: Final = 30.0
_MOST_NULL: Final = 0.95
_MOST_STAKE: Final = 0.8
"""Of the capital, staked on one loss at most."""


def on_errors(wrong: float, null: float) -> F64:
    """(bets,) logs of e-values of `wrong` errors in a block, against a rate of at most `null`."""
    if null >= _MOST_NULL:
        return np.zeros(len(ODDS))
    odds = null / (1 - null) * ODDS
    raised = odds / (1 + odds)
    log: F64 = wrong * np.log(raised / null) + (BLOCK - wrong) * np.log((1 - raised) / (1 - null))
    return log


def on_losses(losses: F64, null: float, variance: float) -> F64:
    """(bets,) logs of e-values of the losses of a block, in [0, 1], against a mean of at most `null`; `variance` is
    that of earlier losses."""
    sd = math.sqrt(max(variance, 1e-6))
    stake = np.minimum(SHIFTS / (sd * (1 + SHIFTS**2)), _MOST_STAKE / max(null, 1e-6))
    log: F64 = np.log1p(stake * (losses[:, None] - null)).sum(axis=0)
    return log


def back_of_errors(wrong: float, before: float, since: float) -> float:
    """Log likelihood ratio of the rate before a fault against midway between it and the rate `since`."""
    before, half = _midway(before, since)
    return wrong * math.log(before / half) + (BLOCK - wrong) * math.log((1 - before) / (1 - half))


def back_of_losses(losses: F64, before: float, since: float, variance: float) -> float:
    """Log e-value for a mean loss as `before` a fault, against one of at least midway between it and that `since`."""
    before, half = _midway(before, since)
    gap = half - before
    stake = min(gap / (variance + gap * gap), _MOST_STAKE / (1 - half))
    return float(np.log1p(stake * (half - losses)).sum())


def _midway(before: float, since: float) -> tuple[float, float]:
    before = min(max(before, 1e-3), 0.98)
    return before, min(max(0.5 * (before + since), before * 1.2), (1 + before) / 2)
