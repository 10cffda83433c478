"""The numbers of a drift alarm in the fields' own units: what was since the onset, what the target says."""

from __future__ import annotations

import math
from collections.abc import Sequence

from detectors.base import Explanation, Measure
from detectors.drift.history import History
from detectors.drift.target import BLOCK, Target
from detectors.quality.units import Moments, unit_factor

UNIT = "unit"
"""Statistic of the measure that says by which factor a field looks like itself in another unit."""
_UNIT_BLOCKS = 4
_SLACK = 2
"""Blocks by which an estimated onset is usually off (statistics: 1-2 blocks at one standard deviation)."""


def explain_blocks(
    detector: str, target: Target, history: History, streams: Sequence[int], onset: int, end: int
) -> Explanation:
    """Explain by blocks `onset` to `end` (exclusive), all of them still in `history`, strongest stream first."""
    onset = max(min(onset, end - 1), 0)
    since, until = history.times(onset)[0], history.times(end - 1)[1]
    earliest = history.times(max(onset - _SLACK, history.first))[0] if onset > history.first else since
    latest = history.times(min(onset + _SLACK, end - 1))[1]
    measures = []
    for stream in streams:
        observed, expected, unit, n = _numbers(target, history, stream, onset, end)
        score = target.scores[stream]
        measures.append(
            Measure(
                detector, score.stream.name, observed, expected, unit, n, since, until,
                score.stream.fields[0], score.label,
            )
        )  # fmt: skip
    measures += _units(detector, target, history, streams, onset, end)
    return Explanation(since, (min(earliest, since), max(latest, since)), tuple(measures))


def _units(
    detector: str, target: Target, history: History, streams: Sequence[int], onset: int, end: int
) -> list[Measure]:
    """Numeric columns that look like the target's in another unit, by the last blocks: the first may be mixed."""
    first = max(min(onset + 1, end - 1), end - _UNIT_BLOCKS)
    made = []
    for column in dict.fromkeys(target.scores[s].column for s in streams):
        if column >= len(target.raw_mean):
            continue
        n, total, square = history.raw(column, first, end)
        if not n:
            continue
        centre = float(target.raw_mean[column])
        spread = math.sqrt(max(square / n - (total / n) ** 2, 0.0))
        factor = unit_factor(Moments(centre, float(target.raw_sd[column]), 0), Moments(centre + total / n, spread, n))
        if factor is not None:
            name = next(target.scores[s].stream.fields[0] for s in streams if target.scores[s].column == column)
            since, until = history.times(first)[0], history.times(end - 1)[1]
            made.append(Measure(detector, f"{name}:unit", factor, 1.0, "factor", n, since, until, name, UNIT))
    return made


def _numbers(target: Target, history: History, stream: int, onset: int, end: int) -> tuple[float, float, str, int]:
    """Observed, expected, unit, events."""
    score = target.scores[stream]
    if score.family not in ("loc", "scale"):
        n = (end - onset) * BLOCK
        return history.count(stream, onset, end) / n, float(target.share[stream]), "share", n
    n, total, square = history.raw(score.column, onset, end)
    mean = total / n if n else 0.0
    if score.family == "loc":
        centre = float(target.raw_mean[score.column])
        return centre + mean, centre, "mean", n
    return math.sqrt(max(square / n - mean * mean, 0.0)) if n else 0.0, float(target.raw_sd[score.column]), "sd", n
