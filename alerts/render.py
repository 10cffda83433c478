"""Incidents as JSON, the same for backtest, CLI and webhooks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from alerts.advice import FIRST_STEP
from alerts.incidents import Incident, IncidentSubject
from alerts.taxonomy import SCHEMES
from alerts.times import rfc3339_or_none
from detectors.base import Measure, Profile

Owner = Callable[[Incident], str | None]
"""Incident → the team or person that owns its model, None where nobody is named."""
Resolve = Callable[[str], str]
"""Pseudonym → the identifier behind it, or the pseudonym itself where that is not known or not allowed."""

IDENTITY_SUBJECTS = frozenset({"client", "principal", "source_ip"})
"""Subject types whose id is a pseudonym."""
PSEUDONYM = re.compile(r"\bc_[a-z2-7]{26}\b")


def incident_json(
    incident: Incident, resolve: Resolve = lambda pseudonym: pseudonym, owner: str | None = None
) -> dict[str, Any]:
    """The incident with RFC 3339 times in UTC. A number that is not finite becomes null.

    `owner` is the team or person that owns its model. `resolve` is asked for the pseudonyms among subjects, in streams
    and in the why.
    """

    def clear(text: str) -> str:
        return PSEUDONYM.sub(lambda found: resolve(found[0]), text)

    return {
        "id": incident.id,
        "kind": incident.kind,
        "severity": incident.severity,
        "severity_max": incident.severity_max,
        "status": incident.status,
        "model": incident.model,
        "owner": owner,
        "tenant": incident.tenant,
        "model_version": incident.model_version,
        "opened_at": rfc3339_or_none(incident.opened_at),
        "resolved_at": rfc3339_or_none(incident.resolved_at),
        "resolution": incident.resolution,
        "acknowledged_by": incident.acknowledged_by,
        "silenced_until": rfc3339_or_none(incident.silenced_until),
        "onset": rfc3339_or_none(incident.onset),
        "subjects": [_subject(s, resolve) for s in incident.subjects],
        "detectors": list(incident.detectors),
        "evidence": [_evidence(m, clear) for m in incident.measures],
        "why": clear(incident.why),
        "what_to_do": FIRST_STEP.get(incident.kind, ""),  # a kind stored by another version has none
        "alarms": incident.alarms,
        "taxonomy": {scheme: list(incident.taxonomy.get(scheme, ())) for scheme in SCHEMES},
    }


def in_clear(incident: Incident, resolve: Resolve) -> Incident:
    """The incident with identifiers in place of pseudonyms among its subjects and in its why."""
    subjects = (replace(s, id=resolve(s.id)) if s.type in IDENTITY_SUBJECTS else s for s in incident.subjects)
    why = PSEUDONYM.sub(lambda found: resolve(found[0]), incident.why)
    return replace(incident, subjects=tuple(subjects), why=why)


def pseudonyms_in(incident: Incident) -> set[str]:
    """Every pseudonym that `incident_json` would ask about."""
    ids = {s.id for s in incident.subjects if s.type in IDENTITY_SUBJECTS}
    texts = [incident.why, *(m.stream for m in incident.measures)]
    return ids | {name for text in texts for name in PSEUDONYM.findall(text)}


def revealed(data: Mapping[str, Any], resolve: Resolve) -> dict[str, Any]:
    """A rendered incident with its pseudonyms resolved, in the places where `incident_json` would have asked."""

    def clear(text: str) -> str:
        return PSEUDONYM.sub(lambda found: resolve(found[0]), text)

    def known(subject: Mapping[str, Any]) -> dict[str, Any]:
        return {**subject, "id": resolve(subject["id"]) if subject["type"] in IDENTITY_SUBJECTS else subject["id"]}

    subjects = [known(s) for s in data["subjects"]]
    evidence = [{**m, "stream": clear(m["stream"])} for m in data["evidence"]]
    return {**data, "subjects": subjects, "evidence": evidence, "why": clear(data["why"])}


def _subject(subject: IncidentSubject, resolve: Resolve) -> dict[str, Any]:
    return {
        "type": subject.type,
        "id": resolve(subject.id) if subject.type in IDENTITY_SUBJECTS else subject.id,
        "since": rfc3339_or_none(subject.since),
        "trigger_event_id": subject.trigger_event_id,
    }


def _evidence(measure: Measure, clear: Callable[[str], str]) -> dict[str, Any]:
    return {
        "detector": measure.detector,
        "stream": clear(measure.stream),
        "field": measure.field,
        "statistic": measure.statistic,
        "observed": _finite(measure.observed),
        "expected": _finite(measure.expected),
        "unit": measure.unit,
        "n": int(measure.n),
        "from": rfc3339_or_none(measure.since),
        "to": rfc3339_or_none(measure.until),
        **({} if measure.profile is None else {"distribution": profile_json(measure.profile)}),
    }


def profile_json(profile: Profile) -> dict[str, Any]:
    """A distribution: names of its bins (a categorical column) or their edges, quantiles as p05: [before, after]."""
    return {
        **({"bins": list(profile.names)} if profile.names else {"edges": list(profile.edges)}),
        "before": list(profile.before),
        "after": list(profile.after),
        "quantiles": {f"p{round(100 * q):02d}": [a, b] for q, a, b in profile.quantiles},
        "n": profile.n,
    }


def profile_of(data: Mapping[str, Any]) -> Profile:
    """The inverse of `profile_json`."""
    quantiles = tuple((int(name[1:]) / 100, float(a), float(b)) for name, (a, b) in data["quantiles"].items())
    names, edges = tuple(data.get("bins", ())), tuple(data.get("edges", ()))
    return Profile(names, edges, tuple(data["before"]), tuple(data["after"]), quantiles, int(data["n"]))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
