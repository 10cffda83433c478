"""The Open Inference Protocol as MLServer writes it, and whatever else arrives on such a topic."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.intake.events import Half, Reason, Record, Rejected
from monitor.intake.formats.base import TopicRules, formats
from monitor.intake.halves import feature_rows, prediction_column, score_column
from monitor.intake.identity import Pseudonyms

AT = 1_795_161_600.0
NAMES = Pseudonyms(bytes(32))
REQUEST = TopicRules("in", NAMES, type="request", client_from=("header:x-client-id",))
RESPONSE = TopicRules("out", NAMES, type="response")
HEADERS = [("mlserver-model", b"credit"), ("X-Client-Id", b"acme")]


def tensor(name: str, shape: list[Any], data: Any, datatype: str = "FP64", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


def decode(
    body: Any, rules: TopicRules = REQUEST, key: bytes | None = b"r-1", headers: Sequence[tuple[str, bytes]] = HEADERS
) -> Half:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    decoded = formats()["oip-v2"].decode(Record(rules.topic, 0, 7, AT, key, raw, headers), rules)
    assert decoded.half is not None and not decoded.events
    return decoded.half


def refused(body: Any, rules: TopicRules = REQUEST, **record: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        decode(body, rules, **record)
    return caught.value


def test_a_request_and_a_response_of_mlserver() -> None:
    request = decode({"inputs": [tensor("x", [2, 3], [[1, 2.5, 3], [4, 5, 6]], parameters={"content_type": "np"})]})
    assert (request.key, request.rows, request.time, request.place) == ("r-1", 2, AT, ("in", 0, 7))
    assert request.model == "credit" and request.client == NAMES.client("acme")
    assert list(feature_rows(request, ["a", "b", "c"])) == [{"a": 1, "b": 2.5, "c": 3}, {"a": 4, "b": 5, "c": 6}]
    assert list(feature_rows(request, ["a", "b"]))[1] == {"x_0": 4, "x_1": 5, "x_2": 6}
    response = decode(
        {
            "model_name": "credit", "model_version": "v3", "id": "r-1",
            "outputs": [
                tensor("predict", [2, 1], [0, 1], "INT64"),
                tensor("predict_proba", [2, 2], [0.9, 0.1, 0.2, 0.8]),
            ],
        },
        RESPONSE, headers=[("Ce-Modelid", b"other")],
    )  # fmt: skip
    assert (response.model, response.model_version, response.client) == ("credit", "v3", None)
    assert prediction_column(response, ["no", "yes"]) == ["no", "yes"]
    assert prediction_column(response, ["0", "1"]) == prediction_column(response, []) == [0, 1]
    assert score_column(response, ["no", "yes"]) == [{"no": 0.9, "yes": 0.1}, {"no": 0.2, "yes": 0.8}]
    assert score_column(response, []) == [[0.9, 0.1], [0.2, 0.8]]


def test_nested_and_flat_data_are_the_same() -> None:
    flat = decode({"inputs": [tensor("x", [2, 2, 2], list(range(8)))]})
    for data in ([[0, 1, 2, 3], [4, 5, 6, 7]], [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]):
        assert decode({"inputs": [tensor("x", [2, 2, 2], data)]}) == flat


def test_several_tensors_of_all_kinds_are_columns() -> None:
    inputs = [
        tensor("income", [2], [1.5, None]),
        tensor("region", [2, 1], [["EU"], ["US"]], "BYTES", parameters={"content_type": "str"}),
        tensor("new", [2, 1], [1, False], "BOOL"),
        tensor("odd", [2], [2, "x"], "BOOL"),
        tensor("age", [2], [30, 31], "UINT8"),
        tensor("emb", [2, 2], [[1, 2], [3, 4]], "FP32"),
    ]
    half = decode({"inputs": inputs, "parameters": {"content_type": "pd"}})
    assert list(feature_rows(half, ["not", "used"])) == [
        {"income": 1.5, "region": "EU", "new": True, "odd": 2, "age": 30, "emb_0": 1, "emb_1": 2},
        {"income": None, "region": "US", "new": False, "odd": "x", "age": 31, "emb_0": 3, "emb_1": 4},
    ]


def test_what_is_no_number_is_passed_on() -> None:
    raw = b'{"inputs": [{"name": "x", "shape": [4], "datatype": "FP64", "data": [NaN, 1e999, "12", -Infinity]}]}'
    values = decode(raw).tensors[0].values
    assert str(values) == "[nan, inf, '12', -inf]"


def test_outputs_of_other_servers() -> None:
    one = decode({"model_name": "m", "outputs": [tensor("output0", [2], ["a", "b"], "BYTES")]}, RESPONSE)
    assert prediction_column(one, []) == ["a", "b"] and score_column(one, []) is None
    many = decode({"model_name": "m", "outputs": [tensor("output0", [1, 3], [0.1, 0.2, 0.7])]}, RESPONSE)
    assert prediction_column(many, []) is None and score_column(many, []) == [[0.1, 0.2, 0.7]]
    failed = decode({"error": "no such model"}, RESPONSE)
    assert failed.failed and failed.rows == 0


def test_keys_and_names() -> None:
    body = {"id": "body", "inputs": [tensor("x", [1], [1])]}
    assert decode(body).key == "r-1" and decode(body, key=None).key == "body"
    assert refused({"inputs": body["inputs"]}, key=None).reason is Reason.NO_SUBJECT
    assert refused(body, key=b"k" * 2_000).reason is Reason.BAD_FIELD
    assert decode(body, headers=[]).model is None
    assert refused(body, headers=[("mlserver-model", b"a\nb")]).reason is Reason.BAD_FIELD


@pytest.mark.parametrize(
    "item",
    [
        tensor("x", [2], [1]),
        tensor("x", [10**12, 10**12], [1]),
        tensor("x", [10**18, 0], []),
        tensor("x", [9, 0], []),
        tensor("x", [60_000], [1] * 60_000),
        tensor("x", [2, 2], [[1], [2, 3, 4]]),
        tensor("x", [2, 2], [[1, 2], 3, 4]),
        tensor("x", [4], [[1, 2], [3, 4]]),
        tensor("x", [-1], []),
        tensor("x", [1.0], [1]),
        tensor("x", [], 1),
        tensor("x", [1] * 9, [1]),
        tensor("x", [1], {"a": 1}),
        tensor("x", [1], [{"a": 1}]),
        tensor("x", [1], "abc"),
        tensor("x" * 300, [1, 2], [1, 2]),
        tensor("x", [1], [1], "FLOAT"),
        tensor("x", [1], [1], ["FP64"]),  # type: ignore[arg-type]
        {"name": "x", "shape": [1], "datatype": "FP64"},
        "x",
    ],
)
def test_tensors_that_do_not_hold_together_are_refused(item: Any) -> None:
    assert refused({"inputs": [item]}).reason is Reason.BAD_FIELD


def test_bodies_that_do_not_hold_together_are_refused() -> None:
    bodies: list[Any] = [{}, {"inputs": []}, {"inputs": {}}, {"outputs": [tensor("x", [1], [1])]}]
    for body in bodies:
        assert refused(body).reason is Reason.BAD_FIELD
    assert "rows" in refused({"inputs": [tensor("x", [1], [1]), tensor("y", [2], [1, 2])]}).detail
    assert "name" in refused({"inputs": [tensor("x", [1], [1]), tensor("x", [1], [1])]}).detail
    assert refused({"inputs": [tensor("x", [1], [1])] * 2, "a": "x" * 300_000}).reason is Reason.TOO_LARGE
    assert refused(b'{"inputs": ' + b"[" * 100 + b"]" * 100 + b"}").reason is Reason.TOO_DEEP


def test_binary_data_is_refused_with_a_word() -> None:
    item = {"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    sized = [("Inference-Header-Content-Length", b"2")]
    for raw, headers in ((json.dumps({"inputs": [item]}).encode(), []), (b"{}\x00\xff", sized)):
        rejected = refused(raw, headers=headers)
        assert rejected.reason is Reason.BAD_FORMAT and "binary" in rejected.detail


def test_a_body_that_is_json_to_its_end_is_not_binary() -> None:
    raw = json.dumps({"inputs": [tensor("x", [1], [1])]}).encode()
    assert decode(raw, headers=[("Inference-Header-Content-Length", str(len(raw)).encode())]).rows == 1


def test_the_careful_parser_and_the_quick_one_agree() -> None:
    body = {"id": "a", "model_name": "m", "model_version": 3, "inputs": [tensor("x", [2, 2], [[1, 2.5], [None, "z"]])]}
    quick = decode(body)
    assert decode({**body, "note": "a\\b"}) == decode({**body, "note": "\u0000"}) == quick
    assert quick.model_version == "3"


def test_a_record_without_broker_time_is_refused() -> None:
    record = Record("in", 0, 0, None, b"k", b'{"inputs": []}')
    with pytest.raises(Rejected, match="time"):
        formats()["oip-v2"].decode(record, REQUEST)


def test_an_empty_batch_of_any_width_costs_nothing() -> None:
    tracemalloc.start()
    half = decode({"inputs": [tensor("x", [0, 10**9], [])]})
    assert list(feature_rows(half, [])) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_values_beyond_the_watched_fields_are_not_kept() -> None:
    half = decode({"inputs": [tensor("x", [2, 3_000], [0] * 6_000, "UINT8")]})
    assert [len(row) for row in feature_rows(half, [])] == [1_000, 1_000]


NUMBER = st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([10**400])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | st.text(max_size=5),
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=3), v, max_size=3),
    max_leaves=10,
)
SHAPE = JSON | st.lists(st.integers(-1, 3) | st.integers(0, 2**70), max_size=4)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": JSON | st.sampled_from(["predict", "predict_proba", "x"]),
        "shape": SHAPE,
        "datatype": JSON | st.sampled_from(["FP64", "BOOL", "BYTES", "INT8"]),
        "data": JSON | st.lists(st.lists(NUMBER, max_size=3) | NUMBER | st.text(max_size=2), max_size=6),
        "parameters": JSON,
    },
)  # fmt: skip
SOUND = st.lists(NUMBER, min_size=1, max_size=6).map(lambda data: tensor("predict", [len(data), 1], data))
BODY = st.fixed_dictionaries(
    {},
    optional={
        field: JSON | st.lists(TENSOR | SOUND, max_size=3)
        for field in ("inputs", "outputs", "id", "model_name", "model_version", "error", "parameters")
    },
)
RAW = BODY.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=60)
KEY = st.none() | st.binary(max_size=10)
HEADER_NAME = st.sampled_from(["mlserver-model", "Ce-Modelid", "x-client-id", "mlserver-version"])
HEADER = st.lists(st.tuples(HEADER_NAME, st.binary(max_size=6)), max_size=3)


@given(RAW, KEY, HEADER, st.sampled_from([REQUEST, RESPONSE]))
def test_whatever_arrives_is_a_half_or_refused(
    raw: bytes, key: bytes | None, headers: list[tuple[str, bytes]], rules: TopicRules
) -> None:
    try:
        half = decode(raw, rules, key, headers)
    except Rejected:
        return
    assert half.key and half.place == (rules.topic, 0, 7)
    for t in half.tensors:
        assert len(t.values) == half.rows * t.width or not t.values
    assert len(list(feature_rows(half, ["a", "b"]))) == half.rows
    for column in (prediction_column(half, ["a"]), score_column(half, ["a", "b"])):
        assert column is None or len(column) == half.rows
