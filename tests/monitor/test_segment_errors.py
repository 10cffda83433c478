"""Errors by declared segment: predictions remember theirs until the label comes, across restarts."""

from __future__ import annotations

from typing import Any

import numpy as np

from alerts.incidents import Incident, IncidentBook, Sighting
from detectors.base import Finding, Rows, registry
from detectors.drift.segments import Segment
from monitor.intake.events import Event, EventType
from monitor.label_segments import MOST, LabelSegments
from monitor.lineup import PanelSettings
from monitor.state.codec import decode, encode
from monitor.watch import CUT, Watch, WatchSettings

ONLY = ("error_rate", "segment_error_rate")
START, LATE = 1_763_625_600.0, 700


def stream(worse: str, at: int, n: int) -> tuple[list[Event], list[Event]]:
    """Predictions and their labels; a tenth is wrong, and from number `at` on most in `worse` ("all": everywhere)."""
    rng = np.random.default_rng(5)
    region = rng.choice(["EU", "US", "ASIA"], n, p=[0.12, 0.48, 0.4])
    chance = np.where((np.arange(n) >= at) & ((region == worse) | (worse == "all")), 0.7, 0.1)
    wrong = rng.random(n) < chance
    asked, told = [], []
    for i in range(n):
        features = {"income": float(rng.normal()), "region": str(region[i])}
        made = Event(
            EventType.PREDICTION, START + i, event_id=f"e{i}", model="m", model_version="1", features=features,
            prediction="yes", scores={"yes": 0.7, "no": 0.3},
        )  # fmt: skip
        asked.append(made)
        truth = "no" if wrong[i] else "yes"
        told.append(Event(EventType.LABEL, START + i + LATE, event_id=f"e{i}", model="m", label=truth))
    return asked, told


class Run:
    """A watch whose labels come LATE events after their predictions."""

    def __init__(self) -> None:
        settings: dict[str, dict[str, Any]] = {name: {"enabled": name in ONLY} for name in registry()}
        self.settings = WatchSettings(panel=PanelSettings(detectors=settings, segments=("region",)))
        self.book = IncidentBook()
        self.incidents: dict[str, Incident] = {}
        self.pages: dict[tuple[str, str, str], Any] = {}
        self.watch = self.fresh()

    def fresh(self) -> Watch:
        watch = Watch("model:/m", "m", "", self.settings)
        watch.use(watch.prepare(stream("", 0, 1_000)[0], "file"))
        return watch

    def restart(self) -> None:
        """What a commit stores is all that is left."""
        for p in self.watch.dirty():
            kept = p._replace(arrays=decode(encode(p.arrays, p.version), p.version))
            self.pages[p.detector, p.params_hash, p.page] = kept
        self.watch = self.fresh()
        assert self.watch.restore(self.pages.values()).anew == {}

    def feed(self, worse: str, at: int = 8_192, n: int = 12_288, restart_at: int = -1) -> Run:
        asked, told = stream(worse, at, n)
        for i in range(n):
            self.watch.add_prediction(asked[i], ("t", 0, 2 * i, 0))
            if i >= LATE:
                self.watch.add_label(told[i - LATE], ("t", 0, 2 * i + 1, 0))
            if (i + 1) % CUT == 0:
                self.watch.cut(self.report)
                if i + 1 == restart_at:
                    self.restart()
        assert self.watch.panel is not None and self.watch.panel.failures == []
        return self

    def report(self, watch: Watch, finding: Finding, rows: Rows) -> Incident | None:
        where = f"{finding.position}" if finding.row < 0 else rows.identity.at(finding.row)
        incident = self.book.apply(Sighting(finding, watch.subject, "m", "", where, None))
        self.incidents.update((i.id, i) for i in self.book.take_changes())
        return incident


def test_errors_in_one_region_name_it_and_a_restart_changes_nothing() -> None:
    run = Run().feed("EU")
    (incident,) = run.incidents.values()
    assert incident.kind == "concept_drift" and "segment_error_rate:region=EU" in incident.detectors
    assert {(s.type, s.id) for s in incident.subjects} == {("model", "m"), ("segment", "region=EU")}
    assert incident.why.startswith("region=EU: wrong predictions of version 1: error rate share 0.0952")
    assert Run().feed("EU", restart_at=8 * CUT).incidents == run.incidents


def test_errors_everywhere_are_one_incident() -> None:
    run = Run().feed("all")
    assert len(run.incidents) == 1
    account = run.watch.panel.account if run.watch.panel is not None else None
    assert account is not None and len(account.latches) == 4  # the whole and three regions


def test_nothing_is_told_while_nothing_changes() -> None:
    assert not Run().feed("").incidents


def test_a_segment_keeps_its_bit_and_there_are_64() -> None:
    made = LabelSegments()
    made.watch([Segment("region", "EU"), Segment("segment", "new")])
    pages = {**made.dirty()}
    again = LabelSegments()
    again.watch([Segment("segment", "new"), Segment("region", "US")])
    again.restore(pages)
    assert again.names == ["region=EU", "segment=new", "region=US"]
    events = [
        Event(EventType.PREDICTION, 0.0, features={"region": "US"}, segment="new"),
        Event(EventType.PREDICTION, 0.0, features={"region": "EU"}),
        Event(EventType.PREDICTION, 0.0, features={"region": 7}, segment="x"),
        Event(EventType.PREDICTION, 0.0),
    ]
    assert again.bits(again.of(events)).tolist() == [0b110, 0, 0, 0]  # EU is not watched any more
    again.watch([Segment("f", str(i)) for i in range(100)])
    last = again.of([Event(EventType.PREDICTION, 0.0, features={"f": "60"})])
    assert len(again.names) == MOST and again.bits(last).tolist() == [2**63]
    third = LabelSegments()
    third.restore(again.dirty())
    assert third.bits(last).tolist() == [2**63]
