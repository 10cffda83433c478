"""For every detector one stream on which it must alarm and one on which it must not.

Streams are lists of events, not batches, so that the suite can cut and poison them. A new detector adds one `Case`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitor.intake.events import Event, EventType

FAULT_AT = 2_000
LENGTH = 4_000
ROWS = 500


@dataclass(frozen=True)
class Case:
    """`alarming` has a fault from event FAULT_AT on, `clean` has none; `field` is a numeric field to poison."""

    reference: Callable[[], list[Event]]
    clean: Callable[[], list[Event]]
    alarming: Callable[[], list[Event]]
    field: str = "income"


def credit(n: int, seed: int) -> list[Event]:
    """Honest events of a small credit model."""
    rng = np.random.default_rng(seed)
    income, age = rng.lognormal(3.5, 0.4, n), rng.normal(42, 12, n).round()
    region = rng.choice(["EU", "US", "ASIA"], n, p=[0.5, 0.3, 0.2])
    score = 1 / (1 + np.exp(-(np.log(income) - 3.5) * 2 - (age - 42) / 20 + rng.normal(0, 0.3, n)))
    client = rng.zipf(1.4, n) % 30
    return [
        Event(
            type=EventType.PREDICTION,
            time=1_763_625_600.0 + i,
            event_id=f"e{i}",
            model="credit",
            model_version="7",
            client=f"c_{client[i]}",
            features={"income": float(income[i]), "age": float(age[i]), "region": str(region[i])},
            prediction="yes" if score[i] > 0.5 else "no",
            scores={"yes": float(score[i]), "no": float(1 - score[i])},
        )
        for i in range(n)
    ]


def changed(seed: int, change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[Event]:
    """Honest events whose features are changed from FAULT_AT on."""
    events = credit(LENGTH, seed)
    for event in events[FAULT_AT:]:
        event.features = change(dict(event.features or {}))
    return events


def _richer(features: dict[str, Any]) -> dict[str, Any]:
    return {**features, "income": features["income"] * 1.5}


def _without_income(features: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in features.items() if name != "income"}


def _next_version() -> list[Event]:
    """A version without the income follows."""
    events = changed(2, _without_income)
    for event in events[FAULT_AT:]:
        event.model_version = "8"
    return events


def _case(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Case:
    return Case(lambda: credit(ROWS, 1), lambda: credit(LENGTH, 2), lambda: changed(2, change))


CASES: dict[str, Case] = {
    "predictive_drift": _case(_richer),
    "field_rule": _case(_without_income),
    "stuck_rule": _case(lambda features: {**features, "income": 31.5}),
    "schema_rule": Case(lambda: credit(ROWS, 1), lambda: credit(LENGTH, 2), _next_version),
}
