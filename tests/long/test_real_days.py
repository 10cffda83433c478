"""False incidents of the drift detector on whole days of a real series, drawn with replacement: nothing changes then,
but hours, neighbours and marginals are real. Skipped without the data.

`.venv/bin/python -m tests.long.test_real_days --seeds 0:10` prints the figure of docs/measured.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alerts.incidents import Incident, IncidentBook, Sighting
from detectors.base import Finding, Rows, registry
from monitor.intake.columns import build_batch, build_reference, infer_schema
from monitor.intake.events import Event, EventType
from monitor.lineup import PanelSettings
from monitor.panel import Panel
from tests.long.simulated import CUT, START, rate_interval

PLACE = Path(os.environ.get("MODELWARDEN_STREAMS", "streams"))
"""Folder of the public series as JSON lines."""
ELEC2 = PLACE / "elec2.events.jsonl.gz"
A_DAY = 48
UNCHANGED = 11_184
"""Half hours before the known change of the series."""
REFERENCE_DAYS, DAYS = 28, 360
"""Whole weeks, so that weekdays go on where the reference ends."""
MODEL = "model:/elec2"


@cache
def days() -> list[list[dict[str, Any]]]:
    """The whole days before the change."""
    with gzip.open(ELEC2, "rt") as file:
        rows = [row for line in file if "features" in (row := json.loads(line))][:UNCHANGED]
    return [rows[i : i + A_DAY] for i in range(0, UNCHANGED, A_DAY)]


def drawn(rng: np.random.Generator, count: int, start: float, weekly: bool) -> list[Event]:
    """Days drawn with replacement, one after the other from `start` on; `weekly`: each from those of its weekday."""
    pool = days()
    chosen = [int(rng.integers(len(range(i % 7, len(pool), 7)))) * 7 + i % 7 for i in range(count)]
    if not weekly:
        chosen = rng.integers(len(pool), size=count).tolist()
    rows = [row for day in chosen for row in pool[day]]
    return [
        Event(
            EventType.PREDICTION, start + 1_800.0 * i, event_id=f"e{i}", features=row["features"],
            prediction=row["prediction"], scores=row["scores"],
        )
        for i, row in enumerate(rows)
    ]  # fmt: skip


def false_incidents(seed: int, weekly: bool = True, length: int = DAYS, budget: float = 1.0) -> int:
    """Incidents of warning or above in `length` days against a reference of other days."""
    rng = np.random.default_rng(seed)
    rows = drawn(rng, REFERENCE_DAYS, START - REFERENCE_DAYS * 86_400.0, weekly)
    schema = infer_schema(rows)
    drift = ("predictive_drift", "histogram_drift")
    only: dict[str, dict[str, Any]] = {name: {"enabled": name in drift} for name in registry()}
    settings = PanelSettings(drift_budget=budget, detectors=only)
    panel = Panel(MODEL, "elec2", build_reference(rows, schema, "file", MODEL), settings)
    book = IncidentBook()
    ids: set[str] = set()

    def report(finding: Finding, source: Rows) -> Incident | None:
        incident = book.apply(Sighting(finding, MODEL, "elec2", "", source.identity.at(finding.row), None))
        if incident is not None and incident.severity_max != "info":
            ids.add(incident.id)
        return incident

    stream = drawn(rng, length, START, weekly)
    for begin in range(0, len(stream), CUT):
        part = stream[begin : begin + CUT]
        places = [("t", 0, begin + i, 0) for i in range(len(part))]
        panel.detect(build_batch(MODEL, begin, part, places, schema), report)
    return len(ids)


@pytest.mark.long
@pytest.mark.skipif(not ELEC2.exists(), reason="set MODELWARDEN_STREAMS to a folder with elec2.events.jsonl.gz")
def test_real_days_keep_to_the_budget() -> None:
    """Two years at one in 30 days: a fifth of the budget is 5."""
    assert sum(false_incidents(seed) for seed in range(2)) <= 8


def main() -> None:
    """The figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:10", help="FIRST:LAST, the last excluded")
    parser.add_argument("--any-day", action="store_true", help="draw from all days, whatever their weekday")
    given = parser.parse_args()
    seeds = range(*(int(x) for x in given.seeds.split(":")))
    found = [false_incidents(seed, not given.any_day) for seed in seeds]
    months = len(seeds) * DAYS / 30
    low, high = (x * 1e-5 for x in rate_interval(sum(found), 1))
    print(f"{found}: {sum(found)} in {months:g} months, {sum(found) / months:.3f} a month", end=" ")
    print(f"({low / months:.3f}-{high / months:.3f})")


if __name__ == "__main__":
    main()
