"""Bets of the change family: how the budget is split over streams, and the log e-value of a block for every bet.

Each block is judged against a null that counts the target and everything seen live so far, so that the uncertainty of
a small reference is integrated out. Sums: recursive residuals of a constant mean, E = exp(λz − v(λ²/2 + c)), c the
exact excess of the score's log-MGF over the Gaussian one. Counts: rate ~ Gamma(a, b), bet "rate × ρ",
log E = k log ρ + a log(1 − n(ρ − 1)/b), the mean of ρ^K under the negative-binomial predictive.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detectors.base import F64, I64, Bets
from detectors.drift.design_effect import DesignEffect
from detectors.drift.null import Null
from detectors.drift.target import BLOCK, FAMILIES, Family, Target
from detectors.numeric import log_mgf_excess

STEPS = np.array([0.75, 1.2, 2.0, 3.2, 5.0])
BETS = np.concatenate([STEPS, -STEPS])
"""λ of the bets on sums."""
FACTORS = np.array([1.7, 3.0, 6.0, 15.0, 0.5])
"""ρ of the bets on counts."""
FACTOR_LEVEL = np.array([6, 5, 4, 3, 6])
"""A small factor is a slow bet: its design effect is taken at a longer horizon (2^level blocks)."""
STEP_LEVEL = np.clip(np.ceil(np.log2(28 / STEPS**2)), 0, 6).astype(np.int64)
LEAK = 0.98
"""Of every capital, per block: a stream of rare counts has E = 1 on quiet days and would hoard its injection."""
SPLIT: dict[Family, float] = {
    "loc": 0.30, "cat": 0.10, "rare": 0.10, "missing": 0.10, "scale": 0.09, "new": 0.09, "range": 0.04, "tail": 0.03,
    "type": 0.02,
}  # fmt: skip
"""Share of the budget by family; equal over the columns that have it, then over their streams."""
_SLOW_FACTORS = np.array([0.25, 0.35, 0.2, 0.05, 0.15])
_FAST_FACTORS = np.array([0.1, 0.25, 0.35, 0.3, 0.0])
_MAX_Z = 8.0
_MAX_LOG_E = 30.0
_MIN_ROOM = 0.02


class Odds(NamedTuple):
    """A null and its penalties compiled for judging blocks: (G,), (G, bets), (P, factors) and (P,) arrays."""

    mean: F64
    scale: F64
    """1 / standard error of a block mean, the null's own uncertainty and its design effect included."""
    learn: F64
    """Turns z into the residual that the design effect learns from."""
    penalty: F64
    slope: F64
    base: F64
    expected: F64
    spread: F64


class ChangeBets:
    """The change family's bets on all streams of a target."""

    def __init__(self, target: Target) -> None:
        self._sums, self._counts = target.sums, target.counts
        width = len(BETS)
        self._excess = np.array(
            [
                log_mgf_excess(s.table, _smoothed(s.share, target.rows), BETS, BLOCK)
                for s in target.scores[: target.sums]
            ]
        ).reshape(target.sums, width)
        weight = _stream_weights(target)
        of_sums = np.repeat(weight[: target.sums, None] / width, width, axis=1)
        slow = np.isin(target.family[target.sums :], [FAMILIES.index("tail"), FAMILIES.index("rare")])
        of_counts = weight[target.sums :, None] * np.where(slow[:, None], _SLOW_FACTORS, _FAST_FACTORS)
        self.weight: F64 = np.concatenate([of_sums.ravel(), of_counts.ravel()])
        self.stream: I64 = np.concatenate(
            [np.repeat(np.arange(target.sums), width), target.sums + np.repeat(np.arange(target.counts), len(FACTORS))]
        )

    def bets(self) -> Bets:
        """As the account wants them: flat, G streams first."""
        return Bets(self.stream, self.weight / self.weight.sum(), np.full(len(self.weight), LEAK))

    def odds(self, null: Null, noise: DesignEffect, season: float, tilt: F64) -> Odds:
        """Compile for judging. `season` is the daily swing (σ) that slips past the memory, `tilt` (P,) its factor on
        rates (see season.py)."""
        own = noise.pooled[: self._sums]
        mean, spread = null.mean_and_spread()
        known = np.sqrt(1 / BLOCK + own / null.m)
        level = noise.v[STEP_LEVEL, : self._sums].T
        penalty = np.hstack([level, level]) * (BETS**2 / 2 + self._excess)
        if season > 0:
            penalty += np.abs(BETS) * np.sqrt(BLOCK) * season
        of_counts = noise.pooled[self._sums :]
        a, b = null.k / of_counts, null.b / of_counts
        raised = tilt[:, None] ** np.where(FACTORS > 1, 1, -1)
        room = 1 - BLOCK * raised * (FACTORS - 1) / b[:, None]
        # where the null is too small for a factor there is no bet: E = 1
        v = np.where(room > _MIN_ROOM, noise.v[FACTOR_LEVEL, self._sums :].T, np.inf)
        expected = BLOCK * null.k / null.b
        return Odds(
            mean=mean,
            scale=1 / (spread * known),
            learn=known / np.sqrt(1 / BLOCK + 1 / null.m),
            penalty=penalty,
            slope=np.log(FACTORS) / v,
            base=a[:, None] * np.log(np.maximum(room, _MIN_ROOM)) / v,
            expected=expected,
            spread=1 / np.sqrt(expected + 1e-3),
        )

    def judge(self, odds: Odds, sums: F64, counts: F64) -> tuple[F64, F64]:
        """For blocks of sums (blocks, G) and counts (blocks, P): log e (blocks, bets) and residuals (blocks, G + P).

        Elementwise and exact in every step, so equal for any number of blocks at a time.
        """
        blocks, width = len(sums), len(BETS)
        z = np.clip((sums / BLOCK - odds.mean) * odds.scale, -_MAX_Z, _MAX_Z)
        log_e = np.empty((blocks, len(self.stream)))
        on_sums = log_e[:, : self._sums * width].reshape(blocks, self._sums, width)
        on_counts = log_e[:, self._sums * width :].reshape(blocks, self._counts, len(FACTORS))
        np.multiply(z[:, :, None], BETS, out=on_sums)
        np.subtract(on_sums, odds.penalty, out=on_sums)
        np.multiply(counts[:, :, None], odds.slope, out=on_counts)
        np.add(on_counts, odds.base, out=on_counts)
        np.minimum(log_e, _MAX_LOG_E, out=log_e)
        residual = np.hstack([z * odds.learn, (counts - odds.expected) * odds.spread])
        return log_e, np.clip(residual, -_MAX_Z, _MAX_Z)


def _stream_weights(target: Target) -> F64:
    """(G + P,) summing to 1."""
    weight: F64 = np.zeros(len(target.scores))
    for i, family in enumerate(FAMILIES):
        own = target.family == i
        columns = np.unique(target.column[own])
        for column in columns.tolist():
            mine = own & (target.column == column)
            weight[mine] = SPLIT[family] / len(columns) / mine.sum()
    weight /= weight.sum()
    return weight


def _smoothed(share: F64, rows: int) -> F64:
    """Half a row more, spread over all bins: a bin that is empty in the reference is not impossible."""
    p: F64 = share + 0.5 / rows / len(share)
    p /= p.sum()
    return p
