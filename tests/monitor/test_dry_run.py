"""`notify: off`: who would have been told, as commands show it and as the log says it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from alerts.incidents import Incident, IncidentBook, Sighting
from detectors.base import Finding, Measure, Severity
from monitor.config import Config, parse_config
from monitor.dry_run import ANYBODY, DryRun, report, would_page

AT = 1_763_625_600.0
DAY = 86_400.0
RECEIVERS = """
receivers:
  am: {type: alertmanager, urls: ["http://127.0.0.1:9093"]}
  hook: {type: webhook, url: "https://example.com/h"}
"""


def config(text: str = RECEIVERS, notify: str = "off") -> Config:
    return parse_config(f"notify: {notify}\n{text}", Path("modelwarden.yaml"))


def incident(severity: Severity = "warning", kind: str = "feature_drift", cause: str = "a") -> Incident:
    measure = Measure("d", "s", 1.0, 0.0, "share", 1, AT, AT)
    finding = Finding(
        detector="d", kind=kind, account="rules", severity=severity, time=AT, row=0, position=0, subjects=(),
        onset=AT, measures=(measure,), cause=cause,
    )  # fmt: skip
    book = IncidentBook(())
    book.apply(Sighting(finding, "model:/m", "m", "", cause, None))
    (made,) = book.open()
    return made


def test_every_receiver_would_be_told_of_a_warning_and_none_of_an_info() -> None:
    assert would_page(config(), incident()) == ["am", "hook"]
    assert would_page(config(), incident("info")) == []
    assert would_page(config(notify="on"), incident()) == []
    assert would_page(config(""), incident()) == [ANYBODY]
    assert would_page(config(), replace(incident(), status="silenced")) == []


def test_routes_are_followed() -> None:
    routed = config(RECEIVERS + "routes: [{receiver: hook, severity: info, kinds: [data_quality]}]\n")
    assert would_page(routed, incident()) == []
    assert would_page(routed, incident("info", "data_quality")) == ["hook"]


def test_the_report_counts_by_receiver_kind_and_model() -> None:
    stored = [incident(cause="a"), replace(incident(cause="b"), opened_at=AT - 2 * DAY), incident("info", cause="c")]
    found = report(config(), stored, AT + 60)
    assert found == {
        "notify": "off",
        "pages": 4,
        "would_page": [
            {"receiver": name, "kind": "feature_drift", "model": "m", "pages": 2, "last_day": 1}
            for name in ("am", "hook")
        ],
    }
    assert report(config(notify="on"), stored, AT) is None


def told(logs: list[Any]) -> list[tuple[int, list[str]]]:
    return [(line["pages"], line["would_page"]) for line in logs if "would have paged" in line["event"]]


def test_the_log_tells_each_page_once_every_day_and_at_the_end() -> None:
    dry = DryRun(config(), AT)
    with capture_logs() as logs:
        dry.known([incident(cause="old")])
        dry.note([incident(cause="old"), incident(cause="new")], AT + 10)
        dry.note([replace(incident(cause="new"), alarms=2)], AT + 20)
        assert told(logs) == []
        dry.note([], AT + DAY)
        dry.note([incident("info", cause="later")], AT + DAY + 1)
        dry.note([incident("critical", cause="later")], AT + DAY + 2)  # it became severe enough
        dry.tell(AT + DAY + 3)
    lines = [f"1 × {name}: feature_drift of m" for name in ("am", "hook")]
    assert told(logs) == [(2, lines), (2, lines)]


def test_nothing_is_logged_while_notify_is_on() -> None:
    dry = DryRun(config(notify="on"), AT)
    with capture_logs() as logs:
        dry.note([incident()], AT + 2 * DAY)
        dry.tell(AT + 2 * DAY)
    assert told(logs) == []


@pytest.mark.parametrize("notify", ["on", "off"])
def test_no_alertmanager_is_told_while_notify_is_off(notify: str) -> None:
    from monitor.receivers import alertmanagers

    assert [t.name for t in alertmanagers(config(notify=notify))] == (["am"] if notify == "on" else [])
