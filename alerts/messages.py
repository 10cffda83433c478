"""What a change of an incident is worth telling, and the message that tells it (Standard Webhooks 1.0.0), pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple

from alerts.incidents import Incident
from alerts.render import incident_json
from alerts.times import rfc3339

Event = Literal["incident.opened", "incident.updated", "incident.acknowledged", "incident.resolved"]
MAX_BYTES: Final = 20_000
"""Of a body: the specification asks senders to stay below."""


class Change(NamedTuple):
    """One thing to tell, with the incident as it was then."""

    event: Event
    incident: Incident
    mark: str = ""
    """Tells it apart from a like message about the same state, such as before a silence."""


def changes(old: Incident | None, new: Incident) -> list[Change]:
    """What to tell a receiver that knows `old` (None: that knows nothing of it), in this order.

    More alarms of the same subjects and severity are not worth a message; a silenced incident is told of when it
    closes, if it was told of before.
    """
    if new.status == "silenced":
        return []
    told: list[Change] = []
    if old is None:
        at_first = replace(new, status="open", resolved_at=None, resolution="", acknowledged_by=None)
        told.append(Change("incident.opened", at_first))
    elif old.status == "silenced" and new.status != "resolved":
        # Whatever was kept from the receiver meanwhile: it is told how things stand.
        told.append(Change("incident.updated", new, f"silenced until {old.silenced_until}"))
    elif _shape(old) != _shape(new):
        told.append(Change("incident.updated", replace(new, status=old.status, resolved_at=None, resolution="")))
    if new.acknowledged_by is not None and (old is None or old.acknowledged_by != new.acknowledged_by):
        told.append(Change("incident.acknowledged", replace(new, status="acknowledged", resolved_at=None)))
    if new.status == "resolved":
        told.append(Change("incident.resolved", new))
    return told


def message_key(receiver: str, change: Change) -> str:
    """Idempotency key (`webhook-id`): the same change of the same incident makes the same key again."""
    incident = change.incident
    digest = hashlib.blake2b(digest_size=15)
    parts: list[object] = [receiver, incident.id, change.event]
    if change.event == "incident.updated":
        parts += [_shape(incident), incident.alarms, *([change.mark] if change.mark else [])]
    elif change.event == "incident.acknowledged":
        parts += [incident.acknowledged_by, incident.alarms]
    digest.update(json.dumps(parts).encode())
    return "msg_" + digest.hexdigest()


def message_body(change: Change, at: float, owner: str | None = None) -> str:
    """`{"type", "timestamp", "data"}` as it is signed and sent. `at`: when it changed, epoch seconds.

    An incident too large for one message keeps its newest subjects and its first evidence; `omitted` then says how
    many of each were left out.
    """
    data = incident_json(change.incident, owner=owner)
    subjects, evidence = data["subjects"], data["evidence"]
    room = max(len(subjects), len(evidence))
    while len(body := _body(change.event, at, data)) > MAX_BYTES and room > 1:
        room //= 2
        cut = {"subjects": subjects[-room:], "evidence": evidence[:room]}
        omitted = {"subjects": max(0, len(subjects) - room), "evidence": max(0, len(evidence) - room)}
        data = {**data, **cut, "omitted": omitted}
    return body


def _body(event: Event, at: float, data: dict[str, Any]) -> str:
    return json.dumps({"type": event, "timestamp": rfc3339(at), "data": data})


def _shape(incident: Incident) -> list[object]:
    """What makes an update: severity, and who or what it is about."""
    return [incident.severity, sorted((s.type, s.id) for s in incident.subjects)]
