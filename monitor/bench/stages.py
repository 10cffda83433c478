"""CPU time of the stages between a record and a commit, each by itself, over records that are in memory."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from detectors.base import VIEWS, Batch, Detector, Finding, Rows, Views
from monitor.intake.columns import build_batch, build_reference, infer_schema
from monitor.intake.events import Event, Record
from monitor.intake.formats.base import Format, TopicRules
from monitor.lineup import PanelSettings
from monitor.panel import Panel
from monitor.state.lease import Lease
from monitor.state.store import StateStore
from monitor.state.unit import CommitUnit
from monitor.suspicion import Suspicion
from monitor.watch import CUT

COMMIT_EVERY = 10_000
"""Events between commits: a commit interval of 10 s at 1,000 events a second."""


@dataclass(slots=True)
class Stages:
    """Seconds of CPU by stage, over `events` events."""

    events: int = 0
    decode: float = 0.0
    columns: float = 0.0
    views: float = 0.0
    commit: float = 0.0
    naming: float = 0.0
    """Suspecting clients and naming those that attack, from what the detectors of queries give."""
    detectors: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))


class _TimedPanel(Panel):
    """A panel that knows what each detector costs. Views are made before, so that none is charged to a detector."""

    def __init__(self, *args: Any, stages: Stages) -> None:
        self._stages = stages
        super().__init__(*args)

    def _views(self, batch: Batch) -> Views:
        begin = time.thread_time()
        views = super()._views(batch)
        wanted = {name for runner in self._runners for name in runner.detector.views if name in VIEWS}
        for name in sorted(wanted):
            with suppress(KeyError):  # made of what another detector gives first
                views.get(name)
        self._stages.views += time.thread_time() - begin
        return views

    def _guarded(self, runner: Any, run: Callable[[Detector], Iterator[Any]], batch: Rows) -> None:
        begin = time.thread_time()
        super()._guarded(runner, run, batch)
        self._stages.detectors[runner.detector.name] += time.thread_time() - begin

    def _suspect(self, ask: Callable[[Suspicion], Iterator[Finding]]) -> None:
        begin = time.thread_time()
        super()._suspect(ask)
        self._stages.naming += time.thread_time() - begin


def measure(
    records: Sequence[Record],
    reference: Sequence[Event],
    reader: tuple[Format, TopicRules],
    settings: PanelSettings,
    store: StateStore,
    lease: Lease,
) -> Stages:
    """One pass over the records. The time between stages, which `all` has besides, is in none of them."""
    stages = Stages(events=len(records))
    format_, rules = reader
    schema = infer_schema(reference)
    target = build_reference(reference, schema, "file", "model:/bench")
    panel = _TimedPanel("model:/bench", "bench", target, settings, stages=stages)
    begin = time.thread_time()
    events = [event for record in records for event in format_.decode(record, rules).events]
    stages.decode = time.thread_time() - begin
    for start in range(0, len(events), CUT):
        cut = events[start : start + CUT]
        places = [(r.topic, r.partition, r.offset, 0) for r in records[start : start + CUT]]
        begin = time.thread_time()
        batch = build_batch("model:/bench", start, cut, places, schema)
        stages.columns += time.thread_time() - begin
        panel.detect(batch, lambda finding, rows: None)
        if (start + CUT) // COMMIT_EVERY > start // COMMIT_EVERY:
            begin = time.thread_time()
            store.commit(CommitUnit(at=cut[-1].time, pages=panel.dirty()), lease)
            stages.commit += time.thread_time() - begin
    return stages
