"""Findings of one cause become one incident: lifecycle and correlation, pure.

Same cause: same subject and account, and the alarm falls within 1,000 events (40 blocks of 25) of the incident's
last alarm. Exact rules name their cause; it stays one cause until it recovers. A field that vanishes breaks a rule
and moves statistics as well: rule and drift findings about the same field within 1,000 events are one cause too.
A drift that is the doing of certain clients is a cause of its own, and gives way to an attack by all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from alerts.taxonomy import taxonomy_of
from alerts.why import sentence
from detectors.base import JOINS, Finding, Measure, Severity

Status = Literal["open", "acknowledged", "silenced", "resolved"]
SAME_CAUSE_EVENTS = 1_000
MAX_MEASURES = 64
"""Stored measures per incident: a storm of alarms of one cause must not grow a row without bound."""
SUPERSEDES = "supersedes"
"""Key of `Finding.detail`: causes, a line each, whose incidents this finding's incident takes over."""
ATTACKS = frozenset({"adversarial_input", "model_extraction", "membership_inference"})
"""Kinds of incidents that say what a client does to the model."""
_RANK = {"info": 0, "warning": 1, "critical": 2}


@dataclass(frozen=True, slots=True)
class IncidentSubject:
    """Whom or what the incident is about, since when (event time), and the event that put it there."""

    type: str
    id: str
    since: float
    trigger_event_id: str | None


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident in its present state. Times are event times in epoch seconds."""

    id: str
    subject: str
    model: str | None
    tenant: str
    kind: str
    account: str
    cause: str
    severity: Severity
    severity_max: Severity
    status: Status
    model_version: str | None
    opened_at: float
    resolved_at: float | None
    onset: float
    why: str
    subjects: tuple[IncidentSubject, ...]
    detectors: tuple[str, ...]
    measures: tuple[Measure, ...]
    atlas: tuple[str, ...]
    last_position: int
    alarms: int = 1
    resolution: str = ""
    acknowledged_by: str | None = None
    held_by: tuple[str, ...] = ()
    """What keeps it open: causes of exact rules, and the account of an alarm. It closes when none is left."""
    taxonomy: dict[str, list[str]] = field(default_factory=dict)
    silenced_until: float | None = None
    """Wall-clock epoch seconds; None unless it is silenced."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A finding with what only the pipeline knows: the subject it came from, and the event that triggered it."""

    finding: Finding
    subject: str
    model: str | None
    tenant: str
    trigger: str
    """Stable identity of the triggering event (topic/partition/offset/row), or of the tick."""
    event_id: str | None


def incident_id(model: str | None, kind: str, cause: str, trigger: str) -> str:
    """The id of an incident follows from what it is about, so that a replay makes the same ones."""
    text = "\x1f".join((model or "", kind, cause, trigger))
    return "inc_" + hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


