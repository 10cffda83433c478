"""Signs of life: while the watch is kept, an address is asked and an alert kept firing; silence is the alarm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import httpx

from alerts.sinks.alertmanager import DeliveryError, post
from alerts.times import rfc3339

ALERT: Final = "ModelWardenHeartbeat"
_TIMEOUT = httpx.Timeout(5.0, connect=2.0)


class HeartbeatError(Exception):
    """A sign of life was not taken. The text names the host and its answer, not the path, which may be secret."""


def ask(url: str) -> None:
    """GET the address. HeartbeatError unless the answer is 2xx; redirects are not followed."""
    host = httpx.URL(url).host
    try:
        with (
            httpx.Client(timeout=_TIMEOUT, follow_redirects=False) as client,
            client.stream("GET", url) as answer,
        ):
            status = answer.status_code
    except httpx.HTTPError as error:
        raise HeartbeatError(f"heartbeat.url: {host} cannot be reached ({type(error).__name__})") from None
    if not 200 <= status < 300:
        raise HeartbeatError(f"heartbeat.url: {host} answered {status}")


def keep_firing(urls: Sequence[str], group: str, now: float, every: float) -> None:
    """Post the alert to every Alertmanager; it resolves by itself two intervals from now. HeartbeatError if none took
    it."""
    alert = {
        "labels": {"alertname": ALERT, "severity": "none", "group": group},
        "annotations": {"summary": "ModelWarden is watching. Page somebody when this alert resolves."},
        "startsAt": rfc3339(now),
        "endsAt": rfc3339(now + 2 * every),
    }
    refused = []
    with httpx.Client(timeout=_TIMEOUT, follow_redirects=False) as client:
        for url in urls:
            try:
                post(client, url, [alert])
            except DeliveryError as error:
                refused.append(str(error))
    if urls and len(refused) == len(urls):
        raise HeartbeatError(refused[0])
