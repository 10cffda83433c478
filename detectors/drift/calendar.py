"""What hour and weekday do to the scores of a model, learnt from a reference with times, so that it is not drift.

A linear model of block means on the time of their events: four harmonics of the day, and where whole weeks are held
weekdays and the other day of weekends. A stream has a season only where days (or weeks) that were held out are better
predicted with it than without; how far the curves learnt without one fold lie apart says how wrong the curve may be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from detectors.base import F64, I64, Bool, Context
from detectors.drift.scores import BLOCK, FAMILIES
from detectors.drift.target import Target
from detectors.reference import Reference

Period = Literal["none", "day", "week"]
LEAST_DAYS, LEAST_WEEKS = 2, 2
"""Whole periods that a reference must cover."""
QUARTER = 900.0
"""Seconds; within a quarter of an hour a season stands still."""
_DAY, _WEEK = 96, 672
_MONDAY = 4 * _DAY
"""Quarters from 1970-01-01, a Thursday, to a Monday."""
_DAILY = 8
_STEP = 2.0**-20
"""Features are multiples of it, so that sums over a block are exact in any order of adding."""
_RIDGE = 0.005
"""Of the number of blocks, on features of variance about 1/2."""
_LEAST_GAIN = 0.02
"""Of the held-out variance of block means, besides what as many idle features would cost."""
_MOST_FOLDS = 7
_ERRORS = 2.0
_POOLED = 4.0
"""Folds that the error of a whole family is worth for each of its streams."""
_PEAK = 0.95
_LEAST_LEFT = 0.1
"""Share of an event's variance that a season never explains: a column that shows the time is not known for certain."""


