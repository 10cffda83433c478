from __future__ import annotations

import numpy as np
import pytest

from detectors.reference import Reference
from detectors.views.dependence import Tree
from detectors.views.projection import DIMENSIONS, Projection
from detectors.views.query_hash import QueryHash
from monitor.intake.columns import build_batch, build_reference, infer_schema
from monitor.intake.events import Event, EventType
from tests.conformance.streams import credit, linked


def reference(events: list[Event]) -> Reference:
    return build_reference(events, infer_schema(events), "file", "model:/m")


def vectors(n: int, d: int, seed: int) -> list[Event]:
    rng = np.random.default_rng(seed)
    return [Event(EventType.PREDICTION, 1e9 + i, vector=rng.normal(size=d).tolist()) for i in range(n)]


def test_two_values_of_a_category_are_one_apart_and_numbers_in_units_of_their_range() -> None:
    rows = credit(500, 1)
    made = Projection(reference(rows))
    a, b = credit(1, 2)[0], credit(1, 2)[0]
    a.features, b.features = (
        {"income": 30.0, "age": 40.0, "region": "EU"},
        {"income": 30.0, "age": 40.0, "region": "US"},
    )
    batch = build_batch("model:/m", 0, [a, b], [("t", 0, 0, 0)] * 2, infer_schema(rows))
    points = made.points(batch)
    assert np.linalg.norm(points[0] - points[1]) == pytest.approx(1.0, abs=1e-3)
    low, high = np.quantile([e.features["age"] for e in rows if e.features], [0.01, 0.99])
    b.features = {"income": 30.0, "age": 40.0 + high - low, "region": "EU"}
    batch = build_batch("model:/m", 0, [a, b], [("t", 0, 0, 0)] * 2, infer_schema(rows))
    points = made.points(batch)
    assert np.linalg.norm(points[0] - points[1]) == pytest.approx(1.0, abs=1e-3)


def test_wide_inputs_keep_their_distances_roughly() -> None:
    rows = vectors(400, 200, 1)
    made = Projection(reference(rows))
    assert made.dimensions == DIMENSIONS
    wide = np.array([e.vector for e in rows])
    scaled = wide / (np.quantile(wide, 0.99, axis=0) - np.quantile(wide, 0.01, axis=0))
    true = np.linalg.norm(scaled[:200] - scaled[200:], axis=1)
    kept = np.linalg.norm(made.rows[:200] - made.rows[200:], axis=1)
    assert abs(np.median(kept / true) - 1) < 0.05


def test_hostile_cells_become_points_all_the_same() -> None:
    rows = credit(300, 1)
    made = Projection(reference(rows))
    for value in (float("nan"), 1e308, -1e308, "text", None):
        rows[0].features = {"income": value, "age": value, "region": value}
        batch = build_batch("model:/m", 0, rows[:1], [("t", 0, 0, 0)], infer_schema(credit(300, 1)))
        assert np.isfinite(made.points(batch)).all() and np.abs(made.points(batch)).max() < 10


@pytest.mark.filterwarnings("error")
def test_a_reference_of_the_largest_numbers_makes_points_without_a_warning() -> None:
    rows = credit(300, 1)
    for i, row in enumerate(rows[:20]):
        row.features = {**(row.features or {}), "income": 1.7e308 if i % 2 else -1.7e308}
    made = Projection(reference(rows))
    assert np.isfinite(made.rows).all() and np.abs(made.rows).max() < 10


def test_hashes_tell_different_inputs_apart_and_nothing_else() -> None:
    rows = credit(2_000, 1)
    schema = infer_schema(rows)
    made = QueryHash(reference(rows))
    places = [("t", 0, i, 0) for i in range(len(rows))]
    whole = made.of(build_batch("model:/m", 0, rows, places, schema))
    assert len(np.unique(whole)) == len(rows)
    assert (made.of(build_batch("model:/m", 7, rows[50:60], places[:10], schema)) == whole[50:60]).all()

    def one(income: object, region: object = "EU") -> int:
        event = Event(EventType.PREDICTION, 1e9, features={"income": income, "age": 40, "region": region})
        return int(made.of(build_batch("model:/m", 0, [event], places[:1], schema))[0])

    assert one(3) == one(3.0) and one(0.0) == one(-0.0)
    distinct = [
        one(3.0),
        one(None),
        one("3"),
        one(float("nan")),
        one(0.0),
        one(3.0, "new"),
        one(3.0, "other"),
        one(3.0, None),
    ]
    assert len(set(distinct)) == len(distinct)


def test_dependence_tells_records_from_their_shuffled_fields() -> None:
    rows, live = linked(1_000, 1), linked(500, 2)
    made, schema = Tree(reference(rows)), infer_schema(rows)
    rng = np.random.default_rng(3)
    places = [("t", 0, i, 0) for i in range(500)]
    honest = made.of(build_batch("model:/m", 0, live, places, schema))
    for name in ("income", "age", "region", "debt"):
        values = [(e.features or {})[name] for e in live]
        for event, i in zip(live, rng.permutation(500).tolist(), strict=True):
            event.features = {**(event.features or {}), name: values[i]}
    shuffled = made.of(build_batch("model:/m", 0, live, places, schema))
    assert np.median(honest) > 1 and (shuffled < np.quantile(honest, 0.01)).mean() > 0.5


def test_independent_fields_have_no_edges_and_say_nothing() -> None:
    rng = np.random.default_rng(5)
    rows = [Event(EventType.PREDICTION, 1e9, features={"a": float(x), "b": 7.0}) for x in rng.normal(size=50)]
    schema = infer_schema(rows)
    made = Tree(reference(rows))
    assert (made.of(build_batch("model:/m", 0, rows, [("t", 0, 0, 0)] * 50, schema)) == 0).all()
