"""An alert that means nothing, posted to each receiver to see whether it arrives."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import httpx

from alerts.incidents import Incident, IncidentSubject
from alerts.messages import changes, message_body, message_key
from alerts.sinks.alertmanager import DeliveryError, post
from alerts.sinks.webhook import Webhook
from alerts.times import rfc3339
from monitor.config import AlertmanagerReceiver, Config, WebhookReceiver

WHY: Final = "This is a test, sent by hand: nothing is wrong."
LASTS: Final = 60.0
"""Seconds until Alertmanager takes the alert for resolved."""
_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a receiver took the alert, and what it said."""

    receiver: str
    type: str
    ok: bool
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        return asdict(self)


def send_samples(config: Config, now: float) -> Iterator[Outcome]:
    """Post to each receiver, whatever routes and `notify` say. `now`: epoch seconds. Nothing is stored or retried."""
    incident = sample_incident(now)
    for name, receiver in config.receivers.items():
        if isinstance(receiver, AlertmanagerReceiver):
            yield _alertmanager(name, receiver, now)
        else:
            yield _webhook(name, receiver, incident, now)


def sample_incident(now: float) -> Incident:
    """Opened and resolved at once, so that nobody is left with an open one."""
    return Incident(
        id=f"inc_test_{secrets.token_hex(8)}", subject="daemon", model=None, tenant="", kind="monitor_health",
        account="rules", cause="test", severity="warning", severity_max="warning", status="resolved",
        model_version=None, opened_at=now, resolved_at=now, onset=now, why=WHY,
        subjects=(IncidentSubject("series", "test", now, None),), detectors=(), measures=(), atlas=(),
        last_position=0, resolution="test",
    )  # fmt: skip


def _webhook(name: str, receiver: WebhookReceiver, incident: Incident, now: float) -> Outcome:
    """The messages of an incident that opens and resolves, made and signed as those of a real one."""
    secret = None if receiver.secret_file is None else receiver.secret_file.path
    webhook = Webhook(receiver.url, secret, bool(receiver.allow_private))
    said = ""
    try:
        for change in changes(None, incident):
            answer = webhook.post(message_key(name, change), message_body(change, now).encode(), now)
            said = f"{webhook.host}: {change.event} answered {answer.status} {answer.text}".rstrip()
            if not 200 <= answer.status < 300:
                return Outcome(name, "webhook", False, said)
    except DeliveryError as error:
        return Outcome(name, "webhook", False, str(error))
    finally:
        webhook.close()
    return Outcome(name, "webhook", True, said if secret is not None else f"{said} (not signed: no secret_file)")


def _alertmanager(name: str, receiver: AlertmanagerReceiver, now: float) -> Outcome:
    """A label set of its own, so that no real alert is resolved with it."""
    labels = {"alertname": "ModelWardenTest", "kind": "monitor_health", "severity": "warning", "test": "true"}
    alert = {
        "labels": labels,
        "annotations": {"summary": WHY},
        "startsAt": rfc3339(now),
        "endsAt": rfc3339(now + LASTS),
    }
    failures = []
    with httpx.Client(timeout=_TIMEOUT, follow_redirects=False) as client:
        for url in receiver.urls:
            try:
                post(client, str(url), [alert])
            except DeliveryError as error:
                failures.append(str(error))
    taken = len(receiver.urls) - len(failures)
    said = f"{taken} of {len(receiver.urls)} took it; it ends in {LASTS:.0f} s"
    return Outcome(name, "alertmanager", not failures, "; ".join(failures) or said)
