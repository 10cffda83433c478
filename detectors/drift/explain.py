"""The numbers of a drift alarm in the fields' own units: what was since the onset, what the target says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from detectors.base import I64, Explanation, Measure
from detectors.drift.calendar import Calendar
from detectors.drift.effects import LEAST_EVENTS, jensen_shannon, median_of, stability_index, transport
from detectors.drift.history import History
from detectors.drift.onset import Story
from detectors.drift.pairs import LABEL
from detectors.drift.profile import profile_of
from detectors.drift.scores import BLOCK, INDICATORS, Score
from detectors.drift.target import Target
from detectors.drift.usual import Usual
from detectors.findings import WHOLE
from detectors.performance.expected_accuracy import ExpectedAccuracy
from detectors.quality.units import Moments, unit_factor
from detectors.views.bins import CategoryColumn, NumericColumn

UNIT = "unit"
"""Statistic of the measure that says by which factor a field looks like itself in another unit."""
PSI, JS, WASSERSTEIN, MEDIAN = "psi", "js", "wasserstein", "median"
"""Statistics of the measures that describe a column's change and decide nothing."""
ACCURACY = "estimated_accuracy"
"""Statistic of the measure that says how right the model probably is, by its scores."""
MOST, PROFILED = 3, 5
"""Columns described, and columns whose distribution is kept."""
_UNIT_BLOCKS = 4
_LEAST_VARIANCE = 0.05
_FEW = 0.1
"""Most share of values beyond the reference's range that can be faults and not the change."""


def explain_blocks(
    detector: str,
    target: Target,
    history: History,
    streams: Sequence[int],
    story: Story,
    accuracy: ExpectedAccuracy | None = None,
    calendar: Calendar | None = None,
) -> Explanation:
    """Explain by the blocks of `story`, all of them still in `history`, strongest stream first. Means and shares that
    have a season in `calendar` are held against what is usual at the hours of these blocks."""
    since, until = history.times(story.first)[0], history.times(story.end - 1)[1]
    usual = Usual(target, calendar, history, story.first, story.end)
    measures = []
    effects: dict[str, float] = {}
    whole: list[Measure] = []
    for stream in streams:
        observed, expected, unit, n = _numbers(target, history, stream, story.first, story.end)
        score = target.scores[stream]
        over_all, expected = expected, _at_these_hours(usual, score, stream, expected)
        sd = float(target.raw_sd[score.column]) if score.family == "loc" else 1.0
        effect = effect_size(unit, observed, expected, sd)
        effects |= {name: max(effect, effects.get(name, 0.0)) for name in score.stream.fields}
        measures.append(
            Measure(
                detector, score.stream.name, observed, expected, unit, n, since, until,
                " × ".join(score.stream.fields), score.label,
            )
        )  # fmt: skip
        if expected != over_all:
            whole.append(replace(measures[-1], expected=over_all, statistic=WHOLE))
    measures = _profiled(measures, target, history, streams, story)
    measures += _units(detector, target, history, streams, story.first, story.end)
    measures += _effects(detector, target, history, streams, usual, story)
    measures += whole
    drop = 0.0
    if accuracy is not None:
        cells = [history.cells(column, story.first, story.end) for column in accuracy.columns]
        told = accuracy.of(cells[0], cells[1])
        if told is not None:
            numbers = told.now, told.before, "share", len(cells[0]), since, until
            measures.append(Measure(detector, "estimated accuracy", *numbers, statistic=ACCURACY))
            drop = told.drop
    return Explanation(story.onset, (story.earliest, story.latest), tuple(measures), effects, drop)


def _effects(
    detector: str, target: Target, history: History, streams: Sequence[int], usual: Usual, story: Story
) -> list[Measure]:
    """How far each named column is from what is usual at these hours, and the median of a numeric one."""
    made: list[Measure] = []
    onset, end = story.first, story.end
    since, until = history.times(onset)[0], history.times(end - 1)[1]
    n = (end - onset) * BLOCK
    of_column = {s.column: s for s in (target.scores[i] for i in reversed(streams)) if s.family != "pair"}
    for column, score in reversed(list(of_column.items())[-MOST:]):
        name = score.stream.fields[0]
        count = history.histogram(column, len(score.share), onset, end).astype(np.float64)
        at_hours = usual.law(column)
        law = score.share if at_hours is None else at_hours
        if n >= LEAST_EVENTS:
            index, distance = stability_index(law, count), jensen_shannon(law, count)
            made.append(Measure(detector, f"{name}:psi", index, 0.0, "psi", n, since, until, name, PSI))
            made.append(Measure(detector, f"{name}:js", distance, 0.0, "js distance", n, since, until, name, JS))
        if column < len(target.binning.numeric):
            bins = target.told[column]
            far = transport(bins, law, count, float(target.raw_sd[column]))
            if far is not None and n >= LEAST_EVENTS:
                stream = f"{name}:wasserstein"
                made.append(Measure(detector, stream, far, 0.0, "reference sd", n, since, until, name, WASSERSTEIN))
            now, before, over_all = (median_of(bins, w) for w in (count, law, score.share))
            if now is not None and before is not None and over_all is not None:
                made.append(Measure(detector, f"{name}:median", now, before, "median", n, since, until, name, MEDIAN))
                if at_hours is not None:
                    made.append(replace(made[-1], expected=over_all, statistic=WHOLE))
    return made


