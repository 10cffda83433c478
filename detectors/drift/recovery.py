"""Recovery: evidence that a latched stream is back at its old law, against half the fault that was seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from detectors.base import F64
from detectors.drift.bets import MAX_Z
from detectors.drift.null import Null
from detectors.drift.scores import BLOCK
from detectors.drift.target import F32

_MIN_SHIFT, _MAX_SHIFT = 0.2, 1.25
_MIN_FACTOR = 1.2


@dataclass(slots=True)
class Fault:
    """A latch of this detector: its streams, what its leading stream showed, and the evidence since the last group.

    `shift` is the mean residual a block since the onset, `rate` the rate of a counted stream. A `follower` belongs
    to another detector's alarm and opens with it.
    """

    key: str
    streams: tuple[int, ...]
    leading: int
    shift: float
    rate: float
    follower: bool
    gain: float = 0.0


def gain_of_sum(residual: float, shift: float) -> float:
    """Log likelihood ratio of "no change" to half the shift (at most 1.25: the estimate at an alarm is too large)."""
    d = math.copysign(min(max(abs(0.5 * shift), _MIN_SHIFT), _MAX_SHIFT), shift)
    return d * d / 2 - d * residual


def gain_of_count(count: float, rate: float, null: float, n: float = BLOCK) -> float:
    """The same for a count among `n` events with Poisson law: rate `null` against midway between it and `rate`."""
    half = 0.5 * (rate + null)
    half = max(half, null * _MIN_FACTOR) if rate >= null else min(half, null / _MIN_FACTOR)
    return n * (half - null) - count * float(np.log(half / null))


def gain_of(fault: Fault, null: Null, v: float, residual: F32, counts: F64) -> float:
    """Gain of a block of residuals (G + P,) and counts (P,) where the design effect is `v`."""
    v, j = max(v, 1.0), fault.leading - len(null.m)
    if j < 0:
        return gain_of_sum(min(max(float(residual[fault.leading]), -MAX_Z), MAX_Z), fault.shift) / v
    return gain_of_count(float(counts[j]), fault.rate, float((null.k[j] + 0.2) / null.b[j])) / v
