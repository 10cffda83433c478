"""Bets of the change family: how the budget is split over streams, and the log e-value of a block for every bet.

Each block is judged against a null that counts the target and everything seen live so far, so that the uncertainty of
a small reference is integrated out. Sums: recursive residuals of a constant mean, E = exp(λz − v(λ²/2 + c)), c the
exact excess of the score's log-MGF over the Gaussian one. Counts: rate ~ Gamma(a, b), bet "rate × ρ",
log E = k log ρ + a log(1 − n(ρ − 1)/b), the mean of ρ^K under the negative-binomial predictive.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detectors.base import F64, I64, Bool
from detectors.drift.design_effect import DesignEffect
from detectors.drift.null import Null
from detectors.drift.scores import BLOCK, FAMILIES, Family
from detectors.drift.target import F32, Target
from detectors.numeric import log_mgf_excess

STEPS = np.array([0.75, 1.2, 2.0, 3.2, 5.0])
STEP_SHARES = np.array([0.25, 0.34, 0.23, 0.11, 0.07])
"""Of a stream's budget: small changes give least evidence an event, and gain most by what they are given."""
BETS = np.concatenate([STEPS, -STEPS])
"""λ of the bets on scores of one column."""
_PAIR_STEPS = STEPS[:4]
PAIR_BETS = np.concatenate([_PAIR_STEPS, -_PAIR_STEPS])
"""λ of the bets on pairs: products have tails too heavy for a larger one."""
PAIR_SHARES = np.array([0.2, 0.3, 0.3, 0.2])
FACTORS = np.array([1.7, 3.0, 6.0, 15.0, 0.5])
"""ρ of the bets on counts."""
FACTOR_LEVEL = np.array([6, 5, 4, 3, 6])
"""A small factor is a slow bet: its design effect is taken at a longer horizon (2^level blocks)."""
STEP_LEVEL = np.clip(np.ceil(np.log2(28 / STEPS**2)), 0, 6).astype(np.int64)
SUM_LEAK, LEAK = 1.0, 0.98
"""Of the capital of bets on sums and on known gaps, and of all others, per block: a stream of rare counts has E = 1 on
quiet days and would hoard its injection; a sum pays for every block."""
SPLIT: dict[Family, float] = {
    "loc": 0.47, "cat": 0.09, "rare": 0.06, "missing": 0.13, "pair": 0.07, "scale": 0.05, "new": 0.055, "range": 0.025,
    "tail": 0.02, "shape": 0.015, "type": 0.015,
}  # fmt: skip
"""Share of the budget by family; equal over the columns (or pairs) that have it, then over their streams."""
_SLOW_FACTORS = np.array([0.25, 0.35, 0.2, 0.05, 0.15])
_FAST_FACTORS = np.array([0.1, 0.25, 0.35, 0.3, 0.0])
_GAP_FACTORS = np.array([0.1, 0.3, 0.42, 0.18, 0.0])
_KNOWN_SHARE = 0.002
KNOWN_GAPS = 4.0
"""Of what is for missing values, columns that lack some in the target get so many times as much."""
MAX_Z = 8.0
"""Of bets, of noise and of onsets; explanations need residuals up to KEPT_Z."""
KEPT_Z = 1e3
_MAX_LOG_E = 30.0
_MIN_ROOM = 0.02


class Line(NamedTuple):
    """log e of bet k is slope[k] · x[source[k]] + base[k], with x = z (G), counts (P) and departures: (bets,)
    arrays. From `capped` on bets look at what has no bound; no z is worth more than the cap."""

    source: I64
    slope: F64
    base: F64
    capped: int = 0


class Prices(NamedTuple):
    """What bets cost, as long as the design effect stands: `line` with the slopes of all and the bases of bets on sums;
    of bets on counts 1/v, of the bet over of the null, and the room that a factor takes per event of the null,
    (P, factors); v of a null, (G + P,)."""

    line: Line
    inverse: F64
    room: F64
    pooled: F64


