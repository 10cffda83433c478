"""What is usual at the hours of some blocks: the reference with the season that it shows, in the fields' own units.

A season is learnt in scores. The law of a numeric column at an hour is taken to be the reference's, tilted (shares
times exp(θ · score)) so that its mean score is what the season says: of all laws with that mean score the one nearest
to the reference's. For a normal column that moves the mean by the season; a skewed one keeps its skew.
"""

from __future__ import annotations

import numpy as np

from detectors.base import F64
from detectors.drift.calendar import Calendar
from detectors.drift.history import History
from detectors.drift.scores import BLOCK
from detectors.drift.target import Target

_STEEPEST = 16.0
"""Largest θ: by then nearly all of a law lies in its last bin."""
_HALVINGS = 50


class Usual:
    """Of the blocks `first` to `end` (exclusive). Streams without a season, and all where there is no `calendar`, have
    nothing that is usual at an hour: None."""

    def __init__(self, target: Target, calendar: Calendar | None, history: History, first: int, end: int) -> None:
        self._target = target
        self._season: F64 | None = None
        if calendar is not None:
            seasonal = calendar.period[: target.sums] > 0
            self._season = np.where(seasonal, calendar.at(_times(history, first, end)), np.nan)

    def share(self, stream: int) -> float | None:
        """Share of a category."""
        season = self._of(stream)
        return None if season is None else float(np.clip(self._target.mean[stream] + season, 0.0, 1.0).mean())

    def mean(self, stream: int) -> float | None:
        """Mean of a numeric column, by its stream of location, as observed means are: absurd values apart."""
        score = self._target.scores[stream]
        law = self.law(score.column)
        if law is None:
            return None
        value, whole = self._target.bin_mean[score.column], score.share[:-2]
        now = law[:-2]
        if not (whole.sum() > 0 and now.sum() > 0):
            return None
        moved = float(now @ value / now.sum() - whole @ value / whole.sum())
        return float(self._target.raw_mean[score.column]) + moved

    def law(self, column: int) -> F64 | None:
        """(bins,) shares of a column, mean over the blocks: by the season of its location, or of its categories."""
        if column >= len(self._target.binning.numeric):
            return self._category(column)
        stream = self._target.location.get(column, -1)
        season = self._of(stream)
        if season is None:
            return None
        score = self._target.scores[stream]
        law: F64 = tilted(score.share, score.table, float(self._target.mean[stream]) + season).mean(axis=0)
        return law

    def _category(self, column: int) -> F64 | None:
        """Values that have no season of their own share what the others leave."""
        target = self._target
        own = [i for i, s in enumerate(target.scores[: target.linear]) if s.column == column and s.family == "cat"]
        usual = {i: share for i in own if (share := self.share(i)) is not None}
        if not usual:
            return None
        law: F64 = target.scores[own[0]].share.copy()
        at = [int(np.argmax(target.scores[i].table)) for i in usual]
        rest = np.ones(len(law), np.bool_)
        rest[at] = False
        law[at] = list(usual.values())
        law[rest] *= max(0.0, 1 - float(law[at].sum())) / max(float(law[rest].sum()), 1e-12)
        law /= law.sum()
        return law

    def _of(self, stream: int) -> F64 | None:
        """(blocks,) what the season adds to the mean score."""
        if self._season is None or not 0 <= stream < self._target.sums or np.isnan(self._season[0, stream]):
            return None
        season: F64 = self._season[:, stream]
        return season


def tilted(share: F64, score: F64, mean: F64) -> F64:
    """(n, bins) the law `share` (bins,) tilted so that the mean of `score` (bins,) is `mean` (n,), or as near to it as
    the scores go."""
    low, high = np.full(len(mean), -_STEEPEST), np.full(len(mean), _STEEPEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = _tilted(share, score, middle) @ score > mean
        high, low = np.where(above, middle, high), np.where(above, low, middle)
    return _tilted(share, score, (low + high) / 2)


def _tilted(share: F64, score: F64, theta: F64) -> F64:
    power = theta[:, None] * score
    weight = share * np.exp(power - power.max(axis=1, keepdims=True))
    made: F64 = weight / weight.sum(axis=1, keepdims=True)
    return made


def _times(history: History, first: int, end: int) -> F64:
    """(blocks · 25,) times of the events: only the first and the last of a block are kept, the rest lie between."""
    ends = [history.times(block) for block in range(first, end)]
    return np.concatenate([np.linspace(opened, closed, BLOCK) for opened, closed in ends])
