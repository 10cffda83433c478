"""Severity is effect and harm, not evidence."""

from __future__ import annotations

import math

import pytest

from detectors.drift.explain import effect_size
from detectors.findings import AlarmContext, alarm_finding, severity_of
from tests.long.simulated import Watch, batches, drawn, reference

IMPORTANCES = {"income": 0.4, "age": 0.04}


@pytest.mark.parametrize(
    ("effects", "severity"),
    [
        ({"income": 1.2}, "critical"),
        ({"income": 0.3}, "warning"),
        ({"income": 0.05}, "info"),
        ({"age": 1.2}, "warning"),
        ({"age": 0.5}, "info"),
        ({"age": 0.5, "region": 0.01}, "warning"),
        ({"age": 0.5, "income": math.inf}, "critical"),
        ({}, "warning"),
    ],
)
def test_large_changes_of_important_fields_are_critical(effects: dict[str, float], severity: str) -> None:
    assert severity_of(effects, IMPORTANCES) == severity


def test_without_importances_nothing_is_known_about_harm() -> None:
    assert severity_of({"income": 5.0}, {}) == severity_of({"income": 0.01}, {"income": 0.0}) == "warning"


def test_effects_compare_across_kinds_of_change() -> None:
    assert effect_size("mean", 13.0, 10.0, 2.0) == 1.5
    assert effect_size("share", 0.5, 0.5) == 0 and effect_size("share", 1.0, 0.0) == pytest.approx(math.pi)
    assert effect_size("sd", 2.0, 1.0) == effect_size("sd", 0.5, 1.0) == pytest.approx(math.log(2))
    assert effect_size("mean", 1.0, 0.0, 0.0) == effect_size("sd", 1.0, 0.0) == math.inf
    assert effect_size("correlation", 0.5, -0.1) == pytest.approx(0.6)


def test_what_was_there_from_the_first_block_on_has_an_onset() -> None:
    watch = Watch(reference("iid", 1, 1_000))
    table = drawn("iid", 1, 500)
    table.category[::2, 0] = -1  # half of the values are missing from the first event on
    (batch,) = batches(table)
    alarm = next(watch.alarms(iter([batch])))
    streams = watch.detector.streams()
    told = watch.detector.explain(alarm.streams, alarm.block)
    finding = alarm_finding(alarm, told, batch, AlarmContext("drift", streams, frozenset({"c0"}), "m"))
    assert alarm.row < 100 and batch.time[0] <= finding.onset <= finding.time
    assert math.isfinite(finding.measures[-1].since)