@dataclass(frozen=True)
class Calendar:
    """The season of each stream: of a block with mean features f, (f − centre) · slopes is added to its mean scores.

    `slopes` (features, G) are 0 where `period` (G + P,) is "none" (0); 1 is "day", 2 "week". Counted streams have no
    slopes: their season is allowed for. `swing` (G + P,) is the amplitude in σ that may be left after that.
    """

    table: F64
    centre: F64
    slopes: F64
    period: I64
    explained: F64
    """(G + P,) share of the variance of block means that the season predicts in days held out."""
    amplitude: F64
    """(G + P,) of what is taken away, in σ."""
    swing: F64
    gap: F64
    """(G + P,) the swing around the target that is not drift: larger where the reference does not show whole weeks."""
    extra: F64
    """(G,) variance to add to that of the residuals, where the season explains nearly everything, and of categories
    that are more uncertain at some hours than at others."""

    def features(self, time: F64) -> F64:
        """(blocks, features) mean features of blocks, from the times (blocks · 25,) of their events."""
        made: F64 = self.table[quarters(time)].reshape(-1, BLOCK, self.table.shape[1]).sum(axis=1) / BLOCK
        return made

    def without(self, time: F64, sums: F64, squares: F64) -> tuple[F64, F64]:
        """Sums and squares (blocks, G) of blocks less their season. Elementwise in every step, so equal for any number
        of blocks at a time."""
        season = self.at(time)
        left = sums - BLOCK * season
        spread = squares - 2 * season * sums + BLOCK * (season * season + self.extra)
        return left, np.where(self.period[: sums.shape[1]] > 0, spread, squares)

    def at(self, time: F64) -> F64:
        """(blocks, G) what the season adds to mean scores, by the times (blocks · 25,) of the events of blocks."""
        season: F64 = np.zeros((len(time) // BLOCK, self.slopes.shape[1]))
        for own, column in zip(self.slopes, (self.features(time) - self.centre).T, strict=True):
            season += column[:, None] * own
        return season


def quarters(time: F64) -> I64:
    """The quarter of the week, UTC, of each time (n,)."""
    number: I64 = np.floor(time / QUARTER).astype(np.int64)
    return (number - _MONDAY) % _WEEK


def learnt(reference: Reference, target: Target, assumed: float) -> Calendar | None:
    """The calendar of an ordered reference that covers two whole days; None of any other. `assumed` is the swing (σ)
    that is allowed for where nothing is known, 0 where the user says that there is no season."""
    if not reference.ordered or assumed <= 0:
        return None
    blocks = len(reference) // BLOCK
    time = reference.rows.time
    days, hours = _covered(time)
    if days < LEAST_DAYS or blocks < 2 * _DAILY or not hours.any():
        return None
    table = _table(hours)
    time = time[: blocks * BLOCK]
    sums, squares, counts = target.block_sums(target.binning.index(reference.rows)[: blocks * BLOCK])
    seen = table[quarters(time)].reshape(blocks, BLOCK, -1).sum(axis=1) / BLOCK
    day = np.floor(time[BLOCK // 2 :: BLOCK] / 86_400).astype(np.int64)
    of_day = _fit(seen[:, :_DAILY], np.hstack([sums, counts]) / BLOCK, _folds(day, 1))
    fits = [of_day]
    if days >= 7 * LEAST_WEEKS and blocks >= 2 * table.shape[1]:
        fits.append(_fit(seen, np.hstack([sums, counts]) / BLOCK, _folds(day, 7)))
    chosen = _chosen(table, seen, fits, target, assumed)
    left = chosen.without(time, sums, squares)[1].mean(axis=0) / BLOCK - target.mean**2
    least = np.maximum(_LEAST_LEFT * target.spread**2, _at_its_peak(chosen, seen, target))
    return replace(chosen, extra=np.maximum(0.0, least - left))


def calendar(context: Context, target: Target, assumed: float) -> Calendar | None:
    """`learnt` of the model's reference, once for all detectors that assume the same."""
    key = f"drift.calendar {assumed}"
    if key not in context.cache:
        context.cache[key] = learnt(context.reference, target, assumed)
    made: Calendar | None = context.cache[key]
    return made


class Allowance(NamedTuple):
    """Swings in σ that are not drift, (G + P,) each."""

    start: F64
    """From block to block, until the first days were seen."""
    later: F64
    """The same after that: a learnt season is never quite right."""
    gap: F64
    """Around the target, until the first days were seen."""


def allowance(calendar: Calendar | None, assumed: float, target: Target) -> Allowance:
    """What the calendar leaves, or all that is assumed."""
    if calendar is None:
        whole = np.full(len(target.scores), assumed)
        return Allowance(whole, np.zeros_like(whole), whole)
    return Allowance(calendar.swing, np.where(calendar.period > 0, calendar.swing, 0.0), calendar.gap)


@dataclass(frozen=True)
class _Fit:
    """One model of all streams y (blocks, streams): `slopes` (features, y), the rest (y,)."""

    slopes: F64
    gain: F64
    """1 − held-out squared error over that of the held-out mean."""
    amplitude: F64
    """Root mean square of the curve over the blocks."""
    error: F64
    """Mean square of the curve's own error, by the folds."""
    folds: int

    def swing(self, sd: F64, family: I64) -> F64:
        """Amplitude of an error twice as large as the usual one, in σ. Few folds tell little: each stream is shrunk to
        its family."""
        own = self.error / sd**2
        pool = np.array([own[family == f].mean() for f in range(len(FAMILIES)) if (family == f).any()])
        of_family = pool[np.unique(family, return_inverse=True)[1]]
        told = self.folds - 1
        shrunk: F64 = np.sqrt(2 * (told * own + _POOLED * of_family) / (told + _POOLED))
        return _ERRORS * shrunk


def _fit(x: F64, y: F64, fold: I64) -> _Fit:
    folds = int(fold.max()) + 1
    slopes, _ = _ridge(x, y)
    curve = (x - x.mean(axis=0)) @ slopes
    missed, plain, apart = np.zeros(y.shape[1]), np.zeros(y.shape[1]), np.zeros(y.shape[1])
    for k in range(folds):
        out = fold == k
        own, level = _ridge(x[~out], y[~out])
        centre = x[~out].mean(axis=0)
        rest = y[out] - level
        # a level of its own for each fold: what wanders from day to day is no season
        by_season = rest - (x[out] - centre) @ own
        missed += ((by_season - by_season.mean(axis=0)) ** 2).sum(axis=0)
        plain += ((rest - rest.mean(axis=0)) ** 2).sum(axis=0)
        apart += (((x - x.mean(axis=0)) @ own - curve) ** 2).mean(axis=0)
    error = apart * (folds - 1) / folds
    gain = np.where(plain > 0, 1 - missed / np.maximum(plain, 1e-12), 0.0)
    return _Fit(slopes, gain, np.sqrt((curve**2).mean(axis=0)), error, folds)


def _ridge(x: F64, y: F64) -> tuple[F64, F64]:
    level, centred = y.mean(axis=0), x - x.mean(axis=0)
    square = centred.T @ centred + _RIDGE * len(x) * np.eye(x.shape[1])
    slopes: F64 = np.linalg.solve(square, centred.T @ (y - level))
    return slopes, level


def _chosen(table: F64, seen: F64, fits: list[_Fit], target: Target, assumed: float) -> Calendar:
    """The model of each stream that predicts held-out days best, or none."""
    streams, blocks = len(target.scores), len(seen)
    share = np.minimum((target.count / target.rows)[: target.counts], 0.9)
    sd = np.concatenate([target.spread, np.sqrt(share * (1 - share))])
    period, best = np.zeros(streams, np.int64), np.zeros(streams)
    slopes = np.zeros((table.shape[1], streams))
    left = np.sqrt(2) * fits[-1].amplitude / sd + fits[-1].swing(sd, target.family)
    amplitude = np.zeros(streams)
    for number, fit in enumerate(fits, 1):
        features = len(fit.slopes)
        on = fit.gain > np.maximum(best, _LEAST_GAIN + features / blocks)
        best[on], period[on] = fit.gain[on], number
        slopes[:, on] = 0.0
        slopes[:features, on] = fit.slopes[:, on]
        amplitude[on] = np.sqrt(2) * fit.amplitude[on] / sd[on]
        left[on] = fit.swing(sd, target.family)[on]
    # counts keep their season: it is allowed for, not taken away
    counted = np.arange(streams) >= target.sums
    left[counted] += amplitude[counted]
    g = target.sums
    seen_at_all = fits[0].amplitude > 0
    swing = np.where(seen_at_all, np.minimum(left, assumed), assumed)  # 0: the reference never shows the value
    gap = swing if len(fits) > 1 else np.full(streams, assumed)
    return Calendar(table, seen.mean(axis=0), slopes[:, :g].copy(), period, best, amplitude, swing, gap, np.zeros(g))


def _at_its_peak(calendar: Calendar, seen: F64, target: Target) -> F64:
    """(G,) variance of an event of a category when it is most uncertain; 0 of all other scores."""
    share = np.clip(target.mean + (seen - calendar.centre) @ calendar.slopes, 0.0, 1.0)
    peak: F64 = np.quantile(share * (1 - share), _PEAK, axis=0)
    return np.where((calendar.period > 0) & (target.family == FAMILIES.index("cat")), 1.0, 0.0)[: target.sums] * peak


def _covered(time: F64) -> tuple[int, Bool]:
    """Whole days that times cover, and which hours of the day (24,) were seen on two days."""
    if len(time) < 2 or not np.all(np.diff(time) >= 0):
        return 0, np.zeros(24, np.bool_)
    days = int((time[-1] - time[0]) * len(time) / (len(time) - 1) / 86_400 + 1e-6)
    hour = np.unique(np.floor(time / 3_600).astype(np.int64))
    return days, np.bincount(hour % 24, minlength=24) >= LEAST_DAYS


def _folds(day: I64, length: int) -> I64:
    """Fold of each block: `length` consecutive days belong together."""
    _, number = np.unique((day - day[0]) // length, return_inverse=True)
    folds: I64 = number % min(_MOST_FOLDS, int(number.max()) + 1)
    return folds


def _table(hours: Bool) -> F64:
    """(quarters of a week, features), 0 at hours of the day that the reference does not show."""
    quarter = np.arange(_WEEK)
    turn = 2 * np.pi * (quarter % _DAY + 0.5) / _DAY
    daily = np.stack([f(k * turn) for k in range(1, _DAILY // 2 + 1) for f in (np.sin, np.cos)], axis=1)
    weekday = (quarter // _DAY)[:, None] == np.arange(6)
    weekend = ((quarter // _DAY) >= 5)[:, None] - 2 / 7
    table = np.hstack([daily, weekday - 1 / 7, weekend * daily[:, :4]])
    table *= hours[quarter % _DAY // 4][:, None]
    exact: F64 = np.rint(table / _STEP) * _STEP
    return exact
