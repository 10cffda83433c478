"""What is normal for one series of windows: season, autocorrelation and tails, and the e-values of the next window.

A series is differenced against its season (harmonics of day and week, hours of the week, kept only where held-out
days are predicted better), whitened by AR(1), and each innovation becomes a normal score: by its rank within the
history, and beyond the outer twentieth by a generalised Pareto tail fitted to it. A bet λ on the score z has
E = exp(λz − pen − |λ|δ): pen covers the autocorrelation that is left (variance-time curve at the bet's horizon, and
the empirical log moment function of its sums), δ the error of estimating all this from a finite history.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from detectors.base import F64, Bool
from detectors.numeric import normal_quantile

STEPS = np.array([0.5, 1.0, 2.0, 3.5])
BETS = np.concatenate([STEPS, -STEPS])
"""λ of the bets: upward, then downward."""
MIN_WINDOWS = 200
"""Windows from which a first baseline is learnt; none is judged before."""
DAY = 86_400.0
_SEASON_DAYS, _WEEK_DAYS = 3.0, 14.0
_EARLY_TOLERANCE = 0.5
"""Added to δ until a day is known: a daily swing looks like a change to whom has not seen a day."""
_WEEK = 7 * DAY
_SLOTS = 0.0
"""In place of a period: one term for each of the 168 hours of the week."""
_TAIL = 0.05
_MAX_Z = 6.0
_MEANINGLESS = 0.1
"""Of the smallest change of interest: variation that says nothing about how a series moves, and no scale of a tail."""
_MAX_PHI = 0.98
_NORMAL = NormalDist()


class Tail(NamedTuple):
    """Generalised Pareto tail beyond `start`, which `share` of the history exceeds."""

    start: float
    scale: float
    shape: float
    share: float

    def chance(self, value: float) -> float:
        """Probability of a value this far out."""
        grown = math.log1p(self.shape * (value - self.start) / self.scale)
        return self.share * math.exp(-grown / self.shape)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted baseline. `values` are in the transformed units of the channel."""

    harmonics: tuple[float, ...]
    """Periods in seconds of the sine pairs in `season`; 0 stands for the hours of the week."""
    season: F64
    """Intercept, then sine and cosine of each harmonic, or one term for each hour of the week."""
    phi: float
    ordered: F64
    """Innovations of the history, ascending."""
    upper: Tail
    lower: Tail
    penalty: F64
    """(bets,): pen + |λ|δ."""
    level: tuple[float, float]
    """Range that deviations from the season keep to."""

    def expected(self, time: float) -> float:
        """The season at `time`."""
        return float(_design(np.array([time]), self.harmonics)[0] @ self.season)

    def score(self, innovation: float) -> float:
        """Normal score of one innovation, within ±6."""
        n = len(self.ordered)
        left = int(np.searchsorted(self.ordered, innovation, side="left"))
        right = int(np.searchsorted(self.ordered, innovation, side="right"))
        below = ((left + right) / 2 + 0.5) / (n + 1)
        above = 1.0 - below
        if innovation > self.upper.start:
            above = min(above, self.upper.chance(innovation))
        elif innovation < -self.lower.start:
            below = min(below, self.lower.chance(-innovation))
        tail = max(min(above, below), 1e-300)
        score = min(-_NORMAL.inv_cdf(min(tail, 0.5)), _MAX_Z)
        return score if above < below else -score

    def log_e(self, score: float) -> F64:
        """Log e-values of a window with this score, one a bet."""
        made: F64 = BETS * score - self.penalty
        return made


