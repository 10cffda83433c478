"""Where a change began: the split of the last blocks with the largest likelihood ratio, and those nearly as likely."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from detectors.base import F64
from detectors.drift.departure import Departure
from detectors.drift.history import History
from detectors.drift.scores import BLOCK
from detectors.drift.target import Target
from detectors.drift.target_bets import TargetBets

LAG = 40
"""Residuals are learnt as noise when this many blocks old: a change still being found must not be noise."""
NATS = 2.0
"""Splits this close to the best in log likelihood make up the interval: about 95 % (half the chi² quantile of one)."""


class Split(NamedTuple):
    """The change began with the first of the last `blocks` blocks; since then residuals have mean `shift`. Nearly as
    likely with any number of blocks from `fewest` to `most`."""

    blocks: int
    shift: float
    fewest: int
    most: int


def best_split(path: F64, v: float = 1.0) -> Split:
    """Split a path of residuals (oldest first) where (sum after it)² / (blocks after it) is largest. `v` >= 1 is their
    design effect: it widens the interval."""
    if not len(path):
        return Split(0, 0.0, 0, 0)
    after = np.cumsum(path[::-1])
    gain = after**2 / np.arange(1, len(path) + 1) / 2
    best = int(np.argmax(gain))
    near = np.flatnonzero(gain >= gain[best] - NATS * v) + 1
    return Split(best + 1, float(after[best]) / (best + 1), int(near[0]), int(near[-1]))


class Story(NamedTuple):
    """When an alarm's change began, in event times, and the blocks `first` to `end` (exclusive) that tell of it."""

    first: int
    end: int
    onset: float
    earliest: float
    latest: float


def story_of(history: History, split: Split, end: int, began: float | None) -> Story:
    """The change lies in the blocks of the interval, or in the one before: one that saw little of it is left out.
    Where the interval reaches back as far as residuals are kept, `began` says since when they kept to one side."""
    first = max(min(end - split.blocks, end - 1), 0)
    onset = history.times(first)[0]
    earliest = history.times(max(end - split.most - 1, history.oldest(end)))[0]
    latest = history.times(max(min(end - split.fewest, end - 1), 0))[1]
    if began is not None:
        earliest = min(earliest, began)
    return Story(first, end, onset, min(earliest, onset), max(latest, onset))


def departed(
    target: Target, bets: TargetBets, departure: Departure, history: History, bet: int, end: int
) -> tuple[Story, float, float]:
    """The story of an alarm of the target family, led by its `bet`: the last blocks say how far it is, its CUSUM since
    when. Its shift is in residuals against the target, to which the null goes back; then its rate."""
    leading = int(bets.stream[bet])
    place = int(np.searchsorted(bets.sums, leading)) if leading < target.sums else None
    first = max(end - LAG, history.oldest(end), 0)
    story = Story(first, end, *departure.since(bet, np.flatnonzero(bets.stream == leading), place))
    if leading >= target.sums:
        return story, 0.0, rate_of(history, leading, story)
    distance = history.mean(leading, first, end) - float(target.mean[leading])
    error = math.sqrt(1 / BLOCK + 1 / target.effective)
    return story, distance / float(target.spread[leading]) / error, 0.0


def rate_of(history: History, stream: int, story: Story) -> float:
    """Events a counted stream has counted per event in the blocks of the story."""
    return history.count(stream, story.first, story.end) / max(story.end - story.first, 1) / BLOCK