def _at_these_hours(usual: Usual, score: Score, stream: int, expected: float) -> float:
    """What is usual at the hours of the blocks; `expected` where nothing is known of hours."""
    told = {"loc": usual.mean, "cat": usual.share}.get(score.family)
    at_hours = None if told is None else told(stream)
    return expected if at_hours is None else at_hours


def _profiled(
    measures: list[Measure], target: Target, history: History, streams: Sequence[int], story: Story
) -> list[Measure]:
    """The measures of `streams`, the first of each column with its distribution before and since the onset."""
    columns: Sequence[NumericColumn | CategoryColumn] = (*target.told, *target.binning.category)
    seen: set[int] = set()
    made = []
    for measure, score in zip(measures, (target.scores[i] for i in streams), strict=True):
        if score.family != "pair" and score.column not in seen and len(seen) < PROFILED:
            seen.add(score.column)
            count = history.histogram(score.column, len(score.share), story.first, story.end).astype(np.float64)
            measure = replace(measure, profile=profile_of(columns[score.column], score.share, count))
        made.append(measure)
    return made


def effect_size(unit: str, observed: float, expected: float, sd: float = 1.0) -> float:
    """How large a change is, in units that compare: a mean in standard deviations, a share by Cohen's h, a spread by
    the logarithm of its factor, a moment or a correlation as it is."""
    if unit == "share":
        return 2 * abs(math.asin(math.sqrt(min(observed, 1.0))) - math.asin(math.sqrt(min(expected, 1.0))))
    if unit == "mean":
        return abs(observed - expected) / sd if sd > 0 else math.inf
    if unit == "sd":
        return abs(math.log(observed / expected)) if observed > 0 and expected > 0 else math.inf
    return abs(observed - expected)


def _units(
    detector: str, target: Target, history: History, streams: Sequence[int], onset: int, end: int
) -> list[Measure]:
    """Numeric columns that look like the target's in another unit, by the last blocks: the first may be mixed."""
    first = max(min(onset + 1, end - 1), end - _UNIT_BLOCKS)
    made = []
    streams = [s for s in streams if target.scores[s].family != "pair"]
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
    whole = (end - onset) * BLOCK
    if score.family in INDICATORS:
        return history.count(stream, onset, end) / whole, float(target.share[stream]), "share", whole
    if score.family == "shape":
        return history.mean(stream, onset, end), float(target.mean[stream]), "third moment", whole
    if score.family == "pair":
        return (*_correlations(target, history, score, onset, end), LABEL, whole)
    n, total, square = history.raw(score.column, onset, end)
    centre = float(target.raw_mean[score.column])
    deviation = total / n if n else 0.0
    mean, sd = centre + deviation, math.sqrt(max(square / n - deviation * deviation, 0.0)) if n else 0.0
    mean, sd = _without_absurd(mean, sd, target, history.histogram(score.column, len(score.share), onset, end), score)
    if score.family == "loc":
        return mean, centre, "mean", n
    return sd, float(target.raw_sd[score.column]), "sd", n


def _without_absurd(mean: float, sd: float, target: Target, count: I64, score: Score) -> tuple[float, float]:
    """Mean and sd, by the bins where a few absurd values made what they are: next to all values lie within the
    reference's range, and the mean or the spread is beyond it."""
    low, high = target.support[score.column].tolist()
    edges = target.told[score.column].edges
    inner = count[: len(edges) + 1]
    n = max(int(inner.sum()), 1)
    if (low <= mean <= high and sd <= high - low) or inner[0] + inner[-1] > _FEW * n:
        return mean, sd
    middle = np.concatenate([edges[:1], (edges[:-1] + edges[1:]) / 2, edges[-1:]])
    weight = inner / n
    mean = float(weight @ middle)
    return mean, math.sqrt(float(weight @ (middle - mean) ** 2))


def _correlations(target: Target, history: History, pair: Score, onset: int, end: int) -> tuple[float, float]:
    """Correlation of the normal scores of a pair: in these blocks, and under the target."""
    wanted = {("loc", pair.column), ("loc", pair.other), ("scale", pair.column), ("scale", pair.other)}
    streams = {key: i for i, s in enumerate(target.scores[: target.linear]) if (key := (s.family, s.column)) in wanted}
    product = next(i for i, s in enumerate(target.scores) if s is pair)

    def correlation(means: Mapping[int, float]) -> float:
        """From the mean product of scores standardised under the target, and what their means and spreads are now."""
        expected, centre, spread = means[product], 1.0, 1.0
        for column in (pair.column, pair.other):
            loc, scale = streams["loc", column], streams.get(("scale", column))
            own = float(target.spread[loc])
            centre *= (means[loc] - float(target.mean[loc])) / own
            if scale is not None:
                spread *= math.sqrt(max(means[scale] + 1 - means[loc] ** 2, _LEAST_VARIANCE)) / own
        return min(max((expected - centre) / spread, -1.0), 1.0)

    needed = [*streams.values(), product]
    return (
        correlation({i: history.mean(i, onset, end) for i in needed}),
        correlation({i: float(target.mean[i]) for i in needed}),
    )
