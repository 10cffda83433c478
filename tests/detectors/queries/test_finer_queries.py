from __future__ import annotations

import numpy as np
import pytest

from detectors.base import F64, Context, Views
from detectors.queries.conformal import ConformalParams
from detectors.queries.finer_queries import FinerQueries
from monitor.intake.columns import build_batch, build_reference, infer_schema
from monitor.intake.events import Event, EventType


def events(rows: F64) -> list[Event]:
    return [
        Event(
            type=EventType.PREDICTION, time=1_763_625_600.0 + i, event_id=f"e{i}", model="m", model_version="1",
            client="c", features={f"f{j}": float(v) for j, v in enumerate(row)}, prediction="a", scores={"a": 1.0},
        )
        for i, row in enumerate(rows)
    ]  # fmt: skip


def values(reference: F64, rows: F64) -> F64:
    given = events(reference)
    schema = infer_schema(given)
    context = Context("model:/m", build_reference(given, schema, "file", "model:/m"))
    batch = build_batch("model:/m", 0, events(rows), [("t", 0, i, 0) for i in range(len(rows))], schema)
    return FinerQueries(context, ConformalParams()).values(batch, Views(batch, context), np.arange(len(rows)))


RNG = np.random.default_rng(1)
REFERENCE = RNG.normal(50, 9, (300, 4)) / [1, 1, 10, 10]
REFERENCE = np.stack([REFERENCE[:, 0].round(), REFERENCE[:, 1].round(1), REFERENCE[:, 2].round(2), REFERENCE[:, 3]], 1)


def test_the_share_of_numbers_with_more_decimals_than_the_data() -> None:
    """The fourth column has no decimals in common, so it does not count."""
    rows = np.array([[50, 4.1, 3.25, 0.1234567891], [50.5, 4.1, 3.25, 1], [50.5, 4.15, 3.255, 1], [1e6, -7, 0, 0]])
    assert values(REFERENCE, rows) == pytest.approx([0, 1 / 3, 1, 0])


def test_a_passage_through_single_precision_makes_nothing_finer() -> None:
    rows = REFERENCE.astype(np.float32).astype(np.float64)
    rows[:, 2] *= 1_000
    assert values(REFERENCE * [1, 1, 1_000, 1], rows).max() == 0


def test_missing_and_huge_numbers_are_not_finer() -> None:
    rows = np.array([[np.nan, 4.1, 3.25, 1], [np.inf, 4.1, 1e300, 1]])
    assert values(REFERENCE, rows).max() == 0


def test_a_model_of_real_numbers_has_no_such_test() -> None:
    assert np.isnan(values(RNG.normal(size=(300, 3)), RNG.normal(size=(5, 3)))).all()
