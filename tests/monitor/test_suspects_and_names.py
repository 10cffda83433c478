from __future__ import annotations

import numpy as np
import pytest

from alerts.incidents import Incident, IncidentBook, Sighting
from detectors.base import F64, Batch, Finding, Rows
from monitor.intake.columns import build_batch, infer_schema
from monitor.intake.events import Event
from monitor.lineup import PanelSettings
from monitor.panel import Panel
from monitor.state.unit import StatePage
from monitor.suspicion import QUIET
from tests.detectors.moves.test_trail import bisections, differences
from tests.detectors.moves.worlds import WIDTH, events, honest_rows, reference

SUBJECT = "model:/m"
SCHEMA = infer_schema(events(honest_rows(600, 1)))
HONEST = 3_000


class Watch:
    """A panel with an incident book, fed event by event as a daemon would."""

    def __init__(self, moves: bool = True, **services: str) -> None:
        settings = PanelSettings(
            services=services,
            detectors={
                "query_log": {"calibration_queries": 2_000},
                "predictive_drift": {"enabled": False},
                "query_moves": {"enabled": moves},
            },
        )
        self.panel = Panel(SUBJECT, "m", reference(), settings)
        self.book = IncidentBook()
        self.findings: list[Finding] = []
        self.incidents: dict[str, Incident] = {}
        self.position = 0

    def calibrated(self) -> Watch:
        rows = events(honest_rows(HONEST, 50))
        for i, event in enumerate(rows):
            event.client = f"c_{i % 60}"
        return self.feed(rows)

    def feed(self, given: list[Event]) -> Watch:
        for begin in range(0, len(given), 500):
            part = given[begin : begin + 500]
            places = [("t", 0, self.position + i, 0) for i in range(len(part))]
            batch = build_batch(SUBJECT, self.position, part, places, SCHEMA)
            self.position += len(part)
            self.panel.detect(batch, self.report)
        assert self.panel.failures == []
        return self

    def report(self, finding: Finding, batch: Rows) -> Incident | None:
        self.findings.append(finding)
        row = batch.identity.at(finding.row) if finding.row >= 0 else "time"
        incident = self.book.apply(Sighting(finding, SUBJECT, "m", "", row, None))
        for one in self.book.take_changes():
            self.incidents[one.id] = one
        return incident

    def of(self, kind: str) -> list[Incident]:
        return [i for i in self.incidents.values() if i.kind == kind]

    def pages(self) -> list[StatePage]:
        return self.panel.dirty()


def later(rows: F64, client: str = "c_x", after: int = 0) -> list[Event]:
    return events(rows, client, start=1_763_625_600.0 + HONEST + after)


def drawn(n: int, seed: int) -> F64:
    """Records drawn field by field."""
    return np.random.default_rng(seed).permuted(honest_rows(n, seed), axis=0)


def frames(n: int, seed: int) -> F64:
    """One odd scene, filmed."""
    noise = np.random.default_rng(seed).normal(size=(n, WIDTH)) * 0.05
    return np.round(np.linspace(30, 90, WIDTH) + noise, 2)


def test_a_search_for_the_boundary_is_named_with_what_the_client_did() -> None:
    watch = Watch().calibrated().feed(later(np.concatenate([bisections(15, k) for k in range(5)])))
    (named,) = watch.of("adversarial_input")
    assert named.severity == "warning" and [s.id for s in named.subjects] == ["c_x"]
    assert "queries lie on lines between two of its own earlier queries" in named.why
    assert named.taxonomy["mitre_atlas"]


def test_drawn_records_are_named_and_an_unusual_source_is_not() -> None:
    watch = Watch().calibrated().feed(later(drawn(120, 3)) + later(frames(200, 4), "c_camera"))
    (named,) = watch.of("model_extraction")
    assert [s.id for s in named.subjects] == ["c_x"] and "fields that do not belong together" in named.why
    (unusual,) = [i for i in watch.of("unusual_client") if i.subjects[0].id == "c_camera"]
    assert (unusual.severity, unusual.status) == ("info", "open")
    assert "it looks like a steady source" in unusual.why and not unusual.atlas


def test_a_suspect_that_is_named_is_told_as_one_story() -> None:
    """A camera first, then the same client draws records: the first incident closes with a link to the second."""
    watch = Watch().calibrated().feed(later(frames(200, 4)))
    (suspect,) = watch.of("unusual_client")
    assert suspect.status == "open"
    watch.feed(later(drawn(150, 5), after=200))
    (suspect,), (named,) = watch.of("unusual_client"), watch.of("model_extraction")
    assert suspect.status == "resolved" and suspect.resolution == f"superseded by {named.id}"
    assert named.status == "open" and named.opened_at >= suspect.opened_at
    assert len(watch.book.open()) == 1
    watch.panel.advance(named.opened_at + 2 * QUIET, _empty(), watch.report)
    assert watch.book.open() == []


def test_a_declared_service_is_never_above_info() -> None:
    watch = Watch(c_x="nightly probe").calibrated().feed(later(drawn(150, 5)))
    assert {i.severity for i in watch.incidents.values()} == {"info"}
    assert watch.of("model_extraction")


def test_restored_in_the_middle_it_names_alike() -> None:
    given = later(np.concatenate([honest_rows(20, 9), differences(6, 0.001), drawn(60, 6)]))
    whole = Watch().calibrated().feed(given[:37]).feed(given[37:])
    one = Watch().calibrated()
    stored = {(p.detector, p.params_hash, p.page): p for p in one.pages()}
    one.feed(given[:37])
    stored |= {(p.detector, p.params_hash, p.page): p for p in one.pages()}
    two = Watch()
    assert not two.panel.restore(stored.values()).anew
    two.position, two.book = one.position, one.book
    two.feed(given[37:])
    assert one.findings + two.findings == whole.findings != []


def test_without_a_second_stage_the_tests_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ArithmeticError("no")

    watch = Watch().calibrated()
    monkeypatch.setattr("detectors.moves.second_stage.SecondStage.judge", broken)
    with pytest.raises(AssertionError):
        watch.feed(later(drawn(150, 5)))
    assert len(watch.panel.failures) == 1 and "ArithmeticError" in watch.panel.failures[0][1]
    assert [i.severity for i in watch.of("model_extraction")] == ["warning"]


def test_switched_off_the_second_stage_leaves_naming_to_the_tests() -> None:
    watch = Watch(moves=False).calibrated().feed(later(drawn(150, 5)))
    assert [i.severity for i in watch.of("model_extraction")] == ["warning"] and not watch.of("unusual_client")


def _empty() -> Batch:
    return build_batch(SUBJECT, 0, [], [], SCHEMA)
