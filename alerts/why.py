"""The one sentence of an incident. Every number in it stands in a stored measure, rounded by `number` or `clock`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from detectors.base import Measure
from detectors.findings import RECURRENCE, WHOLE

EVIDENCE = "evidence"
"""Statistic of the measure that carries the evidence ratio (capital at the alarm over what was injected)."""
UNIT = "unit"
"""Statistic of the measure that carries the factor of what looks like a change of unit."""
QUERIES = "queries"
"""Unit of a measure that counts queries of a client: `observed` of `n`; its statistic says what they did."""
PSI = "psi"
ACCURACY = "estimated_accuracy"
"""Statistic of the measure that says how right the model probably is, by its scores."""
BLAME = "part_of_the_change"
"""Statistic of the measure that says how much of a drift is a client's doing; `expected` is its share of queries."""
DESCRIBING = (PSI, "js", "wasserstein", "median", ACCURACY, BLAME, WHOLE, RECURRENCE)
"""Statistics of measures that describe a change beside the one that is told: population stability index, distances,
median."""
NAMED = 3
"""Fields told in full; further ones are counted."""

_WORDS = {
    "share": "share",
    "mean": "mean",
    "median": "median",
    "sd": "spread (sd)",
    "rate": "rate",
}
_FLOW = {
    "silence": "no data on topic {name} for {now} min (longest gap before: {before} min)",
    "lag": "topic {name} is {now} records behind, {before} before",
    "growth": "{name}: {now} records a second",
    "keyed": "{name} hold its records, and keyed_by: model says that one does",
    "sampling": "{name}: events come too fast, a share of {now} of them is judged (before: {before})",
}
"""Sentences about the monitor's own input, by statistic."""


def sentence(kind: str, measures: Sequence[Measure], onset: float) -> str:
    """Say what moved from what to what, since when, over how many events, and how strong the evidence is."""
    told = [m for m in measures if m.statistic not in (EVIDENCE, UNIT, *DESCRIBING)]
    if not told:
        return f"{kind.replace('_', ' ')} since {clock(onset)}"
    fields = list(dict.fromkeys(_name(m) for m in told))
    whole = {m.stream: m.expected for m in measures if m.statistic == WHOLE}
    parts = [_part(next(m for m in told if _name(m) == name), whole) for name in fields[:NAMED]]
    text = "; ".join(parts) + f"; since {clock(onset)}"
    if len(fields) > NAMED:
        further = "clients act alike" if all(m.unit == QUERIES for m in told) else "moved"
        text += f"; {len(fields) - NAMED} further {further}"
    index = max((m.observed for m in measures if m.statistic == PSI), default=None)
    if index is not None:
        text += f"; PSI {number(index)}"
    for measure in [m for m in measures if m.statistic == ACCURACY][:1]:
        text += f"; estimated accuracy {number(measure.expected)} → {number(measure.observed)}"
    for blamed in [m for m in measures if m.statistic == BLAME][:NAMED]:
        part, share = number(100 * blamed.observed), number(100 * blamed.expected)
        text += f"; {blamed.stream} makes {part} % of the change with {share} % of the queries"
    for unit in [m for m in measures if m.statistic == UNIT][:NAMED]:
        text += f"; {_name(unit)} looks like another unit (× {number(unit.observed)})"
    for again in [m for m in measures if m.statistic == RECURRENCE][:1]:
        text += f"; alarm {number(again.observed)} within a week: it comes and goes, and closes after a day without it"
    ratio = [m for m in measures if m.statistic == EVIDENCE]
    if ratio:
        text += f"; evidence {number(ratio[0].observed)} : 1"
    return text


def number(value: float) -> str:
    """A number as the sentence shows it: three significant digits, no needless exponent."""
    if not math.isfinite(value):
        return "unknown"
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def clock(at: float) -> str:
    """An event time as the sentence shows it, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _name(measure: Measure) -> str:
    return measure.field or measure.stream


def _part(measure: Measure, whole: Mapping[str, float]) -> str:
    """One field; `whole` has what is expected over the whole reference of streams that have a season."""
    if measure.statistic in _FLOW:
        name, now, before = _name(measure), number(measure.observed), number(measure.expected)
        return _FLOW[measure.statistic].format(name=name, now=now, before=before)
    if measure.unit == QUERIES:
        counted = f"{number(measure.observed)} of {number(measure.n)} queries {measure.statistic}"
        return f"{_name(measure)}: {counted}"
    what = _WORDS.get(measure.unit, measure.unit)
    statistic = measure.statistic.replace("_", " ")
    if measure.unit not in ("share", "rate"):
        subject = f"{_name(measure)}: {what}"
    elif " " in measure.statistic:  # told in words, such as "queries far from the reference data"
        subject = f"{_name(measure)}: {what} of {statistic}"
    else:
        subject = f"{_name(measure)}: {statistic} {what}"
    text = f"{subject} {number(measure.expected)} → {number(measure.observed)} over {number(measure.n)} events"
    if measure.stream not in whole:
        return text
    usual, over_all = number(measure.expected), number(whole[measure.stream])
    return f"{text} ({usual} is usual at these hours, {over_all} over the whole reference)"
