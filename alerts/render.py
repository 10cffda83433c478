"""Incidents as JSON (interfaces.md, section 4), the same for backtest, CLI and webhooks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from alerts.incidents import Incident, IncidentSubject
from alerts.taxonomy import SCHEMES
from detectors.base import Measure

Resolve = Callable[[str], str]
"""Pseudonym → the identifier behind it, or the pseudonym itself where that is not known or not allowed."""

IDENTITY_SUBJECTS = frozenset({"client", "principal", "source_ip"})
"""Subject types whose id is a pseudonym."""
PSEUDONYM = re.compile(r"\bc_[a-z2-7]{26}\b")


def incident_json(incident: Incident, resolve: Resolve = lambda pseudonym: pseudonym) -> dict[str, Any]:
    """The incident with RFC 3339 times in UTC. A number that is not finite becomes null.

    `resolve` is asked for the pseudonyms among subjects, in streams and in the why.
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
        "tenant": incident.tenant,
        "model_version": incident.model_version,
        "opened_at": rfc3339(incident.opened_at),
        "resolved_at": rfc3339(incident.resolved_at),
        "resolution": incident.resolution,
        "acknowledged_by": incident.acknowledged_by,
        "onset": rfc3339(incident.onset),
        "subjects": [_subject(s, resolve) for s in incident.subjects],
        "detectors": list(incident.detectors),
        "evidence": [_evidence(m, clear) for m in incident.measures],
        "why": clear(incident.why),
        "alarms": incident.alarms,
        "taxonomy": {scheme: list(incident.taxonomy.get(scheme, ())) for scheme in SCHEMES},
    }


def pseudonyms_in(incident: Incident) -> set[str]:
    """Every pseudonym that `incident_json` would ask about."""
    ids = {s.id for s in incident.subjects if s.type in IDENTITY_SUBJECTS}
    texts = [incident.why, *(m.stream for m in incident.measures)]
    return ids | {name for text in texts for name in PSEUDONYM.findall(text)}


def rfc3339(at: float | None) -> str | None:
    """Epoch seconds as RFC 3339 in UTC with milliseconds; None where there is no such time."""
    if at is None:
        return None
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return None


def _subject(subject: IncidentSubject, resolve: Resolve) -> dict[str, Any]:
    return {
        "type": subject.type,
        "id": resolve(subject.id) if subject.type in IDENTITY_SUBJECTS else subject.id,
        "since": rfc3339(subject.since),
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
        "from": rfc3339(measure.since),
        "to": rfc3339(measure.until),
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