def fit(time: F64, values: F64, window: float, floor: float) -> Baseline:
    """Baseline of a history: window start times (n,) ascending, finite `values` (n,), n >= 16.

    `window` is their distance in seconds; `floor` the smallest change of interest, in units of the values. Tails are as
    steep as the history shows them down to a tenth of it: how far a score may go is for the caller to bound.
    """
    clipped = _winsorised(values)
    following = np.concatenate([[False], np.diff(time) < 1.5 * window])
    least = floor * _MEANINGLESS
    harmonics = _choose_season(time, clipped, following, window, least)
    season, phi = _solve(time, clipped, following, harmonics, least)
    residual = values - _design(time, harmonics) @ season
    innovation = residual.copy()
    innovation[1:] -= np.where(following[1:], phi * residual[:-1], 0.0)
    if _SLOTS in harmonics:  # so many terms bring the history nearer to its season than what will come
        innovation *= math.sqrt(len(values) / max(len(values) - len(season), len(values) / 2))
    ordered = np.sort(innovation)
    upper, lower = _tail(ordered, least), _tail(-ordered[::-1], least)
    draft = Baseline(harmonics, season, phi, ordered, upper, lower, np.zeros(len(BETS)), (0.0, 0.0))
    scores = _scores(draft, innovation)
    tolerance = _EARLY_TOLERANCE if time[-1] - time[0] < DAY else 0.0
    low, high = np.quantile(residual, [0.005, 0.995])
    margin = 0.1 * (high - low) + floor
    return Baseline(
        harmonics, season, phi, ordered, upper, lower, _penalties(scores, tolerance),
        (float(low - margin), float(high + margin)),
    )  # fmt: skip


def _winsorised(values: F64) -> F64:
    middle = float(np.median(values))
    spread = float(np.median(np.abs(values - middle))) or float(np.std(values)) or 1.0
    kept: F64 = np.clip(values, middle - 8 * spread, middle + 8 * spread)
    return kept


