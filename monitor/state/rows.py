"""The types of unit.py and alerts/incidents.py ↔ rows of the tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from alerts.incidents import Incident, IncidentSubject, Status
from alerts.render import profile_json, profile_of
from detectors.base import Measure, Severity
from monitor.intake.events import DeadLetter
from monitor.state.database import Row
from monitor.state.unit import PartitionCounts, Position, Sampled, Slice, SubjectRow, Tick

Trail = list[Slice | Tick | Sampled]


def incident_row(group: str, incident: Incident, at: float) -> Row:
    """The row of `incidents`; subjects and evidence have rows of their own."""
    names = (
        "subject", "model", "tenant", "kind", "account", "cause", "severity", "severity_max", "status",
        "model_version", "opened_at", "resolved_at", "onset", "why", "last_position", "alarms", "resolution",
        "acknowledged_by", "taxonomy", "silenced_until",
    )  # fmt: skip
    row = {name: getattr(incident, name) for name in names}
    lists = {name: list(getattr(incident, name)) for name in ("detectors", "atlas", "held_by")}
    return {"group_id": group, "incident_id": incident.id, **row, **lists, "updated_at": at}


def subject_rows(group: str, incident: Incident) -> list[Row]:
    """The rows of `incident_subjects`, in the incident's order."""
    return [
        {
            "group_id": group,
            "incident_id": incident.id,
            "ordinal": ordinal,
            "type": subject.type,
            "subject_id": subject.id,
            "since": subject.since,
            "trigger_event_id": subject.trigger_event_id,
        }
        for ordinal, subject in enumerate(incident.subjects)
    ]


def evidence_rows(group: str, incident: Incident) -> list[Row]:
    """The rows of `evidence`, in the incident's order."""
    names = ("detector", "stream", "observed", "expected", "unit", "n", "since", "until", "field", "statistic")
    return [
        {"group_id": group, "incident_id": incident.id, "ordinal": ordinal}
        | {name: getattr(measure, name) for name in names}
        | {"distribution": None if measure.profile is None else profile_json(measure.profile)}
        for ordinal, measure in enumerate(incident.measures)
    ]


def incident_of(row: Any, subjects: Iterable[Any], evidence: Iterable[Any]) -> Incident:
    """The incident that was stored. A number that was not finite comes back as NaN."""
    return Incident(
        id=row.incident_id,
        subject=row.subject,
        model=row.model,
        tenant=row.tenant,
        kind=row.kind,
        account=row.account,
        cause=row.cause,
        severity=cast(Severity, row.severity),
        severity_max=cast(Severity, row.severity_max),
        status=cast(Status, row.status),
        model_version=row.model_version,
        opened_at=row.opened_at,
        resolved_at=row.resolved_at,
        onset=_number(row.onset),
        why=row.why,
        subjects=tuple(IncidentSubject(s.type, s.subject_id, _number(s.since), s.trigger_event_id) for s in subjects),
        detectors=tuple(row.detectors),
        measures=tuple(_measure(e) for e in evidence),
        atlas=tuple(row.atlas),
        last_position=row.last_position,
        alarms=row.alarms,
        resolution=row.resolution,
        acknowledged_by=row.acknowledged_by,
        taxonomy=row.taxonomy,
        held_by=tuple(row.held_by),
        silenced_until=row.silenced_until,
    )


def _measure(row: Any) -> Measure:
    return Measure(
        detector=row.detector,
        stream=row.stream,
        observed=_number(row.observed),
        expected=_number(row.expected),
        unit=row.unit,
        n=row.n,
        since=_number(row.since),
        until=_number(row.until),
        field=row.field,
        statistic=row.statistic,
        profile=None if row.distribution is None else profile_of(row.distribution),
    )


def watched_row(group: str, subject: SubjectRow, at: float) -> Row:
    """The row of `subjects`."""
    return {"group_id": group, **subject._asdict(), "updated_at": at}


def watched_of(row: Any) -> SubjectRow:
    """The stored subject; one that has seen no event has the watermark -inf."""
    values = {name: getattr(row, name) for name in SubjectRow._fields}
    watermark = -math.inf if row.watermark is None else row.watermark
    return SubjectRow(**(values | {"watermark": watermark}))


def offset_row(group: str, cluster_id: str, position: Position, epoch: int, at: float) -> Row:
    """The row of `offsets` after the commit."""
    return {
        "group_id": group,
        "cluster_id": cluster_id,
        "topic": position.topic,
        "partition": position.partition,
        "next_offset": position.next,
        **position.counts._asdict(),
        "epoch": epoch,
        "updated_at": at,
    }


def position_of(row: Any) -> Position:
    """Where the partition stands: `expected` and `next` are both the next offset."""
    counts = PartitionCounts(**{name: getattr(row, name) for name in PartitionCounts._fields})
    return Position(row.topic, row.partition, row.next_offset, row.next_offset, counts)


def dead_letter_row(group: str, cluster_id: str, letter: DeadLetter, at: float) -> Row:
    """The row of `dead_letters`."""
    return {
        "group_id": group,
        "cluster_id": cluster_id,
        "topic": letter.topic,
        "partition": letter.partition,
        "record_offset": letter.offset,
        "record_row": letter.row,
        "reason": str(letter.reason),
        "detail": letter.detail,
        "structure": letter.structure,
        "length": letter.length,
        "digest": letter.digest,
        "at": at,
    }


def packed_trail(trail: Trail) -> dict[str, Any]:
    """The entries in order, small: `[topic index, partition, start, stop]`, a tick `[at]`, or deaf `[at, 0]`, a change
    of sampling `[subject index, one in, 0]`."""
    topics = list(dict.fromkeys(entry.topic for entry in trail if isinstance(entry, Slice)))
    subjects = list(dict.fromkeys(entry.subject for entry in trail if isinstance(entry, Sampled)))
    index = {name: i for names in (topics, subjects) for i, name in enumerate(names)}
    packed = {"topics": topics, "steps": [_step(entry, index) for entry in trail]}
    return packed | ({"subjects": subjects} if subjects else {})


def _step(entry: Slice | Tick | Sampled, index: Mapping[str, int]) -> list[float]:
    if isinstance(entry, Slice):
        return [index[entry.topic], entry.partition, entry.start, entry.stop]
    if isinstance(entry, Sampled):
        return [index[entry.subject], entry.one_in, 0]
    return [entry.at] if entry.listening else [entry.at, 0]


def unpacked_trail(packed: dict[str, Any]) -> Trail:
    """The inverse of `packed_trail`."""
    trail: Trail = []
    for step in packed["steps"]:
        if len(step) == 4:
            trail.append(Slice(packed["topics"][step[0]], step[1], step[2], step[3]))
        elif len(step) == 3:
            trail.append(Sampled(packed["subjects"][step[0]], step[1]))
        else:
            trail.append(Tick(float(step[0]), len(step) == 1))
    return trail


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
