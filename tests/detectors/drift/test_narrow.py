"""Models of one column: what streams of a kind usually tell each other must not be missed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detectors.base import Context, Verdict, Views
from detectors.drift.design_effect import DesignEffect
from detectors.drift.params import Params
from detectors.drift.predictive import PredictiveDrift
from detectors.drift.target import target
from monitor.intake.columns import build_batch, build_reference, infer_schema
from monitor.intake.events import Event, EventType


def row(i: int, kind: str) -> dict[str, Any]:
    rng = np.random.default_rng(i)
    return {"x": float(rng.normal())} if kind == "number" else {"c": str(rng.choice(["a", "b", "c"]))}


@pytest.mark.parametrize("kind", ["number", "text"])
def test_the_design_effect_of_one_column_is_measured_from_it(kind: str) -> None:
    rows = [Event(EventType.PREDICTION, 0.0, features=row(i, kind)) for i in range(300)]
    compiled = target(Context("model:/m", build_reference(rows, infer_schema(rows), "file", "model:/m")))
    noise = DesignEffect(compiled, 1.0)
    rng = np.random.default_rng(0)
    for block in range(600):
        noise.learn(rng.normal(0, 1.5, (1, len(compiled.scores))), np.zeros(len(compiled.scores), np.bool_))
        if block % 50 == 0:
            noise.refresh(block, np.full(compiled.counts, 5.0))
            assert np.isfinite(noise.v).all() and np.isfinite(noise.pooled).all()
    noise.refresh(600, np.full(compiled.counts, 5.0))
    assert 1.5 < noise.v[0, 0] < 3.5


@pytest.mark.parametrize(("spacing", "trusted"), [(1.0, True), (3_600.0, False)])
def test_order_is_not_trusted_where_live_traffic_is_far_denser(spacing: float, trusted: bool) -> None:
    rows = [Event(EventType.PREDICTION, i * spacing, features=row(i, "number")) for i in range(500)]
    schema = infer_schema(rows)
    context = Context("model:/m", build_reference(rows, schema, "file", "model:/m"), 86_400 / spacing)
    made = PredictiveDrift(context, Params())
    assert made._noise.warmed == 20
    live = [Event(EventType.PREDICTION, 2e6 + i, features=row(1_000 + i, "number")) for i in range(300)]
    batch = build_batch("model:/m", 0, live, [("t", 0, i, 0) for i in range(300)], schema)
    for evidence in made.update(batch, Views(batch, context)):
        made.react(Verdict(made.name, len(evidence.elapsed)))
    assert (made._noise.warmed > 0) is trusted
