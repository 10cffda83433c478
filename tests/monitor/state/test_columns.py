from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitor.state.columns import json_text, storable_key, storable_text

ANY_TEXT = st.text(st.characters(codec=None), max_size=80)


@given(ANY_TEXT, st.integers(20, 60))
def test_text_is_storable_and_bounded(text: str, limit: int) -> None:
    for stored in (storable_text(text, limit), storable_key(text, limit)):
        assert len(stored.encode()) <= limit  # encodes: no lone surrogate
        assert "\0" not in stored
    assert storable_text(storable_text(text, limit), limit) == storable_text(text, limit)
    if storable_text(text, limit) == text:
        assert storable_key(text, limit) == text


@given(st.lists(ANY_TEXT, min_size=2, max_size=2, unique=True))
def test_keys_stay_different(texts: list[str]) -> None:
    assert storable_key(texts[0], 24) != storable_key(texts[1], 24)


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


LEAVES = st.none() | st.floats() | st.integers() | ANY_TEXT
VALUES = st.recursive(LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(ANY_TEXT, v, max_size=3))


@given(VALUES)
def test_json_is_ascii_strict_and_canonical(value: object) -> None:
    text = json_text(value)
    assert text.isascii() and "\0" not in text
    assert json_text(json.loads(text, parse_constant=refuse)) == text


def test_json_of_numpy() -> None:
    value = {"n": np.int64(3), "x": np.float64("nan"), "a": np.array([1.0, math.inf]), "b": np.bool_(True)}
    assert json_text(value) == '{"a":[1.0,null],"b":true,"n":3,"x":null}'
