"""Segments: which are watched, and that one moves alone or with the whole."""

from __future__ import annotations

from typing import Any

import numpy as np

from alerts.incidents import Incident, IncidentBook, Sighting
from detectors.base import Finding, Rows, registry
from detectors.drift.segments import Segment, segments_of
from monitor.intake.columns import build_batch, build_reference, infer_schema
from monitor.intake.events import Event, EventType
from monitor.lineup import PanelSettings
from monitor.panel import Panel

ONLY = {"predictive_drift", "segment_drift"}


def events(n: int, seed: int, moved: str = "") -> list[Event]:
    """`moved`: where income is 1.5 times as high; "all" for everywhere."""
    rng = np.random.default_rng(seed)
    region = rng.choice(["EU", "US", "ASIA"], n, p=[0.6, 0.35, 0.05])
    income = rng.lognormal(3.5, 0.4, n)
    group = rng.choice(["new", "old"], n)
    return [
        Event(
            EventType.PREDICTION,
            1_763_625_600.0 + 60 * i,
            event_id=f"e{i}",
            segment=str(group[i]),
            features={
                "income": float(income[i]) * (1.5 if moved in ("all", region[i]) else 1),
                "region": str(region[i]),
            },
        )
        for i in range(n)
    ]


class Watched:
    def __init__(self, segments: tuple[str, ...]) -> None:
        rows = events(600, 1)
        self.schema = infer_schema(rows)
        reference = build_reference(rows, self.schema, "file", "model:/m")

        settings: dict[str, dict[str, Any]] = {name: {"enabled": name in ONLY} for name in registry()}
        self.panel = Panel("model:/m", "m", reference, PanelSettings(detectors=settings, segments=segments))
        self.book = IncidentBook()
        self.incidents: dict[str, Incident] = {}
        self.seen = 0

    def feed(self, made: list[Event]) -> Watched:
        for begin in range(0, len(made), 500):
            part = made[begin : begin + 500]
            places = [("t", 0, self.seen + i, 0) for i in range(len(part))]
            self.panel.detect(build_batch("model:/m", self.seen, part, places, self.schema), self.report)
            self.seen += len(part)
        assert self.panel.failures == []
        return self

    def report(self, finding: Finding, batch: Rows) -> Incident | None:
        incident = self.book.apply(Sighting(finding, "model:/m", "m", "", batch.identity.at(finding.row), None))
        if incident is not None:
            self.incidents[incident.id] = incident
        return incident


def test_large_values_of_categories_and_what_events_carry_are_segments() -> None:
    rows = events(600, 1)
    reference = build_reference(rows, infer_schema(rows), "file", "model:/m")
    assert segments_of(reference, ["region"]) == [Segment("region", "EU"), Segment("region", "US")]
    assert {s.value for s in segments_of(reference, ["segment"])} == {"new", "old"}
    assert segments_of(reference, ["income", "nothing"]) == []


def test_declared_fields_that_are_no_segments_are_said() -> None:
    assert "no segment has enough rows" in Watched(("income",)).panel.off["segment_drift"]


def test_a_shift_in_one_segment_names_it() -> None:
    watched = Watched(("region",)).feed(events(3_000, 2)).feed(events(1_500, 3, "US"))
    (incident,) = watched.incidents.values()
    assert {("feature", "income"), ("segment", "region=US")} <= {(s.type, s.id) for s in incident.subjects}


def test_a_shift_of_the_whole_is_one_incident() -> None:
    watched = Watched(("region", "segment")).feed(events(3_000, 2)).feed(events(1_500, 3, "all"))
    assert len(watched.incidents) == 1


def test_honest_traffic_alarms_nobody() -> None:
    assert Watched(("region", "segment")).feed(events(12_000, 4)).incidents == {}


def test_odd_values_have_short_names() -> None:
    assert str(Segment("region", "EU")) == "region=EU"
    assert len(str(Segment("region", "x" * 300))) < 80 and str(Segment("r", "a\nb")) != str(Segment("r", "a\tb"))
