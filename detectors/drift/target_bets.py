"""The target family: each block against the target alone, outside a tolerance. Finds gaps, and slow drift.

The change family forgets, so it is blind to what comes slowly and to what was there from the first event. Here nothing
is absorbed: sums bet E = exp(λz − 1.25 v (λ²/2 + c) − |λ| √n δ), n = 25, with the tolerance δ = 3.8 standard errors of
the target + what traffic may honestly differ by; counts bet against the upper bound of the target's rate. The product
over four blocks is the bet on 100 events with 2λ. What traffic may differ by is an assumed daily swing at the start,
and then the largest departure of a slow mean that the first days have shown.
"""

from __future__ import annotations

import numpy as np

from detectors.base import F64, I64
from detectors.drift.bets import LEAK, MAX_Z, SPLIT, Line, smoothed, stream_weights
from detectors.drift.design_effect import DesignEffect
from detectors.drift.scores import BLOCK, FAMILIES, Family
from detectors.drift.target import GAP, Target
from detectors.numeric import log_mgf_excess

SHARE = 0.15
"""Of the detector's budget."""
STEPS = np.array([0.3, 0.6, 1.2])
BETS = np.concatenate([STEPS, -STEPS])
"""λ of the bets on sums."""
FACTORS = np.array([1.6, 4.0, 15.0])
"""ρ of the bets on counts."""
TARGET_LEAK = LEAK**0.25
"""Its bets are four times slower than those on change."""
_OF_SUMS: tuple[Family, ...] = ("loc", "scale", "cat")
_STEADY: tuple[Family, ...] = ("new", "missing", "range", "type")
"""Counts that no season moves."""
_ERRORS = 3.8
"""Standard errors of the target that are tolerated: some 270 streams share one unlucky reference for ever."""
_TOLERANCE, _STEADY_SWING = 0.05, 0.1
_ROOM = 1.1
"""Tolerance over the largest departure that was seen."""
_LEAST_RATE = 0.001
_MARGIN = 1.25


class TargetBets:
    """The bets, on some streams of the target: scores of one column except shape, and counts except tails."""

    def __init__(self, target: Target, swing: F64, later: F64) -> None:
        """`swing` (G + P,) is the swing in σ to allow for at the start, `later` after the first days; 0 where there is
        no season."""
        families = (*_OF_SUMS, "rare", *_STEADY)
        on = np.flatnonzero(np.isin(target.family, [FAMILIES.index(f) for f in families]))
        self.sums: I64 = on[on < target.sums]
        """The G streams that it bets on."""
        self._rates: I64 = on[on >= target.sums]
        self._counts = self._rates - target.sums
        self._mean, self._spread, self._rows = target.mean[self.sums], target.spread[self.sums], target.rows
        scores = [target.scores[i] for i in self.sums.tolist()]
        self._excess = np.array(
            [log_mgf_excess(s.table, smoothed(s.share, target.rows), BETS, BLOCK) for s in scores]
        ).reshape(len(scores), len(BETS))
        self._seen = target.count[self._counts] + 0.5
        at_start = np.maximum(_TOLERANCE + swing, GAP[target.origin])
        steady = np.isin(target.family[self._rates], [FAMILIES.index(f) for f in _STEADY])
        self._at_start, of_rates = at_start[self.sums], at_start[self._rates]
        self._later, self._rates_later = later[self.sums], _TOLERANCE + later[self._rates]
        self._rates_at_start = np.where(steady, np.minimum(_STEADY_SWING, of_rates), of_rates)
        weight = stream_weights(target, {f: SPLIT[f] for f in families})
        width = np.repeat([len(BETS), len(FACTORS)], [len(self.sums), len(self._rates)])
        behind = len(target.scores)
        self._source = np.repeat(np.concatenate([behind + np.arange(len(self.sums)), self._rates]), width)
        self.stream: I64 = np.repeat(np.concatenate([self.sums, self._rates]), width)
        self.weight: F64 = weight[self.stream] / np.repeat(width, width)
        """(bets,) summing to 1."""

    def line(self, noise: DesignEffect, usual: F64 | None) -> Line:
        """Compile for judging. `usual` (sums,) is the largest departure that the first days have shown, in σ; None
        while they last."""
        of_sums, of_rates = self._at_start, self._rates_at_start
        if usual is not None:
            of_sums, of_rates = np.maximum(_TOLERANCE + self._later, _ROOM * usual), self._rates_later
        tolerance = _ERRORS * np.sqrt(noise.pooled[self.sums] / self._rows) + of_sums
        v = _MARGIN * noise.v[-1]
        penalty = v[self.sums, None] * (BETS**2 / 2 + self._excess)
        penalty += np.abs(BETS) * np.sqrt(BLOCK) * tolerance[:, None]
        seen, p = self._seen, np.minimum(self._seen / self._rows, 0.9)
        bound = (seen + _ERRORS * np.sqrt(seen * noise.pooled[self._rates])) / self._rows
        bound += of_rates * np.sqrt(p * (1 - p)) + _LEAST_RATE
        inverse = 1 / v[self._rates, None]
        cost = BLOCK * bound[:, None] * (FACTORS - 1) * inverse
        slope = np.concatenate([np.tile(BETS, len(self.sums)), (np.log(FACTORS) * inverse).ravel()])
        return Line(self._source, slope, -np.concatenate([penalty.ravel(), cost.ravel()]))

    def departure(self, sums: F64) -> F64:
        """How far the means of blocks with `sums` (..., G) lie from the target, in σ: (..., sums)."""
        return (sums[..., self.sums] / BLOCK - self._mean) / self._spread

    def look(self, sums: F64) -> F64:
        """(blocks, sums) the departures of blocks of sums (blocks, G), in standard errors."""
        z: F64 = self.departure(sums) * np.sqrt(BLOCK)
        return np.clip(z, -MAX_Z, MAX_Z, out=z)

    def joint(self, line: Line, blocks: int, sums: F64, counts: F64) -> F64:
        """Log e (bets,) of `blocks` blocks together, from their total sums (G,) and counts (P,)."""
        z = blocks * np.sqrt(BLOCK) * self.departure(sums / blocks)
        seen = np.concatenate([sums, counts, z])
        log_e: F64 = seen[line.source] * line.slope + blocks * line.base
        return log_e