class Odds(NamedTuple):
    """A null and the prices compiled for judging blocks: `line`, then (G,) and (P,) arrays."""

    line: Line
    mean: F64
    scale: F64
    """1 / standard error of a block mean, the null's own uncertainty and its design effect included."""
    learn: F64
    """Turns z into the residual that the design effect learns from."""
    expected: F64
    spread: F64


class ChangeBets:
    """The change family's bets on all streams of a target: on single scores, then on pairs, then on counts."""

    def __init__(self, target: Target) -> None:
        self._linear, self._sums, self._counts = target.linear, target.sums, target.counts
        pairs = self._sums - self._linear
        width, pair_width = len(BETS), len(PAIR_BETS)
        self._excess = np.array(
            [
                log_mgf_excess(s.table, smoothed(s.share, target.rows), BETS, BLOCK)
                for s in target.scores[: self._linear]
            ]
        ).reshape(self._linear, width)
        self._pair_excess = target.pairs.excess(PAIR_BETS)
        weight = stream_weights(target, SPLIT)
        of_counts = weight[self._sums :, None] * _factor_shares(target)
        self._counts_at = self._linear * width + pairs * pair_width
        self.weight: F64 = np.concatenate(
            [
                np.outer(weight[: self._linear], np.tile(STEP_SHARES, 2) / 2).ravel(),
                np.outer(weight[self._linear : self._sums], np.tile(PAIR_SHARES, 2) / 2).ravel(),
                of_counts.ravel(),
            ]
        )
        """(bets,) summing to 1."""
        of_counts_leak = np.where(known_gaps(target)[self._sums :], SUM_LEAK, LEAK)
        self.leak = np.concatenate([np.full(self._counts_at, SUM_LEAK), np.repeat(of_counts_leak, len(FACTORS))])
        self._bets_on_sums = np.concatenate([np.tile(BETS, self._linear), np.tile(PAIR_BETS, pairs)])
        bets_of = np.repeat([width, pair_width, len(FACTORS)], [self._linear, pairs, self._counts])
        self.stream: I64 = np.repeat(np.arange(len(target.scores)), bets_of)

    def prices(self, noise: DesignEffect, season: F64, tilt: F64) -> Prices:
        """For the design effect as it stands. `season` (G,) is the daily swing (σ) that slips past the memory, `tilt`
        (P,) its factor on rates (see season.py)."""
        level = noise.v[STEP_LEVEL, : self._sums].T
        of_pairs = level[self._linear :, : len(_PAIR_STEPS)]
        penalty = np.tile(level[: self._linear], 2) * (BETS**2 / 2 + self._excess)
        pair_penalty = np.tile(of_pairs, 2) * (PAIR_BETS**2 / 2 + self._pair_excess)
        if season.any():
            penalty += np.abs(BETS) * np.sqrt(BLOCK) * season[: self._linear, None]
            pair_penalty += np.abs(PAIR_BETS) * np.sqrt(BLOCK) * season[self._linear :, None]
        raised = tilt[:, None] ** np.where(FACTORS > 1, 1, -1)
        inverse = 1 / noise.v[FACTOR_LEVEL, self._sums :].T
        slope = np.concatenate([self._bets_on_sums, (np.log(FACTORS) * inverse).ravel()])
        base = np.concatenate([-penalty.ravel(), -pair_penalty.ravel(), np.zeros(inverse.size)])
        of_counts = noise.pooled[self._sums :, None]
        room = BLOCK * raised * (FACTORS - 1) * of_counts
        return Prices(Line(self.stream, slope, base, self._counts_at), inverse / of_counts, room, noise.pooled)

    def odds(self, null: Null, prices: Prices) -> Odds:
        """Compile for judging. Further bets may follow those of this family in the line of `prices`."""
        mean, spread = null.mean_and_spread()
        share = 1 / null.m
        known = np.sqrt(1 / BLOCK + prices.pooled[: self._sums] * share)
        room = 1 - prices.room * (1 / null.b)[:, None]
        cost = np.log(np.maximum(room, _MIN_ROOM))
        cost *= null.k[:, None]
        cost *= prices.inverse
        slope, base = prices.line.slope, prices.line.base.copy()
        of_counts_at = slice(self._counts_at, len(self.weight))
        # where the null is too small for a factor there is no bet: E = 1
        off = room <= _MIN_ROOM
        if off.any():
            cost[off] = 0.0
            slope = slope.copy()
            slope[of_counts_at][off.ravel()] = 0.0
        base[of_counts_at] = cost.ravel()
        expected = BLOCK * null.k / null.b
        return Odds(
            line=prices.line._replace(slope=slope, base=base),
            mean=mean,
            scale=1 / (spread * known),
            learn=known / np.sqrt(1 / BLOCK + share),
            expected=expected,
            spread=1 / np.sqrt(expected + 1e-3),
        )

    def look(self, odds: Odds, level: F64, counts: F64, z: F64, residual: F32) -> None:
        """For blocks of mean scores `level` (blocks, G) and counts (blocks, P) fill z (blocks, G) and residuals
        (blocks, G + P). Elementwise in every step, so equal for any number of blocks at a time."""
        g = self._sums
        np.subtract(level, odds.mean, out=z)
        z *= odds.scale
        residual[:, :g] = z * odds.learn
        residual[:, g:] = (counts - odds.expected) * odds.spread
        np.maximum(z, -MAX_Z, out=z)
        np.minimum(z, MAX_Z, out=z)