def _choose_season(time: F64, values: F64, following: Bool, window: float, least: float) -> tuple[float, ...]:
    """The season that predicts held-out days best: none, harmonics of the day, of day and week, or with slots."""
    span = float(time[-1] - time[0])
    candidates: list[tuple[float, ...]] = [()]
    if span >= _SEASON_DAYS * DAY and window <= DAY / 12:
        daily = tuple(DAY / k for k in range(1, 5))
        candidates.append(daily)
        if span >= _WEEK_DAYS * DAY:
            weekly = (*daily, *(_WEEK / k for k in (1, 2, 3, 4, 5, 6, 8, 9)))
            candidates += [weekly, (*weekly, _SLOTS)]
    if len(candidates) == 1:
        return ()
    fold = (time // DAY).astype(np.int64) % 3
    errors = []
    for harmonics in candidates:
        total = 0.0
        for held in range(3):
            kept = fold != held
            season, phi = _solve(time[kept], values[kept], following[kept], harmonics, least)
            residual = values - _design(time, harmonics) @ season
            error = residual[1:] - np.where(following[1:], phi * residual[:-1], 0.0)
            total += float((error[~kept[1:]] ** 2).sum())
        errors.append(total)
    return candidates[int(np.argmin(errors))]


def _solve(
    time: F64, values: F64, following: Bool, harmonics: tuple[float, ...], least: float
) -> tuple[F64, float]:  # fmt: skip
    """Season and AR(1) coefficient: least squares, then once more on the whitened series.

    The coefficient is as of a series measured with an error of `least`: rounding errors of a constant are no memory,
    which would predict every value from the one before and so take any change for normal after one window.
    """
    design = _design(time, harmonics)
    phi = 0.0
    season: F64 = np.zeros(design.shape[1], np.float64)
    for _ in range(2):
        rows, target = design.copy(), values.copy()
        rows[1:] -= np.where(following[1:, None], phi * design[:-1], 0.0)
        target[1:] -= np.where(following[1:], phi * values[:-1], 0.0)
        ridge = np.eye(design.shape[1]) * 0.02 * len(values) / 100
        ridge[0, 0] = 1e-9
        solved = np.linalg.solve(rows.T @ rows + ridge * (1 - phi) ** 2, rows.T @ target)
        season = np.asarray(solved, np.float64)
        residual = values - design @ season
        pairs = following[1:]
        power = float((residual[:-1][pairs] ** 2 + least * least).sum())
        phi = float((residual[1:][pairs] * residual[:-1][pairs]).sum()) / power if power > 0 else 0.0
        phi = 0.0 if abs(phi) < 0.05 else min(max(phi, -0.5), _MAX_PHI)
    return season, phi


def _design(time: F64, harmonics: tuple[float, ...]) -> F64:
    columns = [np.ones(len(time))]
    for period in harmonics:
        if period == _SLOTS:
            hour = (time % _WEEK // 3_600).astype(np.int64)
            columns += list((hour == np.arange(168)[:, None]).astype(np.float64))
            continue
        angle = 2 * math.pi * (time % period) / period
        columns += [np.sin(angle), np.cos(angle)]
    return np.stack(columns, axis=1)


def _tail(ordered: F64, floor: float) -> Tail:
    """Upper tail of ascending values by the moments of their excesses over the outer twentieth."""
    n = len(ordered)
    k = max(8, int(_TAIL * n))
    start = float(ordered[n - k - 1])
    excess = np.maximum(ordered[n - k :] - start, 0.0)
    mean, variance = float(excess.mean()), float(excess.var())
    shape = 0.5 * (1 - mean * mean / variance) if variance > 0 else 0.0
    shape = min(max(shape + 1 / math.sqrt(k), 0.1), 0.5)
    return Tail(start, max(mean * (1 - shape), floor), shape, (k + 1) / (n + 1))


def _scores(baseline: Baseline, innovations: F64) -> F64:
    """Scores of the history itself, as `score` gives them one by one."""
    n = len(innovations)
    left = np.searchsorted(baseline.ordered, innovations, side="left")
    right = np.searchsorted(baseline.ordered, innovations, side="right")
    inner = normal_quantile(((left + right) / 2 + 0.5) / (n + 1))
    outside = np.flatnonzero((innovations > baseline.upper.start) | (innovations < -baseline.lower.start))
    for i in outside.tolist():
        inner[i] = baseline.score(float(innovations[i]))
    return inner


def _penalties(scores: F64, tolerance: float) -> F64:
    """pen + |λ|δ of every bet."""
    n = len(scores)
    made = np.zeros(len(BETS))
    slow = 1.0
    for i, strength in enumerate(STEPS.tolist()):
        horizon = 1
        while 2 * horizon <= 28 / strength**2 and n / (2 * horizon) >= 16:
            horizon *= 2
        v = _variance(scores, horizon)
        slow = v if i == 0 else slow
        delta = tolerance + 2.5 * math.sqrt(slow / n)
        for j in (i, i + len(STEPS)):
            made[j] = max(v * strength**2 / 2, _bandwidth(scores, float(BETS[j]), horizon)) + strength * delta
    return made


def _variance(scores: F64, horizon: int) -> float:
    """Variance of sums over `horizon` windows per window, shrunk to 1 and with a margin for its own error; >= 1."""
    sums = _sums(scores, horizon)
    nu = len(scores) / horizon
    v = (nu * float(np.mean(sums**2)) / horizon + 20.0) / (nu + 20.0)
    return max(v, 1.0) * (1 + math.sqrt(2 / (nu + 20)))


def _bandwidth(scores: F64, bet: float, longest: int) -> float:
    """Largest growth per window of exp(λ·sum) over any horizon up to `longest` that the history itself showed."""
    worst, horizon = 0.0, 1
    while horizon <= longest:
        powers = np.exp(np.clip(bet * _sums(scores, horizon), -60.0, 60.0))
        n = len(powers)
        worst = max(worst, math.log((float(powers.sum()) + 2 * float(powers.max())) / n) / horizon)
        horizon *= 2
    return worst


def _sums(scores: F64, horizon: int) -> F64:
    total = np.concatenate([[0.0], np.cumsum(scores)])
    made: F64 = total[horizon:] - total[:-horizon]
    return made
