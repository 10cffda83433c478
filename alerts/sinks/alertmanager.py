"""Alertmanager v2: open incidents as firing alerts, one alert per label set, reconciled and never queued.

Promise: while any incident with given labels (alertname, model, kind, severity, tenant) is open, Alertmanager shows
one alert for them; when the last one closes, or its severity changes, that alert is sent resolved. Alertmanager
forgets an alert that is not re-sent, so everything is sent again at each interval, from SQL, whatever was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from alerts.advice import FIRST_STEP
from alerts.incidents import Incident
from alerts.render import Owner
from alerts.times import rfc3339

NEWEST = 5
"""Incidents told in an alert's annotations; the rest are counted."""
RESEND_RESOLVED = 360.0
"""Seconds a resolved alert goes on being sent: Alertmanager's own resolve_timeout is 300."""
Labels = dict[str, str]


class DeliveryError(Exception):
    """A receiver did not take a message. The text names the receiver's address and its answer."""


@dataclass(frozen=True, slots=True)
class Notified:
    """What a receiver was last told of one label set. Times are wall-clock epoch seconds."""

    labels: Labels
    starts_at: float
    last_sent: float
    resolved_at: float | None = None


def labels_of(incident: Incident) -> Labels:
    """Identity of the alert an incident belongs to: nothing in it changes from episode to episode."""
    name = "ModelWarden" + "".join(part.capitalize() for part in incident.kind.split("_"))
    labels = {
        "alertname": name,
        "model": incident.model or "",
        "kind": incident.kind,
        "severity": incident.severity,
        "tenant": incident.tenant,
    }
    return {k: v for k, v in labels.items() if v}


def reconcile(
    open_incidents: Iterable[Incident],
    told: Iterable[Notified],
    now: float,
    interval: float,
    owner: Owner = lambda incident: None,
) -> tuple[list[dict[str, Any]], list[Notified], list[Notified]]:
    """What to send now, given what is open and what the receiver was told.

    Returns the alerts to post, the rows to remember once they are posted, and the rows to forget.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Incident]] = {}
    for incident in open_incidents:
        if incident.status != "silenced":
            groups.setdefault(_key(labels_of(incident)), []).append(incident)
    alerts, remember, forget = [], [], []
    for key, incidents in sorted(groups.items()):
        starts = min(now, *(i.opened_at for i in incidents))
        remember.append(Notified(dict(key), starts, now))
        alerts.append(_alert(dict(key), starts, now + 3 * interval, _annotations(incidents, owner)))
    for row in told:
        if _key(row.labels) in groups:
            continue
        ended = now if row.resolved_at is None else row.resolved_at
        if now - ended > RESEND_RESOLVED:
            forget.append(row)
            continue
        remember.append(replace(row, last_sent=now, resolved_at=ended))
        alerts.append(_alert(row.labels, row.starts_at, max(ended, row.starts_at), {}))
    return alerts, remember, forget


def post(client: httpx.Client, url: str, alerts: Sequence[dict[str, Any]]) -> None:
    """Send to one Alertmanager. DeliveryError when it cannot be reached or refuses."""
    try:
        answer = client.post(f"{url.rstrip('/')}/api/v2/alerts", json=list(alerts))
    except httpx.HTTPError as error:
        raise DeliveryError(f"Alertmanager at {url} cannot be reached: {error}") from error
    if answer.status_code != 200:
        raise DeliveryError(f"Alertmanager at {url} answered {answer.status_code}: {answer.text[:200]}")


def _key(labels: Labels) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def _alert(labels: Labels, starts: float, ends: float, annotations: Labels) -> dict[str, Any]:
    return {"labels": labels, "annotations": annotations, "startsAt": rfc3339(starts), "endsAt": rfc3339(ends)}


def _annotations(incidents: Sequence[Incident], owner: Owner) -> Labels:
    newest = sorted(incidents, key=lambda i: (i.opened_at, i.id), reverse=True)
    first = newest[0]
    subjects = list(dict.fromkeys(f"{s.type} {s.id}" for i in newest for s in i.subjects))
    more = f" (and {len(subjects) - NEWEST} more)" if len(subjects) > NEWEST else ""
    owned = owner(first)
    return {
        **({} if owned is None else {"owner": owned}),
        "summary": f"{first.model or 'ModelWarden'}: {first.kind.replace('_', ' ')}",
        "description": "\n".join(f"{i.id}: {i.why}" for i in newest[:NEWEST]),
        "why": first.why,
        "what_to_do": FIRST_STEP.get(first.kind, ""),
        "subjects": ", ".join(subjects[:NEWEST]) + more,
        "incidents": ", ".join(i.id for i in newest[:NEWEST]),
        "count": str(len(incidents)),
        "onset": rfc3339(min(i.onset for i in incidents)),
    }
