"""What every detector must be able to do, checked for each one in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from alerts.incidents import Incident, IncidentBook, Sighting
from alerts.taxonomy import kinds
from detectors.base import Batch, Finding, Identity, LabelBatch, Rows, registry
from detectors.reference import Reference
from monitor.intake.columns import build_batch, build_reference, infer_schema
from monitor.intake.events import Event
from monitor.lineup import PanelSettings
from monitor.panel import Panel
from monitor.state.codec import decode, encode
from monitor.state.unit import StatePage
from tests.conformance.streams import CASES, FAULT_AT, LENGTH, Case

CUT = 300
POISON = [float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 1e12]
NAMES = sorted(name for name, cls in registry().items() if not cls.gives)
"""A detector that gives columns to others raises nothing itself: it is tried with those that need them."""


class Run:
    """One detector alone in a panel, and what came of it."""

    def __init__(self, name: str, case: Case) -> None:
        self.schema = infer_schema(case.reference())
        reference: Reference = build_reference(case.reference(), self.schema, "file", "model:/credit")
        needs = registry()[name].views
        own = {other for other, cls in registry().items() if other == name or set(cls.gives) & set(needs)}
        settings = {other: dict(case.params.get(other, {})) for other in own}
        settings |= {other: {"enabled": False} for other in registry() if other not in own}
        self.panel = Panel(
            "model:/credit", "credit", reference, PanelSettings(detectors=settings, segments=case.segments)
        )
        self.made = {one for one in self.panel.running if one.partition(":")[0] == name}
        """The detectors of this class: one, where it does not give several."""
        self.findings: list[Finding] = []
        self.book = IncidentBook()
        self.position = 0

    def feed(self, events: Sequence[Event], cut: int = CUT) -> Run:
        for begin in range(0, len(events), cut):
            self.batch(self.columns(events[begin : begin + cut]))
            self.labels(events[begin : begin + cut])
        assert self.panel.failures == []
        return self

    def columns(self, events: Sequence[Event]) -> Batch:
        places = [("t", 0, self.position + i, 0) for i in range(len(events))]
        return build_batch("model:/credit", self.position, events, places, self.schema)

    def batch(self, batch: Batch) -> None:
        self.position += len(batch)
        self.panel.detect(batch, self.report)

    def labels(self, events: Sequence[Event]) -> None:
        """The labels that events carry, joined as soon as their batch is through."""
        if any(e.label is not None for e in events):
            self.panel.detect_labels(label_batch(events, self.position - len(events)), self.report)

    def report(self, finding: Finding, batch: Rows) -> Incident | None:
        """Take a finding as the pipeline does: every alarm has its incident."""
        self.findings.append(finding)
        trigger = batch.identity.at(finding.row) if finding.row >= 0 else "time"
        return self.book.apply(Sighting(finding, "model:/credit", "credit", "", trigger, None))

    @property
    def opened(self) -> list[Finding]:
        return [f for f in self.findings if f.action == "open"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def case(name: str) -> Case:
    return CASES[name]


def test_every_detector_has_a_case() -> None:
    assert set(NAMES) == set(CASES)
    given = {view for cls in registry().values() for view in cls.gives}
    used = {view for name in NAMES for view in registry()[name].views}
    assert given <= used


def test_it_declares_what_it_is(name: str) -> None:
    cls = registry()[name]
    assert cls.name == name
    assert cls.kind in kinds()
    assert set(cls.raises or ()) <= set(kinds())
    assert cls.state_version >= 1
    known = {"features", "outputs", "scores", "reference", "training rows", "client", "labels", "segments"}
    assert cls.inputs <= known
    assert cls.Params.__dataclass_params__.frozen
    assert cls.account is None or cls.share > 0


def test_it_alarms_where_it_must_and_says_why(name: str, case: Case) -> None:
    opened = Run(name, case).feed(case.alarming()).opened
    assert opened and opened[0].position >= FAULT_AT
    first = opened[0]
    assert first.measures and all(np.isfinite([m.observed, m.expected]).all() for m in first.measures)
    assert any((s.type, s.id) == case.subject for s in first.subjects)
    assert abs(first.onset - case.alarming()[FAULT_AT].time) < 100


def test_it_keeps_quiet_where_it_must(name: str, case: Case) -> None:
    assert Run(name, case).feed(case.clean()).findings == []


def test_the_same_events_make_the_same_findings(name: str, case: Case) -> None:
    first, second = (Run(name, case).feed(case.alarming()) for _ in range(2))
    assert first.findings == second.findings
    assert _encoded(first.panel.dirty()) == _encoded(second.panel.dirty())


@pytest.mark.parametrize("cut", [1, 25, 1_024])
def test_findings_do_not_depend_on_the_cut(name: str, case: Case, cut: int) -> None:
    def told(run: Run) -> list[Finding]:
        # Where several share an account, what the others hold at an alarm is as of the end of the last cut.
        kept = [tuple(m for m in f.measures if len(run.made) == 1 or m.statistic != "evidence") for f in run.findings]
        return [replace(f, row=0, measures=m) for f, m in zip(run.findings, kept, strict=True)]

    events = case.alarming()[: FAULT_AT + 600]
    assert told(Run(name, case).feed(events, cut)) == told(Run(name, case).feed(events))


@pytest.mark.parametrize("at", [7, 610, FAULT_AT + 20, FAULT_AT + 500, LENGTH - 100])
def test_stored_pages_restore_an_equal_detector(name: str, case: Case, at: int) -> None:
    """Pages are written now and then, as commits do; the last write of each page is what a restart finds."""
    events = case.alarming()
    whole = Run(name, case)
    stored: dict[tuple[str, str], StatePage] = {}
    for begin in range(0, at, CUT):
        whole.feed(events[begin : min(begin + CUT, at)])
        stored |= {(p.detector, p.page): _through_codec(p) for p in whole.panel.dirty()}
    again = Run(name, case)
    assert again.panel.restore(stored.values()).anew == {}
    again.position = at
    again.book = IncidentBook(whole.book.open())
    before = len(whole.findings)
    whole.feed(events[at:])
    again.feed(events[at:])
    assert again.findings == whole.findings[before:]


def test_it_keeps_no_reference_to_a_batch(name: str, case: Case) -> None:
    events = case.alarming()
    clean, scrambled = Run(name, case), Run(name, case)
    for begin in range(0, len(events), CUT):
        clean.batch(clean.columns(events[begin : begin + CUT]))
        clean.labels(events[begin : begin + CUT])
        batch = scrambled.columns(events[begin : begin + CUT])
        scrambled.batch(batch)
        batch.numeric.values[:] = 1e9
        batch.numeric.status[:] = 0
        batch.category.codes[:] = 0
        batch.time[:] = 0.0
        scrambled.labels(events[begin : begin + CUT])
    assert scrambled.findings == clean.findings


def test_pages_handed_out_are_not_touched_again(name: str, case: Case) -> None:
    events = case.alarming()
    run = Run(name, case).feed(events[:1_000])
    pages = run.panel.dirty()
    before = _encoded(pages)
    run.feed(events[1_000:])
    assert _encoded(pages) == before


@pytest.mark.parametrize("poison", POISON, ids=str)
def test_one_hostile_number_neither_alarms_nor_blinds(name: str, case: Case, poison: float) -> None:
    clean = Run(name, case).feed(case.alarming()).opened[0].position
    events = case.alarming()
    for i in (3, 700, FAULT_AT - 5):
        events[i].features = {**(events[i].features or {}), case.field: poison}
    opened = Run(name, case).feed(events).opened
    assert opened[0].position >= FAULT_AT
    delay, clean_delay = opened[0].position - FAULT_AT + 1, clean - FAULT_AT + 1
    block = 25
    assert delay <= max(1.1 * clean_delay, clean_delay + block)


def test_a_stretch_of_hostile_numbers_is_survived(name: str, case: Case) -> None:
    events = case.clean()
    for i in range(500, 560):
        events[i].features = {"income": POISON[i % 6], "age": POISON[(i + 1) % 6], "region": "EU"}
    run = Run(name, case).feed(events)
    assert run.position == LENGTH


def test_state_is_bounded(name: str, case: Case) -> None:
    def size(run: Run) -> int:
        return sum(a.nbytes for p in run.panel.dirty() for a in p.arrays.values())

    events = case.clean()
    run = Run(name, case).feed(events)
    early = size(run)
    for _ in range(4):
        run.feed(events)
    assert size(run) <= 1.5 * early + 4_096


def test_empty_batches_and_time_without_events_are_harmless(name: str, case: Case) -> None:
    plain, interrupted = Run(name, case), Run(name, case)
    events = case.alarming()
    empty = plain.columns([])
    for begin in range(0, len(events), CUT):
        plain.feed(events[begin : begin + CUT])
        interrupted.batch(empty)
        interrupted.feed(events[begin : begin + CUT])
        interrupted.panel.advance(events[begin].time, empty, interrupted.report)
    assert interrupted.findings == plain.findings


def test_a_wrong_state_version_is_refused_and_said(name: str, case: Case) -> None:
    run = Run(name, case).feed(case.alarming()[: FAULT_AT - 100])
    pages = [p._replace(version=p.version + 1) if p.detector in run.made else p for p in run.panel.dirty()]
    again = Run(name, case)
    restored = again.panel.restore(pages)
    assert restored.anew.keys() == run.made and all("version" in why for why in restored.anew.values())
    assert again.feed(case.alarming()).opened


def test_pages_of_another_shape_are_refused_and_the_detector_stays_usable(name: str, case: Case) -> None:
    run = Run(name, case).feed(case.alarming()[: FAULT_AT - 100])
    pages = [
        p._replace(arrays={k: np.zeros(3) for k in p.arrays}) if p.detector in run.made else p
        for p in run.panel.dirty()
    ]
    again = Run(name, case)
    assert again.panel.restore(pages).anew.keys() == run.made
    assert again.feed(case.alarming()).opened


def label_batch(events: Sequence[Event], start: int) -> LabelBatch:
    """Joined labels of events that carry theirs, told with the prediction."""
    n = len(events)
    at, zero = np.arange(start, start + n), np.zeros(n, np.int64)
    classes = ("no", "yes")
    time = np.array([e.time for e in events], np.float64)
    answer = np.array([classes.index(e.prediction) for e in events], np.int32)
    label = np.array([classes.index(e.label) for e in events], np.int32)
    return LabelBatch(
        subject="model:/credit", start=start, time=time, asked=time.copy(), clock=time.copy(), position=at,
        identity=Identity(("t",), np.zeros(n, np.int32), zero, at.copy(), zero.copy()),
        event_ids=tuple(e.event_id for e in events), version=np.zeros(n, np.int32), versions=("7",), classes=classes,
        answer=answer, label=label, error=(answer != label).astype(np.float64), score=np.full(n, 0.5),
        weight=np.ones(n), sample_weight=np.ones(n), numeric=False,
        member=np.array([(e.features or {}).get("region") == "EU" for e in events]).astype(np.uint64),
        segments=("region=EU",),
    )  # fmt: skip


def _through_codec(page: StatePage) -> StatePage:
    return page._replace(arrays=decode(encode(page.arrays, page.version), page.version))


def _encoded(pages: Sequence[StatePage]) -> list[tuple[str, str, bytes]]:
    return [(p.detector, p.page, encode(p.arrays, p.version)) for p in pages]