class IncidentBook:
    """The incidents that can still change, and the rules by which findings change them."""

    def __init__(self, open_incidents: Iterable[Incident] = ()) -> None:
        self._live: dict[str, Incident] = {i.id: i for i in open_incidents}
        self._changed: dict[str, Incident] = {}
        self._before: dict[str, Incident | None] = {}
        """Of each changed incident: what it was before the changes."""

    def open(self) -> list[Incident]:
        """Incidents that are not resolved, oldest first."""
        return sorted(self._live.values(), key=lambda i: (i.opened_at, i.id))

    def get(self, incident: str) -> Incident | None:
        """The live incident with this id."""
        return self._live.get(incident)

    def take_changes(self) -> list[Incident]:
        """Incidents changed since the last call, each once, in its last state."""
        return [new for _, new in self.take_transitions()]

    def take_transitions(self) -> list[tuple[Incident | None, Incident]]:
        """As `take_changes`, each with what it was at the last call; None when it is new."""
        taken = [(self._before[name], new) for name, new in self._changed.items()]
        self._changed.clear()
        self._before.clear()
        return taken

    def apply(self, sighting: Sighting) -> Incident | None:
        """Open, feed or resolve an incident. Returns the incident as it now is, None when nothing changed."""
        finding = sighting.finding
        if finding.action == "recover":
            return self._recover(sighting)
        live = self._same_cause(sighting)
        incident = self._put(
            self._opened(sighting) if live is None else self._fed(live, self._without_told(live, sighting))
        )
        if SUPERSEDES in finding.detail:
            self._supersede(finding.detail[SUPERSEDES], incident, finding.time)
        if incident.kind in ATTACKS:
            self._explain(incident, finding.time)
        return incident

    def acknowledge(self, incident: str, by: str) -> Incident:
        """Mark as seen by a person. KeyError when there is no such live incident."""
        live = self._live[incident]
        status: Status = "silenced" if live.status == "silenced" else "acknowledged"
        return self._put(replace(live, status=status, acknowledged_by=by))

    def silence(self, incident: str, until: float) -> Incident:
        """Nobody is told of it until then (wall clock), unless it gets worse. KeyError: no such live incident."""
        return self._put(replace(self._live[incident], status="silenced", silenced_until=until))

    def end_silences(self, at: float, incident: str | None = None) -> list[Incident]:
        """Incidents whose silence is over at this time; one that is named, whenever its silence would end."""
        over = [
            i
            for i in self.open()
            if i.status == "silenced" and (i.id == incident or (incident is None and (i.silenced_until or 0.0) <= at))
        ]
        return [self._put(_audible(i)) for i in over]

    def resolve(self, incident: str, at: float, resolution: str) -> Incident:
        """Close by hand or by rule. KeyError when there is no such live incident."""
        self._before.setdefault(incident, self._live[incident])
        live = self._live.pop(incident)
        at = max(at, live.opened_at)  # events may come out of the order of their times
        closed = replace(live, status="resolved", resolved_at=at, resolution=resolution)
        self._changed[incident] = closed
        return closed

    def _put(self, incident: Incident) -> Incident:
        self._before.setdefault(incident.id, self._live.get(incident.id))
        self._live[incident.id] = self._changed[incident.id] = incident
        return incident

    def _same_cause(self, sighting: Sighting) -> Incident | None:
        live = (i for i in reversed(self.open()) if i.subject == sighting.subject)
        return next((i for i in live if _is_same_cause(i, sighting.finding)), None)

    def _without_told(self, live: Incident, sighting: Sighting) -> Sighting:
        """Without fields that other open incidents tell of already, of the same kind and account: one field is not in
        two of them because an alarm names many."""
        alike = [i for i in self.open() if (i.subject, i.kind, i.account) == (live.subject, live.kind, live.account)]
        here = {s.id for s in live.subjects if s.type == "feature"}
        told = {s.id for i in alike if i.id != live.id for s in i.subjects if s.type == "feature"} - here
        finding = sighting.finding
        subjects = tuple(s for s in finding.subjects if s.type != "feature" or s.id not in told)
        if len(subjects) == len(finding.subjects):
            return sighting
        measures = tuple(m for m in finding.measures if m.field not in told)
        return replace(sighting, finding=replace(finding, subjects=subjects, measures=measures))

    def _recover(self, sighting: Sighting) -> Incident | None:
        """One cause is gone: of a rule by its name, of an account's alarm by the id of the incident it opened."""
        finding = sighting.finding
        by_id = self._live.get(finding.cause)
        holder = finding.cause
        if by_id is not None:
            holder = finding.account if finding.account in by_id.held_by else by_id.cause
        candidates = [by_id] if by_id is not None else self.open()
        for incident in candidates:
            if incident.subject == sighting.subject and holder in incident.held_by:
                left = tuple(h for h in incident.held_by if h != holder)
                if left:
                    return self._put(replace(incident, held_by=left))
                return self.resolve(incident.id, finding.time, "recovered")
        return None

    def _supersede(self, causes: str, by: Incident, at: float) -> None:
        """What was known under these causes is now told by another incident: it closes with a link."""
        over = set(causes.split("\n"))
        for incident in self.open():
            if incident.subject == by.subject and incident.id != by.id and not over.isdisjoint(incident.held_by):
                self.resolve(incident.id, at, f"superseded by {by.id}")

    def _attackers(self, subject: str) -> set[str]:
        """Clients of the open attacks on a model."""
        return {
            client
            for incident in self._live.values()
            if incident.kind in ATTACKS and incident.subject == subject
            for client in _clients(incident)
        }

    def _explain(self, attack: Incident, at: float) -> None:
        """Data that moved because of the attackers alone is told by the attack: such drifts close with a link."""
        attackers = self._attackers(attack.subject)
        for incident in self.open():
            moved = incident.subject == attack.subject and incident.account == "drift" and _clients(incident)
            if moved and moved <= attackers:
                self.resolve(incident.id, at, f"superseded by {attack.id}")

    def _severity(self, sighting: Sighting) -> Severity:
        """Of a finding. What attackers that are known already move is worth a line and no page."""
        finding = sighting.finding
        clients = {s.id for s in finding.subjects if s.type == "client"}
        if finding.account == "drift" and clients and clients <= self._attackers(sighting.subject):
            return "info"
        return finding.severity

    def _opened(self, sighting: Sighting) -> Incident:
        finding, severity = sighting.finding, self._severity(sighting)
        incident = Incident(
            id=incident_id(sighting.model, finding.kind, finding.cause, sighting.trigger),
            subject=sighting.subject,
            model=sighting.model,
            tenant=sighting.tenant,
            kind=finding.kind,
            account=finding.account,
            cause=finding.cause,
            severity=severity,
            severity_max=severity,
            status="open",
            model_version=finding.model_version,
            opened_at=finding.time,
            resolved_at=None,
            onset=finding.onset,
            why="",
            subjects=_subjects(finding, sighting.event_id),
            detectors=(finding.detector,),
            measures=finding.measures[:MAX_MEASURES],
            atlas=finding.atlas,
            last_position=finding.position,
            taxonomy=taxonomy_of(finding.kind, finding.atlas),
            held_by=(_holder(finding),),
        )
        return replace(incident, why=sentence(incident.kind, incident.measures, incident.onset))

    def _fed(self, incident: Incident, sighting: Sighting) -> Incident:
        finding = sighting.finding
        known = {(s.type, s.id) for s in incident.subjects}
        new = tuple(s for s in _subjects(finding, sighting.event_id) if (s.type, s.id) not in known)
        severity = self._severity(sighting)
        worse = severity if _RANK[severity] > _RANK[incident.severity] else incident.severity
        measures = _merged(incident, finding)
        if worse != incident.severity and incident.status == "silenced":
            incident = _audible(incident)  # the silence was for what it was
        return replace(
            incident,
            severity=worse,
            severity_max=worse if _RANK[worse] > _RANK[incident.severity_max] else incident.severity_max,
            subjects=incident.subjects + new,
            detectors=tuple(dict.fromkeys((*incident.detectors, finding.detector))),
            measures=measures,
            why=sentence(incident.kind, measures, incident.onset),
            atlas=tuple(dict.fromkeys((*incident.atlas, *finding.atlas))),
            last_position=max(incident.last_position, finding.position),
            alarms=incident.alarms + 1,
            held_by=tuple(dict.fromkeys((*incident.held_by, _holder(finding)))),
        )


