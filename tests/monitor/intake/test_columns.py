"""Events to columns: types, statuses, codes, outputs, new fields."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.base import ABSENT_CODE, MISTYPED_CODE, NULL_CODE, Batch, Cell
from monitor.intake.columns import Schema, build_batch, build_reference, infer_schema, shown_names
from monitor.intake.events import Event, EventType


def event(features: dict[str, Any] | None = None, **more: Any) -> Event:
    return Event(type=EventType.PREDICTION, time=more.pop("time", 1.0), features=features, **more)


def rows(*features: dict[str, Any]) -> list[Event]:
    return [event(f) for f in features]


REFERENCE = rows({"age": 30, "region": "EU", "vip": True}, {"age": 40.5, "region": "US", "vip": False})


def columns(events: list[Event], schema: Schema | None = None) -> Batch:
    places = [("t", 0, i, 0) for i in range(len(events))]
    return build_batch("model:/m", 0, events, places, schema or infer_schema(REFERENCE))


def test_fields_are_numeric_when_most_values_are_numbers() -> None:
    schema = infer_schema(rows({"a": 1, "b": "x"}, {"a": "n/a", "b": 2}, {"a": 3.0, "b": "y"}))
    assert schema.numeric == ("a",) and schema.category == ("b",)
    assert schema.vocabulary == (("x", "y"),)


def test_truth_values_are_categories() -> None:
    assert infer_schema(REFERENCE).category == ("region", "vip")


def test_declared_fields_fix_names_and_order() -> None:
    assert infer_schema(REFERENCE, declared=["vip", "age"]).numeric == ("age",)
    assert infer_schema(REFERENCE, declared=["vip", "age"]).category == ("vip",)


def test_a_reference_without_features_is_an_error() -> None:
    with pytest.raises(ValueError, match="no features"):
        infer_schema([event(None)])


def test_each_status_of_a_numeric_cell() -> None:
    values = [30, None, math.nan, 1e999, "30", True, [1], {"a": 1}]
    batch = columns([event({"age": v, "region": "EU", "vip": True}) for v in values] + [event({"region": "EU"})])
    expected = [Cell.VALID, Cell.NULL, Cell.NOT_FINITE, Cell.NOT_FINITE] + [Cell.MISTYPED] * 4 + [Cell.ABSENT]
    assert batch.numeric.status[:, 0].tolist() == expected
    assert batch.numeric.values[0, 0] == 30 and not batch.numeric.values[1:].any()


def test_codes_of_categories_begin_with_the_reference() -> None:
    values = ["US", "EU", "XX", "YY", "XX", None, 7]
    batch = columns([event({"age": 1, "region": v, "vip": True}) for v in values] + [event({"age": 1})])
    assert batch.category.codes[:, 0].tolist() == [1, 0, 2, 3, 2, NULL_CODE, MISTYPED_CODE, ABSENT_CODE]
    assert batch.category.vocabulary[0] == ("EU", "US", "XX", "YY")


def test_new_fields_are_named_with_their_rows() -> None:
    known = {"age": 1, "region": "EU", "vip": True}
    batch = columns(rows(known, {**known, "zip": 1}, {"age": 1, "zip": 2, "x": 3}, known))
    assert {name: at.tolist() for name, at in batch.new_fields} == {"zip": [1, 2], "x": [2]}


def test_names_of_fields_are_fit_to_be_shown() -> None:
    nasty = "a" * 5_000 + "\n\x1b[31m"
    known = {"age": 1, "region": "EU", "vip": True}
    ((name, _),) = columns(rows({**known, nasty: 1})).new_fields
    assert len(name) < 220 and name.isprintable()
    assert infer_schema(rows({"age": 1, nasty: 1})).numeric == (name, "age")


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\u202eab", "a" * 300, "a\x00"])
def test_fields_of_any_name_are_watched_under_one_that_can_be_shown(name: str) -> None:
    taught = rows({"age": 1, name: 2.0, name + "c": "x"}, {"age": 1, name: 3.0, name + "c": "y"})
    schema = infer_schema(taught)
    assert all(n.isprintable() and len(n) < 220 for n in (*schema.numeric, *schema.category))
    batch = columns(rows({name + "c": "y", name: 5.0, "age": 4}), schema)
    assert sorted(batch.numeric.values[0].tolist()) == [4.0, 5.0] and batch.new_fields == ()
    assert batch.category.codes.tolist() == [[1]]


@given(st.sets(st.text(alphabet="ab\n\u202e~\ufffd", max_size=4), max_size=6), st.booleans())
def test_no_two_fields_are_shown_alike(names: set[str], imitated: bool) -> None:
    """Also where one is named as another one is shown."""
    if imitated:
        names = names | set(shown_names(sorted(names)).values())
    schema = infer_schema(rows(dict.fromkeys(names, 1.0) | {"age": 1}))
    assert len({*schema.numeric}) == len(names | {"age"})
    shown = columns(rows(dict.fromkeys((*schema.names, *schema.numeric), 1.0)), schema)
    assert {name for name, _ in shown.new_fields}.isdisjoint(schema.numeric)
    assert len(shown.new_fields) == len(set(schema.numeric) - set(schema.names))


def test_fields_beside_declared_ones_are_no_news() -> None:
    schema = infer_schema(REFERENCE, declared=["age"])
    assert columns(rows({"age": 1, "region": "EU", "zip": 1}), schema).new_fields == ()


def test_scores_of_two_classes_are_those_of_the_positive_one() -> None:
    answers = [("no", {"yes": 0.2, "no": 0.8}), ("yes", {"yes": 0.9, "no": 0.1})]
    schema = infer_schema([event({"a": 1}, prediction=p, scores=s) for p, s in answers])
    assert schema.classes == ("no", "yes") and schema.positive == "yes"
    batch = columns([event({"a": 1}, prediction="maybe", scores=[0.3, 0.7])], schema)
    assert batch.outputs_numeric.values.tolist() == [[0.7]]
    assert batch.outputs_category.codes.tolist() == [[2]]


def test_numbers_as_predictions_are_values_and_integers_with_scores_are_classes() -> None:
    assert infer_schema([event({"a": 1}, prediction=3.5)]).outputs_numeric == ("prediction.value",)
    schema = infer_schema([event({"a": 1}, prediction=1, scores=[0.1, 0.9])])
    assert schema.outputs_category == ("prediction.class",) and schema.classes == ("1",)


def test_vectors_become_numbered_columns() -> None:
    events = [event(vector=[1.0, math.nan])]
    batch = columns(events, infer_schema([event(vector=[1.0, 2.0])]))
    assert batch.numeric.names == ("x0", "x1")
    assert batch.numeric.status.tolist() == [[Cell.VALID, Cell.NOT_FINITE]]


def test_an_empty_batch_has_all_columns() -> None:
    batch = columns([])
    assert len(batch) == 0 and batch.numeric.values.shape == (0, 1) and batch.category.codes.shape == (0, 2)


def test_the_version_of_a_reference_is_its_content() -> None:
    schema = infer_schema(REFERENCE)
    one = build_reference(REFERENCE, schema, "file", "model:/m")
    same = build_reference(list(REFERENCE), schema, "live", "model:/other")
    other = build_reference(REFERENCE[:1], schema, "file", "model:/m")
    assert one.version == same.version != other.version


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=3,
)


@given(st.lists(st.dictionaries(st.sampled_from(["age", "region", "vip", "z"]), ANY), max_size=20), st.data())
def test_whatever_features_hold_the_columns_are_finite_and_complete(features: list[dict[str, Any]], data: Any) -> None:
    events = [event(f, prediction=data.draw(ANY), scores=data.draw(ANY)) for f in features]
    scored = [event({"age": 1, "region": "EU", "vip": True}, prediction="a", scores={"a": 1.0})]
    batch = columns(events, infer_schema(scored))
    assert len(batch) == len(features)
    for table in (batch.numeric, batch.outputs_numeric):
        assert np.isfinite(table.values).all()
        assert not table.values[table.status != Cell.VALID].any()
    for column in (batch.category, batch.outputs_category):
        for j, words in enumerate(column.vocabulary):
            assert column.codes[:, j].max(initial=-1) < len(words)


@given(st.lists(st.sampled_from(["EU", "US", "XX", "E" * 300, None, 7, True]), min_size=1, max_size=6), st.booleans())
def test_a_row_is_the_same_in_any_company(regions: list[Any], scored: bool) -> None:
    scores = {"no": 0.25, "yes": 0.75} if scored else [0.25, 0.75]
    alone = [event({"age": 1, "region": r, "vip": True}, prediction="yes", scores=scores) for r in regions]
    odd = [event({"age": "x"}, prediction=None, scores=None), event(None, prediction=[1], scores=[0.5])]
    reference = [
        event({"age": 1, "region": "E" * 300, "vip": True}, prediction=p, scores=scores) for p in ("no", "yes")
    ]
    schema = infer_schema([*REFERENCE, *reference])
    one, both = columns(alone, schema), columns([*alone, *odd], schema)
    n = len(alone)
    assert np.array_equal(one.numeric.values, both.numeric.values[:n])
    assert np.array_equal(one.numeric.status, both.numeric.status[:n])
    assert np.array_equal(one.outputs_numeric.values, both.outputs_numeric.values[:n])
    assert one.margin is not None and both.margin is not None
    assert np.array_equal(one.margin, both.margin[:n])
    for a, b in ((one.category, both.category), (one.outputs_category, both.outputs_category)):
        words = [
            [v[c] if c >= 0 else c for c in t.codes[:n, j].tolist()]
            for t in (a, b)
            for j, v in [*enumerate(t.vocabulary)]
        ]
        assert words[: len(a.names)] == words[len(a.names) :]


def test_reference_rows_with_times_are_put_in_their_order() -> None:
    made = [event({"age": float(t), "region": "EU", "vip": True}, time=t) for t in (3.0, 1.0, 2.0)]
    reference = build_reference(made, infer_schema(REFERENCE), "file", "model:/m")
    assert reference.ordered and reference.rows.numeric.values[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert not build_reference(REFERENCE, infer_schema(REFERENCE), "file", "model:/m").ordered
