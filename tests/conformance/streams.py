"""For every detector one stream on which it must alarm and one on which it must not.

Streams are lists of events, not batches, so that the suite can cut and poison them. A new detector adds one `Case`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from monitor.intake.events import Event, EventType

FAULT_AT = 2_000
LENGTH = 4_000
ROWS = 500


@dataclass(frozen=True)
class Case:
    """`alarming` has a fault from event FAULT_AT on, `clean` has none; `field` is a numeric field to poison.

    `subject` (type, id) is whom the alarm must name; `params` are parameters by detector.
    """

    reference: Callable[[], list[Event]]
    clean: Callable[[], list[Event]]
    alarming: Callable[[], list[Event]]
    field: str = "income"
    subject: tuple[str, str] = ("feature", "income")
    params: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    labelled: bool = False
    """The events carry their labels, which come when the batch is through."""
    segments: tuple[str, ...] = ()
    """Declared segment fields."""


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


def _richer_in_europe(features: dict[str, Any]) -> dict[str, Any]:
    return _richer(features) if features["region"] == "EU" else features


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


def _labelled(events: list[Event], wrong_from: int) -> list[Event]:
    """Every 12th prediction is wrong, from `wrong_from` on every second."""
    for i, event in enumerate(events):
        wrong = i % 12 == 0 or (i >= wrong_from and i % 2 == 0)
        event.label = {"yes": "no", "no": "yes"}[event.prediction] if wrong else event.prediction
    return events


def _errors() -> Case:
    return Case(
        lambda: credit(ROWS, 1),
        lambda: _labelled(credit(LENGTH, 2), LENGTH),
        lambda: _labelled(credit(LENGTH, 2), FAULT_AT),
        labelled=True,
        subject=("model", "credit"),
    )


def _wrong_in_europe(events: list[Event], wrong_from: int) -> list[Event]:
    """Every 12th prediction is wrong, from `wrong_from` on every second of Europe."""
    for i, event in enumerate(_labelled(events, LENGTH)):
        if i >= wrong_from and i % 2 and (event.features or {})["region"] == "EU":
            event.label = {"yes": "no", "no": "yes"}[event.prediction]
    return events


def linked(n: int, seed: int) -> list[Event]:
    """Honest events whose fields belong together: who is older has saved more, and lives where the rich live."""
    events = credit(n, seed)
    rng = np.random.default_rng([seed, 1])
    wealth = rng.normal(0, 1, n)
    for i, event in enumerate(events):
        age, income = 42 + 12 * wealth[i] + rng.normal(0, 2), float(np.exp(3.5 + 0.4 * wealth[i] + rng.normal(0, 0.05)))
        region = ("EU", "US", "ASIA")[int(np.searchsorted([-0.5, 0.5], wealth[i] + rng.normal(0, 0.1)))]
        event.features = {
            "income": income,
            "age": float(age),
            "region": region,
            "debt": float(rng.normal(0, 1) - wealth[i]),
        }
    return events


ATTACKER = "c_attacker"
Attack = Callable[[Event, int], Event]


def attacked(honest: Callable[[int, int], list[Event]], attack: Attack) -> list[Event]:
    """Honest events; from FAULT_AT on every third is a query of the attacker, made from an honest one."""
    events = honest(LENGTH, 2)
    for i in range(FAULT_AT, LENGTH, 3):
        events[i] = attack(msgspec.structs.replace(events[i], client=ATTACKER), i)
    return events


def _foreign(event: Event, i: int) -> Event:
    """Nothing like the data."""
    event.features = {"income": 400.0 + (i * 37 % 400), "age": -50.0 - i % 60, "region": "EU"}
    return event


def _undecided(event: Event, i: int) -> Event:
    event.scores = {"yes": 0.5 + 1e-5 * (i % 7), "no": 0.5 - 1e-5 * (i % 7)}
    return event


def _small_steps(event: Event, i: int) -> Event:
    event.features = {"income": 33.0 + 1e-4 * (i % 911), "age": 40.0, "region": "US"}
    return event


def _drawn_apart(event: Event, i: int) -> Event:
    """Each field from another honest record."""
    others = _POOL[i % 997], _POOL[i * 7 % 991], _POOL[i * 13 % 983]
    names = ("income", "age", "region")
    event.features = {
        **(event.features or {}),
        **{n: (o.features or {})[n] for n, o in zip(names, others, strict=True)},
    }
    return event


def _computed(event: Event, i: int) -> Event:
    """Whole numbers where the data has them, but for a little that a step along a gradient adds."""
    features = event.features or {}
    event.features = {**features, "age": float(features["age"]) + 0.013 * (1 + i % 71)}
    return event


def _known(event: Event, i: int) -> Event:
    event.features = _ROWS[i % ROWS].features
    return event


def _in_turn(n: int, seed: int) -> list[Event]:
    """Honest events of clients that ask equally much."""
    events = credit(n, seed)
    for i, event in enumerate(events):
        event.client = f"c_{i % 30}"
    return events


def _as_it_is(event: Event, i: int) -> Event:
    return event


_POOL, _ROWS = linked(1_000, 5), credit(ROWS, 1)


def _query_case(attack: Attack, honest: Callable[[int, int], list[Event]] = credit) -> Case:
    """The calibration ends well before the attack."""
    return Case(
        lambda: honest(ROWS, 1),
        lambda: honest(LENGTH, 2),
        lambda: attacked(honest, attack),
        subject=("client", ATTACKER),
        params={"query_log": {"calibration_queries": 1_500}},
    )


CASES: dict[str, Case] = {
    "outlier_queries": _query_case(_foreign),
    "margin_queries": _query_case(_undecided),
    "near_duplicate_queries": _query_case(_small_steps),
    "independent_queries": _query_case(_drawn_apart, linked),
    "finer_queries": _query_case(_computed),
    "training_row_queries": _query_case(_known),
    "query_budget": _query_case(_as_it_is, _in_turn),
    "predictive_drift": _case(_richer),
    "histogram_drift": dataclasses.replace(
        _case(lambda features: {**features, "income": features["income"] if features["age"] % 10 else 33.0}),
        params={"histogram_drift": {"noise_windows": 0}},
    ),
    "segment_drift": dataclasses.replace(
        _case(_richer_in_europe), segments=("region",), subject=("segment", "region=EU")
    ),
    "field_rule": _case(_without_income),
    "error_rate": _errors(),
    "segment_error_rate": dataclasses.replace(
        _errors(),
        alarming=lambda: _wrong_in_europe(credit(LENGTH, 2), FAULT_AT),
        segments=("region",),
        subject=("segment", "region=EU"),
    ),
    "stuck_rule": _case(lambda features: {**features, "income": 31.5}),
    "schema_rule": Case(lambda: credit(ROWS, 1), lambda: credit(LENGTH, 2), _next_version),
}
