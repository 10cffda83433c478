"""Incidents as JSON: the promised names, times in UTC, no number that JSON does not have, identities resolved."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.advice import FIRST_STEP
from alerts.incidents import Incident, IncidentSubject
from alerts.render import incident_json, pseudonyms_in
from alerts.times import rfc3339_or_none
from detectors.base import Measure

NAME = "c_" + "a2" * 13
PROMISED = {
    "id", "kind", "severity", "severity_max", "status", "model", "model_version", "opened_at", "resolved_at", "onset",
    "subjects", "detectors", "evidence", "why", "taxonomy",
}  # fmt: skip


def incident(**changes: Any) -> Incident:
    made = Incident(
        id="inc_1", subject="model:/credit-risk", model="credit-risk", tenant="", kind="model_extraction",
        account="attack", cause="", severity="critical", severity_max="critical", status="open", model_version="7",
        opened_at=1_795_162_200.0, resolved_at=None, onset=1_795_162_032.5, why="one sentence",
        subjects=(IncidentSubject("client", NAME, 1_795_162_200.0, "p-9"),), detectors=("outlier_queries",),
        measures=(Measure("outlier_queries", "far", 0.61, 0.04, "share", 120, 1.0, 2.0, "income", "loc"),),
        atlas=(), last_position=1, taxonomy={"mitre_atlas": ["AML.T0024.002"], "owasp_ml": [], "nist_aml": []},
    )  # fmt: skip
    return replace(made, **changes)


def test_every_promised_name_is_there_with_its_value() -> None:
    row = incident_json(incident())
    assert row.keys() >= PROMISED
    assert row["opened_at"] == "2026-11-20T08:10:00.000Z" and row["onset"] == "2026-11-20T08:07:12.500Z"
    assert row["resolved_at"] is None
    assert row["what_to_do"] == FIRST_STEP["model_extraction"]
    assert incident_json(incident(kind="of_a_later_version"))["what_to_do"] == ""
    subject = {"type": "client", "id": NAME, "since": "2026-11-20T08:10:00.000Z", "trigger_event_id": "p-9"}
    assert row["subjects"] == [subject]
    assert row["evidence"] == [
        {
            "detector": "outlier_queries", "stream": "far", "field": "income", "statistic": "loc", "observed": 0.61,
            "expected": 0.04, "unit": "share", "n": 120, "from": "1970-01-01T00:00:01.000Z",
            "to": "1970-01-01T00:00:02.000Z",
        }
    ]  # fmt: skip
    assert row["taxonomy"] == {"mitre_atlas": ["AML.T0024.002"], "owasp_ml": [], "nist_aml": []}


def test_identities_are_resolved_among_subjects_and_in_texts_and_nowhere_else() -> None:
    measure = Measure("d", f"far/{NAME}", 1.0, 0.0, "share", 1, 0.0, 0.0, NAME)
    subjects = (IncidentSubject("client", NAME, 0.0, None), IncidentSubject("feature", NAME, 0.0, None))
    shown = incident(subjects=subjects, why=f"client {NAME}, not {NAME}x, moved", measures=(measure,))
    row = incident_json(shown, {NAME: "acme"}.__getitem__)
    assert [s["id"] for s in row["subjects"]] == ["acme", NAME]
    assert row["why"] == f"client acme, not {NAME}x, moved"
    assert row["evidence"][0]["stream"] == "far/acme" and row["evidence"][0]["field"] == NAME
    assert pseudonyms_in(shown) == {NAME}


@given(st.floats(), st.floats(), st.floats())
def test_numbers_that_json_does_not_have_become_null(observed: float, expected: float, at: float) -> None:
    measure = Measure("d", "s", observed, expected, "mean", 1, at, at)
    row = incident_json(incident(measures=(measure,), onset=at, opened_at=at, resolved_at=at))
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    for name, value in (("observed", observed), ("expected", expected)):
        assert row["evidence"][0][name] == (value if abs(value) < float("inf") else None)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (None, None),
        (float("nan"), None),
        (float("-inf"), None),
        (1e300, None),
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_795_162_032.1239, "2026-11-20T08:07:12.123Z"),
    ],
)
def test_times_end_in_z_with_milliseconds(at: float | None, text: str | None) -> None:
    assert rfc3339_or_none(at) == text
