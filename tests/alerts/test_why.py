"""The sentence of an incident: every number in it stands in a stored measure."""

from __future__ import annotations

import re

from alerts.why import EVIDENCE, clock, number, sentence
from detectors.base import Measure
from detectors.findings import RECURRENCE

ONSET = 1_763_625_600.0


def measure(field: str, observed: float, expected: float, unit: str = "mean", statistic: str = "loc") -> Measure:
    return Measure("drift", f"{field}:{statistic}", observed, expected, unit, 350, ONSET, ONSET + 60, field, statistic)


def test_every_number_of_the_sentence_is_in_the_measures() -> None:
    measures = [
        measure("age", 41.234, 35.01),
        measure("income", 0.0123, 0.5, "share", "missing"),
        Measure("drift", "age:loc", 3.1e6, 1.0, "ratio", 350, ONSET, ONSET + 60, "", EVIDENCE),
    ]
    text = sentence("feature_drift", measures, ONSET)
    stored = {number(v) for m in measures for v in (m.observed, m.expected, float(m.n))} | {"1"}
    told = re.findall(r"(?<![\w:-])\d[\d.,e+]*", text.replace(clock(ONSET), ""))
    assert told and set(told) <= stored
    assert clock(ONSET) in text
    assert text.startswith("age: mean 35 → 41.2 over 350 events; income: missing share 0.5 → 0.0123")
    assert text.endswith("evidence 3.10e+06 : 1")


def test_further_fields_are_counted() -> None:
    text = sentence("feature_drift", [measure(f"f{i}", 2.0, 1.0) for i in range(5)], ONSET)
    assert "2 further moved" in text
    assert "f3" not in text


def test_an_incident_without_measures_still_says_what_and_since_when() -> None:
    assert sentence("monitor_health", [], ONSET) == f"monitor health since {clock(ONSET)}"


def test_numbers_read_well() -> None:
    assert [number(v) for v in (0.0, 35.0, 41.234, 1234.5, 2.5e6, 1e-5, float("nan"))] == [
        "0", "35", "41.2", "1,234", "2.50e+06", "1.00e-05", "unknown",
    ]  # fmt: skip


def test_what_comes_and_goes_is_said() -> None:
    times = Measure("drift", "hour:mean", 5.0, 3.0, "alarms", 100, ONSET, ONSET + 60, statistic=RECURRENCE)
    text = sentence("feature_drift", [measure("hour", 10.5, 7.1), times], ONSET)
    assert "further" not in text and text.startswith("hour: mean 7.1 → 10.5 over 350 events; since")
    assert text.endswith("; alarm 5 within a week: it comes and goes, and closes after a day without it")
