"""Changes that look like a change of unit: every value times a round factor, or degrees of another scale."""

from __future__ import annotations

import math
from typing import NamedTuple

FACTORS = (
    10.0, 100.0, 1_000.0, 10_000.0, 1e5, 1e6, 1e9, 24.0, 60.0, 1_440.0, 3_600.0, 86_400.0,
    2.54, 3.28084, 2.204623, 30.48,
)  # fmt: skip
"""Powers of ten, parts of a day, inches, feet, pounds; each also the other way round. Miles are not among them: a
factor of 1.6 is what an ordinary drift looks like."""
_SCALES = ((1.8, 32.0), (1 / 1.8, -32 / 1.8))
"""Celsius to Fahrenheit and back."""
_PLACE, _SPREAD = 0.04, 1.25
"""How well mean (relative) and spread (ratio) must fit."""
_NEAR_ONE = 0.1
"""A factor below ten must fit the mean this well (relative): an ordinary drift is as large."""
_SMALLEST = 20


class Moments(NamedTuple):
    """Mean and standard deviation of `n` values."""

    mean: float
    sd: float
    n: int


def unit_factor(expected: Moments, observed: Moments) -> float | None:
    """The factor by which `observed` looks like `expected` in another unit, None where it does not.

    Mean and spread must both have moved as the factor says; the mean within its own error and 4 %, for factors below
    ten within 10 % in all. The best fit wins.
    """
    if observed.n < _SMALLEST or expected.sd <= 0 or observed.sd <= 0 or not math.isfinite(observed.mean):
        return None
    fits = []
    for factor, offset in (*((f, 0.0) for f in FACTORS), *((1 / f, 0.0) for f in FACTORS), *_SCALES):
        spread = observed.sd / (factor * expected.sd)
        if not 1 / _SPREAD**2 <= spread <= _SPREAD**2:
            continue
        mean = factor * expected.mean + offset
        if offset and abs(offset) < _PLACE * abs(mean):
            continue  # too large for degrees: the offset would not show
        error = 3 * factor * expected.sd / math.sqrt(observed.n)
        allowed = error + _PLACE * abs(mean)
        if not offset and 0.1 < factor < 10:
            allowed = min(allowed, _NEAR_ONE * abs(mean))
        if abs(observed.mean - mean) <= allowed and abs(mean - expected.mean) > 2 * allowed:
            fits.append((abs(observed.mean - mean) / allowed + abs(math.log(spread)), factor))
    return min(fits)[1] if fits else None