def log_e_values(line: Line, seen: F64) -> F64:
    """(blocks, bets) log e of bets that look at `seen` (blocks, x)."""
    log_e: F64 = seen.take(line.source, axis=1)
    log_e *= line.slope
    log_e += line.base
    unbounded = log_e[:, line.capped :]
    np.minimum(unbounded, _MAX_LOG_E, out=unbounded)
    return log_e


def joined(one: Line, two: Line) -> Line:
    """The bets of both."""
    source, slope, base = (np.concatenate(pair) for pair in zip(one[:3], two[:3], strict=True))
    return Line(source, slope, base, one.capped)


def stream_weights(target: Target, split: dict[Family, float]) -> F64:
    """(G + P,) summing to 1: what `split` gives each family, over its columns, then equal over their streams. Columns
    have equal parts, but those that lack values even in the target KNOWN_GAPS as much of what is for missing values: a
    rate that is not 0 needs more evidence to be too high."""
    weight: F64 = np.zeros(len(target.scores))
    place = np.where(target.family == FAMILIES.index("pair"), -1 - np.arange(len(weight)), target.column)
    for family, share in split.items():
        own = target.family == FAMILIES.index(family)
        places, at, streams = np.unique(place[own], return_inverse=True, return_counts=True)
        part = np.ones(len(places))
        if family == "missing":
            part[at[known_gaps(target)[own]]] = KNOWN_GAPS
        weight[own] = (share * part / max(part.sum(), 1.0) / streams)[at]
    weight /= weight.sum()
    return weight


def known_gaps(target: Target) -> Bool:
    """(G + P,) streams of missing values of columns that lack some even in the target."""
    made: Bool = (target.family == FAMILIES.index("missing")) & (target.share >= _KNOWN_SHARE)
    return made


def smoothed(share: F64, rows: int) -> F64:
    """Half a row more, spread over all bins: a bin that is empty in the reference is not impossible."""
    p: F64 = share + 0.5 / rows / len(share)
    p /= p.sum()
    return p


def _factor_shares(target: Target) -> F64:
    """(P, factors) how a stream's weight is split over its factors."""
    slow = np.isin(target.family[target.sums :], [FAMILIES.index("tail"), FAMILIES.index("rare")])
    shares = np.where(slow[:, None], _SLOW_FACTORS, _FAST_FACTORS)
    shares[known_gaps(target)[target.sums :]] = _GAP_FACTORS
    return shares
