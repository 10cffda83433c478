"""What a daily season may do to blocks before it is known: allowed for until two days of live traffic were seen."""

from __future__ import annotations

import math

import numpy as np

from detectors.base import F64
from detectors.drift.bets import STEPS
from detectors.drift.null import Null
from detectors.drift.scores import BLOCK
from detectors.numeric import normal_quantile


def slipping_swing(swing: F64, memory: float, events_per_day: float) -> F64:
    """Largest residual, in σ, of daily sines of amplitudes `swing` against a memory of `memory` events.

    The residual is swing · ωW/√(1 + ω²W²); the smallest bet is blind below λ₁/(2√n) and needs no allowance for that.
    """
    turn = 2 * math.pi * memory / events_per_day
    return np.maximum(0.0, swing * turn / math.sqrt(1 + turn * turn) - float(STEPS[0]) / 2 / math.sqrt(BLOCK))


def rate_tilt(null: Null, season: F64) -> F64:
    """(P,) factor by which such swings (P,) can raise each rate: exp(δ · Φ⁻¹(1 − p))."""
    if not season.any():
        return np.ones(len(null.k))
    rate = np.clip(null.k / null.b, 1e-6, 0.5)
    return np.exp(-normal_quantile(rate) * season)