def _audible(incident: Incident) -> Incident:
    status: Status = "open" if incident.acknowledged_by is None else "acknowledged"
    return replace(incident, status=status, silenced_until=None)


def _clients(incident: Incident) -> set[str]:
    return {s.id for s in incident.subjects if s.type == "client"}


def _holder(finding: Finding) -> str:
    return finding.cause or finding.account


def _merged(incident: Incident, finding: Finding) -> tuple[Measure, ...]:
    """What is known of a stream stays as it was at its first alarm; a rule's measure is brought up to date."""
    known = {(m.stream, m.statistic): m for m in incident.measures}
    for measure in finding.measures:
        key = (measure.stream, measure.statistic)
        if key not in known or finding.account == "rules":
            known[key] = measure
    return tuple(known.values())[:MAX_MEASURES]


def _is_same_cause(incident: Incident, finding: Finding) -> bool:
    if finding.cause and finding.cause in incident.held_by:
        return True
    if JOINS in finding.detail and not set(finding.detail[JOINS].split("\n")).isdisjoint(incident.held_by):
        return True
    if finding.position - incident.last_position > SAME_CAUSE_EVENTS:
        return False
    if incident.account == finding.account:
        return not incident.cause and not finding.cause
    if {incident.account, finding.account} != {"rules", "drift"}:
        return False
    return not {(s.type, s.id) for s in incident.subjects}.isdisjoint((s.type, s.id) for s in finding.subjects)


def _subjects(finding: Finding, event_id: str | None) -> tuple[IncidentSubject, ...]:
    return tuple(IncidentSubject(s.type, s.id, finding.time, event_id) for s in finding.subjects)
