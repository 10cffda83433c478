from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.intake import json_object
from monitor.intake.events import Reason, Rejected
from monitor.intake.json_object import MAX_DEPTH, finite, parse_object

LIMIT = 262_144
TEXT = st.text(st.sampled_from('ab:"\\ \n\x00\ud800\udc00é😀{}[]u03'), max_size=6)
SCALAR = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))


def reason(raw: bytes | None, limit: int = LIMIT) -> Reason:
    with pytest.raises(Rejected) as caught:
        parse_object(raw, limit)
    return caught.value.reason


def outcome(parse: Any, raw: bytes) -> tuple[str, str]:
    try:
        return "ok", repr(parse(raw))
    except Rejected as rejected:
        return "rejected", rejected.reason


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, Reason.EMPTY),
        (b"", Reason.EMPTY),
        (b"   ", Reason.NOT_JSON),
        (b"{", Reason.NOT_JSON),
        (b'{"a":1}{"a":1}', Reason.NOT_JSON),
        (b'{"a":1} {"b":1}', Reason.NOT_JSON),
        (b'{"a":"\xff"}', Reason.NOT_JSON),
        (b'{"a":"\xed\xa0\x80"}', Reason.NOT_JSON),
        (b'{"a":"\x00"}', Reason.NOT_JSON),
        (b'{"a":01}', Reason.NOT_JSON),
        (b"[1]", Reason.NOT_AN_OBJECT),
        (b"null", Reason.NOT_AN_OBJECT),
        (b'"text"', Reason.NOT_AN_OBJECT),
        (b'{"a":1,"a":1}', Reason.DUPLICATE_KEY),
        (b'{"a" :1,"a":2}', Reason.DUPLICATE_KEY),
        (b'{"a":1,"\\u0061":2}', Reason.DUPLICATE_KEY),
        (b'{"a:":1,"a\\u003a":2}', Reason.DUPLICATE_KEY),
        (b'{"a\\u0000":1,"a\\ufffd":2}', Reason.DUPLICATE_KEY),
        (b'{"features":{"x":1,"x":2}}', Reason.DUPLICATE_KEY),
        (b'{"a":[[{"x":":","x":2}]]}', Reason.DUPLICATE_KEY),
        (b'{"ts":"1:2","ts":"1:2"}', Reason.DUPLICATE_KEY),
        (b'{"ts":"12:34","ts":"1"}', Reason.DUPLICATE_KEY),
    ],
)
def test_refused(raw: bytes | None, expected: Reason) -> None:
    assert reason(raw) is expected


def test_byte_cap_comes_first() -> None:
    assert reason(b"[" * 100, limit=99) is Reason.TOO_LARGE
    assert parse_object(b'{"a":1}', 7) == {"a": 1}


def test_depth_counts_brackets_outside_strings() -> None:
    inner = MAX_DEPTH - 1
    assert parse_object(b'{"a":' + b"[" * inner + b"]" * inner + b"}", LIMIT)
    assert reason(b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}") is Reason.TOO_DEEP
    assert parse_object(json.dumps({"a": '[{\\"' * 500}).encode(), LIMIT)
    assert parse_object(json.dumps({"a": [[1, 2]] * 500}).encode(), LIMIT)
    assert reason(b"[" * LIMIT) is Reason.TOO_DEEP


@pytest.mark.parametrize("filler", [b'\\"', b'"', b"\\", b'[\\"', b'["', b"[", b'{"a":', b"9", b'{"a":[', b'""'])
def test_hostile_records_cost_little(filler: bytes) -> None:
    for head in (b"", b'{"a":"', b'{"a":', b"[" * 33 + b'"'):
        raw = (head + filler * LIMIT)[:LIMIT]
        started = time.process_time()
        with pytest.raises(Rejected):
            parse_object(raw, LIMIT)
        assert time.process_time() - started < 0.5


def test_what_python_writes_is_taken() -> None:
    value = parse_object(b'{"a":NaN,"b":-Infinity,"c":1e999,"d":-1e999}', LIMIT)
    assert math.isnan(value["a"])
    assert [value["b"], value["c"], value["d"]] == [-math.inf, math.inf, -math.inf]


