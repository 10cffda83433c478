"""An alarm of a sum account, told as a finding: whom it names, since when, with which numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from detectors.account import RETURNS
from detectors.base import AccountName, Alarm, Explanation, Finding, Measure, Rows, Severity, Stream, SubjectRef

WHOLE = "whole_reference"
"""Statistic of the measure that says what a number is over the whole reference, where another one is usual at the hours
of the events."""
RECURRENCE = "recurrence"
"""Statistic of the measure that says how often in a week something has alarmed that comes and goes."""


@dataclass(frozen=True, slots=True)
class AlarmContext:
    """What an alarm needs from its surroundings to become a finding."""

    account: AccountName
    streams: Sequence[Stream]
    inputs: frozenset[str]
    """Names of the input fields: an alarm names these as features, and the model itself for its outputs."""
    model: str
    importances: Mapping[str, float] = field(default_factory=dict)
    """Of input fields; empty where the configuration names none."""


CRITICAL, MINOR = 0.8, 0.1
"""Effect × importance from which an alarm is critical, and below which it is worth a line and no page: Cohen's large
effect in the most important field, and half of a small one."""


CRITICAL_DROP, MINOR_DROP = 0.1, 0.02
"""Estimated loss of accuracy from which an alarm is critical, and from which it is at least a warning."""


def severity_of(effects: Mapping[str, float], importances: Mapping[str, float], drop: float = 0.0) -> Severity:
    """Severity by effect and importance, relative to the most important field, or by the estimated `drop` of accuracy
    where that is worse; evidence has no part in it.

    Without importances, and where a column without one is named, nothing is known about harm: at least a warning.
    """
    if drop >= CRITICAL_DROP:
        return "critical"
    by_effect = _severity_of(effects, importances)
    return "warning" if by_effect == "info" and drop >= MINOR_DROP else by_effect


def _severity_of(effects: Mapping[str, float], importances: Mapping[str, float]) -> Severity:
    most = max(importances.values(), default=0.0)
    if most <= 0 or not effects:
        return "warning"
    harm = max(
        (effect * importances[name] / most for name, effect in effects.items() if name in importances), default=0
    )
    if harm >= CRITICAL:
        return "critical"
    return "warning" if harm >= MINOR or not effects.keys() <= importances.keys() else "info"


def alarm_finding(alarm: Alarm, explanation: Explanation, batch: Rows, around: AlarmContext) -> Finding:
    """The finding of an alarm. Its kind is that of the stream with most evidence."""
    leading = around.streams[alarm.leading]
    fields = dict.fromkeys(f for s in (alarm.leading, *alarm.streams) for f in around.streams[s].fields)
    subjects = [SubjectRef("feature", f) for f in fields if f in around.inputs]
    if not subjects:
        subjects = [SubjectRef("model", around.model)]
    segments = dict.fromkeys(around.streams[s].segment for s in (alarm.leading, *alarm.streams))
    subjects += [SubjectRef("segment", segment) for segment in segments if segment]
    now = float(batch.time[alarm.row])
    events = max((m.n for m in explanation.measures), default=0)
    onset = explanation.onset
    if not math.isfinite(onset):  # nobody can tell since when: it was there from the first block on
        onset = min((m.since for m in explanation.measures if math.isfinite(m.since)), default=now)
    ratio = Measure(alarm.detector, leading.name, alarm.ratio, 1.0, "ratio", events, onset, now, statistic="evidence")
    told = (*explanation.measures, ratio)
    if alarm.times > RETURNS:
        numbers = float(alarm.times), float(RETURNS), "alarms", events, onset, now
        told += (Measure(alarm.detector, leading.name, *numbers, statistic=RECURRENCE),)
    version = int(batch.version[alarm.row])
    return Finding(
        detector=alarm.detector,
        kind=leading.kind,
        account=around.account,
        severity=severity_of(explanation.effects, around.importances, explanation.drop),
        time=now,
        row=alarm.row,
        position=alarm.position,
        subjects=tuple(subjects),
        onset=onset,
        measures=told,
        model_version=batch.versions[version] if version >= 0 else None,
    )
