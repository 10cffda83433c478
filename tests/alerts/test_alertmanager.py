"""Reconciliation with Alertmanager: one alert per label set, resolved when the last incident closes."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from alerts.advice import FIRST_STEP
from alerts.incidents import Incident, IncidentBook
from alerts.sinks.alertmanager import RESEND_RESOLVED, DeliveryError, Notified, labels_of, post, reconcile
from tests.alerts.test_incidents import sighting

NOW, EVERY = 10_000.0, 15.0


def incident(position: int = 100) -> Incident:
    made = IncidentBook().apply(sighting(position, trigger=f"t/0/{position}/0"))
    assert made
    return made


def test_labels_identify_and_never_change_with_the_episode() -> None:
    one, other = incident(100), incident(5_000)
    assert labels_of(one) == labels_of(other)
    assert labels_of(one) == {
        "alertname": "ModelWardenFeatureDrift",
        "model": "credit",
        "kind": "feature_drift",
        "severity": "warning",
    }


def test_incidents_of_one_label_set_are_one_alert_that_counts_them() -> None:
    many = [incident(100 + 2_000 * i) for i in range(7)]
    alerts, remember, forget = reconcile(many, [], NOW, EVERY)
    assert len(alerts) == 1 and len(remember) == 1 and not forget
    assert alerts[0]["annotations"]["count"] == "7"
    assert alerts[0]["annotations"]["what_to_do"] == FIRST_STEP[alerts[0]["labels"]["kind"]]
    assert len(alerts[0]["annotations"]["incidents"].split(", ")) == 5
    assert alerts[0]["startsAt"] == "1970-01-01T00:18:20.000Z"
    assert alerts[0]["endsAt"] == "1970-01-01T02:47:25.000Z"


def test_an_alert_is_sent_resolved_for_a_while_and_then_forgotten() -> None:
    (owned,), _, _ = reconcile([incident()], [], NOW, EVERY, lambda i: "risk-team")
    assert owned["annotations"]["owner"] == "risk-team" and "owner" not in owned["labels"]
    _, told, _ = reconcile([incident()], [], NOW, EVERY)
    alerts, remember, forget = reconcile([], told, NOW + 60, EVERY)
    assert alerts[0]["endsAt"] == "1970-01-01T02:47:40.000Z" and not forget
    assert remember[0].resolved_at == NOW + 60
    alerts, again, _ = reconcile([], remember, NOW + 90, EVERY)
    assert alerts[0]["endsAt"] == "1970-01-01T02:47:40.000Z"
    alerts, remember, forget = reconcile([], again, NOW + 61 + RESEND_RESOLVED, EVERY)
    assert not alerts and not remember and forget == again


def test_a_change_of_severity_resolves_the_old_labels() -> None:
    first = incident()
    _, told, _ = reconcile([first], [], NOW, EVERY)
    worse = replace(first, severity="critical", severity_max="critical")
    alerts, _, _ = reconcile([worse], told, NOW + 15, EVERY)
    by_severity = {a["labels"]["severity"]: a["endsAt"] for a in alerts}
    assert by_severity["critical"] > by_severity["warning"] == "1970-01-01T02:46:55.000Z"


def test_a_returning_alert_fires_again() -> None:
    labels = labels_of(incident())
    told = [Notified(labels, NOW - 500, NOW - 60, NOW - 60)]
    alerts, remember, _ = reconcile([incident()], told, NOW, EVERY)
    assert len(alerts) == 1 and remember[0].resolved_at is None


def test_silenced_incidents_are_not_sent() -> None:
    assert reconcile([replace(incident(), status="silenced")], [], NOW, EVERY)[0] == []


def test_an_onset_ahead_of_the_clock_does_not_make_an_alert_that_ends_before_it_starts() -> None:
    early = replace(incident(), opened_at=NOW + 1e6)
    alerts, _, _ = reconcile([early], [], NOW, EVERY)
    assert alerts[0]["startsAt"] < alerts[0]["endsAt"]


def test_a_refusal_names_the_address_and_the_answer() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(400, text="bad label"))
    with (
        httpx.Client(transport=transport) as client,
        pytest.raises(DeliveryError, match=r"http://am:9093.*400.*bad label"),
    ):
        post(client, "http://am:9093/", [])