def test_long_integers_become_floats_inside_and_stay_exact_on_top() -> None:
    for digits in (20, 400, 401, 5_000):
        number = b"9" * digits
        value = parse_object(b'{"id":' + number + b',"features":{"x":-' + number + b"}}", LIMIT)
        assert type(value["features"]["x"]) is float
        assert value["features"]["x"] == (-1e20 if digits == 20 else -math.inf)
        assert value["id"] == (int(number) if digits <= 400 else math.inf)
    deep = parse_object(b'{"a":{"b":[[[[' + str(2**63).encode() + b"]]]]}}", LIMIT)
    assert type(deep["a"]["b"][0][0][0][0]) is float
    edge = parse_object(f'{{"f":{{"x":{2**63 - 1},"y":{-(2**63)},"z":{2**63}}}}}'.encode(), LIMIT)
    assert [type(v) for v in edge["f"].values()] == [int, int, float]


def test_no_nul_and_no_lone_surrogate_survives() -> None:
    raw = b'{"a\\u0000":"\\ud800","b":["x\\udc00\\ud800y",{"\\udfff":"\\u0000"}],"c":"\\ud83d\\ude00"}'
    value = parse_object(raw, LIMIT)
    assert value == {"a\ufffd": "\ufffd", "b": ["x\ufffd\ufffdy", {"\ufffd": "\ufffd"}], "c": "😀"}


SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")])


@given(st.dictionaries(TEXT, VALUE, max_size=4), st.booleans(), SEPARATORS)
@example({"a": [[2**63]]}, True, (",", ":"))
@example({"a": {"b": {"c": [-(2**63) - 1]}}}, True, (",", ":"))
def test_fast_way_agrees_with_slow_way(value: dict[str, Any], ascii_only: bool, separators: tuple[str, str]) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    raw = text.encode("utf-8", "surrogatepass")
    assert outcome(lambda r: parse_object(r, LIMIT), raw) == outcome(json_object._parse_slowly, raw)


PAIR = st.tuples(st.sampled_from(['"a"', '"b"', '"a:"', '":"', '"ts"', '"\\u0061"', '"features"']), st.integers(0, 5))


@st.composite
def written_object(draw: st.DrawFn, depth: int = 2) -> str:
    """An object as text, with equal keys as likely as not."""
    values = ["1", '"x:y"', '":"', '"\\u003a"', '"\\":"', "[]", '["a:",1]']
    members = []
    for key, pick in draw(st.lists(PAIR, max_size=4)):
        nested = pick == 5 and depth
        value = draw(written_object(depth - 1)) if nested else draw(st.sampled_from(values))
        members.append(key + draw(st.sampled_from([":", " :", ": ", "\t:\n"])) + value)
    return "{" + ",".join(members) + "}"


@given(written_object())
@example('{"a":":","a":1}')
@example('{"ts":"a:b","a":1,"a":":"}')
@example('{"ts":"::","features":{"a":1,"a":1}}')
def test_duplicates_are_found_exactly(text: str) -> None:
    raw = text.encode()
    assert outcome(lambda r: parse_object(r, LIMIT), raw) == outcome(json_object._parse_slowly, raw)


JSON_LIKE = st.text('{}[]":,\\u0019ae.-+ \ud800N', max_size=40).map(lambda t: t.encode("utf-8", "replace"))


@given(st.binary(max_size=60) | JSON_LIKE)
def test_any_bytes(raw: bytes) -> None:
    if raw:
        assert outcome(lambda r: parse_object(r, LIMIT), raw) == outcome(json_object._parse_slowly, raw)


def test_finite() -> None:
    assert [finite(v) for v in (1, 1.5, -0.0)] == [1.0, 1.5, -0.0]
    values: tuple[Any, ...] = (10**400, -(10**400), math.nan, math.inf, True, None, "1", [])
    assert [finite(v) for v in values] == [None] * 8
    assert type(finite(1)) is float
