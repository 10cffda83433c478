"""The schema rule in a panel with all other detectors: one incident of the right kind, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from detectors.base import Finding, Rows
from monitor.intake.columns import build_batch, build_reference, infer_schema
from monitor.intake.events import Event
from monitor.lineup import PanelSettings
from monitor.panel import Panel
from tests.conformance.streams import ROWS, credit

Features = dict[str, Any]
DAY = 86_400.0


def without_income(f: Features) -> Features:
    return {k: v for k, v in f.items() if k != "income"}


def without_region(f: Features) -> Features:
    return {k: v for k, v in f.items() if k != "region"}


def income_as_text(f: Features) -> Features:
    return {**f, "income": str(f["income"])}


def region_as_number(f: Features) -> Features:
    return {**f, "region": 3}


def with_tenure(f: Features) -> Features:
    return {**f, "tenure": 4.0}


def renamed(f: Features) -> Features:
    return {"salary" if k == "income" else k: v for k, v in f.items()}


class Run:
    def __init__(self, reference_version: str | None = "7") -> None:
        rows = credit(ROWS, 1)
        for row in rows:
            row.model_version = reference_version
        self.schema = infer_schema(rows)
        self.panel = Panel("model:/m", "m", build_reference(rows, self.schema, "file", "model:/m"), PanelSettings())
        self.found: list[Finding] = []
        self.position = 0

    def feed(self, events: Sequence[Event], cut: int = 1_024) -> Run:
        for begin in range(0, len(events), cut):
            some = events[begin : begin + cut]
            places = [("t", 0, self.position + i, 0) for i in range(len(some))]
            self.panel.detect(build_batch("model:/m", self.position, some, places, self.schema), self.report)
            self.position += len(some)
        assert self.panel.failures == []
        return self

    def report(self, finding: Finding, batch: Rows) -> None:
        self.found.append(replace(finding, row=0))

    @property
    def told(self) -> list[tuple[str, str, str | None]]:
        return [(f.action, f.kind, f.model_version) for f in self.found]


def rollout(change: Callable[[Features], Features], share: float = 1.0, n: int = 3_000) -> list[Event]:
    """Version 8 follows version 7 at event 1,000, for a share of the events."""
    events = credit(n, 2)
    chosen = np.random.default_rng(5).uniform(size=n) < share
    for i in range(1_000, n):
        if chosen[i]:
            events[i].model_version = "8"
            events[i].features = change(dict(events[i].features or {}))
    return events


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize(
    ("change", "fields"),
    [
        (without_income, ["income"]),
        (without_region, ["region"]),
        (income_as_text, ["income"]),
        (region_as_number, ["region"]),
        (with_tenure, ["tenure"]),
        (renamed, ["income", "salary"]),
    ],
)
def test_a_new_version_with_another_schema_is_one_schema_change_and_nothing_else(
    change: Callable[[Features], Features], fields: list[str], share: float
) -> None:
    run = Run().feed(rollout(change, share))
    assert run.told == [("open", "schema_change", "8")]
    found = run.found[0]
    assert [s.id for s in found.subjects] == fields and found.severity == "warning"
    assert found.position >= 1_009 and abs(found.onset - rollout(change, share)[1_000].time) < 20


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_the_cut_does_not_matter(cut: int) -> None:
    events = rollout(renamed, 0.5)[:1_500]
    assert Run().feed(events, cut).found == Run().feed(events).found


def test_a_reference_without_versions_takes_the_first_live_one_as_known() -> None:
    assert Run(None).feed(rollout(without_income)).told == [("open", "schema_change", "8")]
    events = [e for e in rollout(without_income) if e.model_version == "8"]
    assert {kind for _, kind, _ in Run(None).feed(events).told} == {"data_quality"}


def test_a_field_that_vanishes_within_a_version_is_a_fault() -> None:
    events = rollout(without_income)
    for event in events:
        event.model_version = "7"
    assert {kind for _, kind, _ in Run().feed(events).told} == {"data_quality"}


def test_a_fault_of_a_new_version_that_comes_later_is_a_fault() -> None:
    events = rollout(dict)
    for event in events[1_500:]:
        event.features = without_income(dict(event.features or {}))
    assert {kind for _, kind, _ in Run().feed(events).told} == {"data_quality"}


def test_another_field_of_the_new_version_still_drifts() -> None:
    events = rollout(without_income)
    for event in events[2_000:]:
        assert event.features is not None
        event.features["age"] = event.features["age"] + 15
    kinds = [kind for action, kind, _ in Run().feed(events).told if action == "open"]
    assert kinds[0] == "schema_change" and "feature_drift" in kinds[1:] and "data_quality" not in kinds


@pytest.mark.parametrize("winner", ["7", "8"])
def test_it_closes_a_day_after_the_other_version_was_last_heard(winner: str) -> None:
    events = rollout(without_income, 0.5, 1_200)
    last = credit(300, 9)
    for i, event in enumerate(last):
        event.time = events[-1].time + 3_600.0 * (i + 1)
        event.model_version = winner
        event.features = without_income(dict(event.features or {})) if winner == "8" else event.features
    run = Run().feed([*events, *last], 100)
    assert run.told == [("open", "schema_change", "8"), ("recover", "schema_change", "8")]
    assert DAY <= run.found[1].time - events[-1].time < DAY + 4_000


def test_versions_without_end_are_not_remembered() -> None:
    events = credit(2_000, 2)
    for i, event in enumerate(events):
        event.model_version = str(i // 2)
    run = Run().feed(events)
    assert run.found == []
    (page,) = [p for p in run.panel.dirty() if p.detector == "schema_rule"]
    assert page.arrays["json"].nbytes < 64 * 400
