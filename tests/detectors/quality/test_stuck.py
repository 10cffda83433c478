"""The stuck rule: what stands still is told once, and what repeats itself honestly is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from detectors.base import Context, Finding, Views
from detectors.quality.stuck import Params, StuckRule
from monitor.intake.columns import build_batch, build_reference, infer_schema
from monitor.intake.events import Event, EventType


def events(values: Sequence[float | None], clients: Sequence[str | None]) -> list[Event]:
    return [
        Event(type=EventType.PREDICTION, time=1_000.0 + i, features={"x": v, "flag": 1.0}, client=clients[i])
        for i, v in enumerate(values)
    ]


def column(n: int, seed: int) -> list[float]:
    return [float(v) for v in np.random.default_rng(seed).integers(0, 50, n)]


def everyone(n: int) -> list[str]:
    return [f"c{i % 7}" for i in range(n)]


def run(
    values: Sequence[float | None], clients: Sequence[str | None] | None = None, cut: int = 1_000,
    reference: Sequence[float] | None = None,
) -> list[Finding]:  # fmt: skip
    rows = events(reference or column(500, 1), everyone(len(reference or column(500, 1))))
    schema = infer_schema(rows)
    rule = StuckRule(Context("model:/m", build_reference(rows, schema, "file", "model:/m")), Params())
    live = events(values, clients or everyone(len(values)))
    found: list[Finding] = []
    for begin in range(0, len(live), cut):
        some = live[begin : begin + cut]
        batch = build_batch("model:/m", begin, some, [("t", 0, begin + i, 0) for i in range(len(some))], schema)
        found += [replace(f, row=0) for f in rule.update(batch, Views(batch, rule.context))]
    return found


def told(found: Sequence[Finding]) -> list[tuple[str, str, int]]:
    return [(f.action, f.cause, f.position) for f in found]


@pytest.mark.parametrize("cut", [1, 13, 1_000])
def test_one_value_over_and_over_opens_and_moving_again_closes(cut: int) -> None:
    values = [*column(100, 2), *[51.0] * 60, *column(100, 3)]
    found = run(values, cut=cut)
    assert told(found) == [("open", "stuck:x", 123), ("recover", "stuck:x", 169)]
    assert found[0].onset == 1_100.0 and found[0].measures[0].n == 24


def test_a_value_that_is_frequent_needs_a_longer_run() -> None:
    reference = [7.0 if i % 2 else v for i, v in enumerate(column(500, 1))]
    values = [*column(100, 2), *[7.0] * 38, *column(100, 3)]
    assert run(values, reference=reference) == []
    (found,) = run([*column(100, 2), *[7.0] * 60], reference=reference)
    assert found.position > 138


def test_one_client_that_repeats_itself_is_no_fault() -> None:
    values = [*column(100, 2), *[51.0] * 300]
    assert run(values, [*everyone(100), *["robot"] * 300]) == []
    assert run(values, [*everyone(100), *["robot", "other"] * 150]) == []
    assert run(values, [*everyone(100), *["robot"] * 285, *everyone(15)]) == []
    assert len(run(values, [None] * 400)) == 1


def test_a_reference_with_long_runs_of_its_own_asks_for_longer_ones() -> None:
    hours = [float(i // 40 % 24) for i in range(2_000)]
    assert run(hours, reference=hours[:1_000]) == []


def test_a_field_that_stands_still_again_and_again_is_told_only_when_it_is_longer() -> None:
    values = [*column(50, 2), *[51.0] * 100, *column(50, 3), *[52.0] * 150, *column(50, 4), *[53.0] * 320]
    assert [f.position for f in run(values) if f.action == "open"] == [73, 400 + 233]


def test_missing_cells_are_no_part_of_a_run_and_few_values_are_not_watched() -> None:
    values: list[float | None] = [*column(100, 2), *[None] * 300, *column(50, 3)]
    assert run(values) == []
    assert [f.cause for f in run([*column(100, 2), *[51.0, None] * 40])] == ["stuck:x"]
