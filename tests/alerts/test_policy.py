"""Who is told of which incident."""

from __future__ import annotations

from dataclasses import replace

import pytest

from alerts.incidents import Incident, IncidentBook
from alerts.policy import Policy, Route
from detectors.base import Severity
from tests.alerts.test_incidents import sighting


def incident(severity: Severity = "warning", tenant: str = "", model: str | None = "credit") -> Incident:
    made = IncidentBook().apply(sighting())
    assert made
    return replace(made, severity=severity, tenant=tenant, model=model)


@pytest.mark.parametrize(("severity", "sent"), [("info", False), ("warning", True), ("critical", True)])
def test_without_routes_warning_and_above_goes_everywhere(severity: Severity, sent: bool) -> None:
    assert Policy().sends("anybody", incident(severity)) is sent


@pytest.mark.parametrize(
    ("route", "sent"),
    [
        (Route(("a",)), True),
        (Route(("b", "a")), True),
        (Route(("b",)), False),
        (Route(("a",), "info"), True),
        (Route(("a",), "critical"), False),
        (Route(("a",), kinds=("feature_drift",)), True),
        (Route(("a",), kinds=("schema_change",)), False),
        (Route(("a",), models=("credit",)), True),
        (Route(("a",), models=("bank/credit",)), True),
        (Route(("a",), models=("shop/credit", "fraud")), False),
    ],
)
def test_a_route_says_severity_kinds_and_models(route: Route, sent: bool) -> None:
    assert Policy([route]).sends("a", incident(tenant="bank")) is sent
    assert Policy([Route(("z",)), route]).sends("a", incident(tenant="bank")) is sent


def test_an_incident_without_a_model_takes_no_route_of_models() -> None:
    assert not Policy([Route(("a",), models=("credit", "None", "/None"))]).sends("a", incident(model=None))
    assert Policy([Route(("a",))]).sends("a", incident(model=None))
