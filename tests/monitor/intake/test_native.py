from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.intake.events import Event, EventType, Reason, Record, Rejected
from monitor.intake.formats.base import TopicRules, formats
from monitor.intake.formats.native import _USUAL, _take_fields, _usual_prediction
from monitor.intake.identity import Pseudonyms

NAMES = Pseudonyms(bytes(32), {"office": ["203.0.113.0/24"]})
NOW = 1795161600.0  # 2026-11-20T08:00:00Z
PREDICTION = {"type": "prediction", "ts": NOW, "model": "m"}
ACCESS = {"type": "access", "ts": NOW, "resource": "/v1"}
LABEL = {"type": "label", "ts": NOW, "model": "m"}
METRIC = {"type": "metric", "ts": NOW, "series": "s", "value": 1}


def decode(
    fields: Any, *, broker: float | None = None, key: bytes | None = None, headers: Any = (), **rules: Any
) -> Event:
    raw = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    record = Record("t", 0, 7, broker, key, raw, headers)
    decoded = formats()["native"].decode(record, TopicRules("t", NAMES, **rules))
    assert decoded.bad_rows == []
    (event,) = decoded.events
    return event


def refused(fields: Any, **more: Any) -> Reason:
    with pytest.raises(Rejected) as caught:
        decode(fields, **more)
    return caught.value.reason


def test_the_documented_prediction() -> None:
    event = decode(
        b'{"type": "prediction", "event_id": "p-1", "ts": "2026-11-20T08:00:00.120Z", "model": "credit-risk", '
        b'"model_version": "7", "client": "acme", "features": {"income": 0.3, "region": "EU"}, "prediction": "yes", '
        b'"scores": {"yes": 0.81, "no": 0.19}, "latency_ms": 12.4}'
    )
    assert event == Event(
        EventType.PREDICTION,
        1795161600.12,
        event_id="p-1",
        model="credit-risk",
        model_version="7",
        client=NAMES.client("acme"),
        features={"income": 0.3, "region": "EU"},
        prediction="yes",
        scores={"yes": 0.81, "no": 0.19},
        latency_ms=12.4,
    )


def test_the_documented_label_access_and_metric() -> None:
    label = decode(
        b'{"type": "label", "event_id": "p-1", "ts": "2026-12-01T00:00:00Z", "model": "credit-risk", "label": "no", '
        b'"source": "chargeback"}'
    )
    assert label == Event(
        EventType.LABEL, 1796083200.0, event_id="p-1", model="credit-risk", label="no", source="chargeback"
    )
    access = decode(
        b'{"type": "access", "event_id": "a-1", "ts": "2026-11-20T08:00:00.110Z", "principal": "acme", '
        b'"source_ip": "203.0.113.9", "method": "POST", "resource": "/v1/models/credit-risk:predict", "status": 200, '
        b'"bytes": 61, "latency_ms": 14, "user_agent": "python-httpx/0.28"}'
    )
    assert access == Event(
        EventType.ACCESS,
        1795161600.11,
        event_id="a-1",
        principal=NAMES.principal("acme"),
        source_ip=NAMES.address("203.0.113.9"),
        networks=NAMES.networks("203.0.113.9"),
        method="POST",
        resource="/v1/models/credit-risk:predict",
        status=200,
        bytes=61.0,
        latency_ms=14.0,
        user_agent="python-httpx/0.28",
    )
    metric = decode(
        b'{"type": "metric", "event_id": "m-1", "ts": "2026-11-20T08:00:00Z", "series": "elb-requests", "value": 412}'
    )
    assert metric == Event(EventType.METRIC, NOW, event_id="m-1", series="elb-requests", value=412.0)


@pytest.mark.parametrize(
    ("said", "topic", "expected"),
    [
        ("label", "auto", EventType.LABEL),
        (None, "label", EventType.LABEL),
        ("label", "label", EventType.LABEL),
        ("prediction", "label", Reason.BAD_TYPE),
        ("Label", "auto", Reason.BAD_TYPE),
        ("", "label", Reason.BAD_TYPE),
        (7, "auto", Reason.BAD_TYPE),
        (["label"], "auto", Reason.BAD_TYPE),
        (None, "auto", EventType.PREDICTION),
    ],
)
def test_type(said: Any, topic: str, expected: EventType | Reason) -> None:
    fields = {"ts": NOW, "model": "m", "type": said}
    if isinstance(expected, Reason):
        assert refused(fields, type=topic) is expected
    else:
        assert decode(fields, type=topic).type is expected


def test_without_type_and_model_the_type_is_unknown() -> None:
    assert refused({"ts": NOW, "resource": "/"}) is Reason.BAD_TYPE
    assert decode({"ts": NOW}, model="m").type is EventType.PREDICTION


@pytest.mark.parametrize(
    ("ts", "time"),
    [
        ("2026-11-20T08:00:00Z", NOW),
        ("2026-11-20t08:00:00z", NOW),
        ("2026-11-20 08:00:00.5Z", NOW + 0.5),
        ("2026-11-20T09:30:00+01:30", NOW),
        ("2026-11-20T08:00:00.123456789-00:00", NOW + 0.123456),
        ("2016-12-31T23:59:60Z", 1483228800.0),
        (NOW, NOW),
        (int(NOW), NOW),
        (631152000, 631152000.0),
        ("2100-12-31T23:59:59Z", 4133980799.0),
    ],
)
def test_times(ts: Any, time: float) -> None:
    event = decode({**PREDICTION, "ts": ts})
    assert event.time == time
    assert type(event.time) is float
    assert not event.time_corrected


@pytest.mark.parametrize(
    "ts",
    [
        None,
        "",
        "yesterday",
        "2026-11-20",
        "2026-11-20T08:00:00",
        "2026-11-20T08:00Z",
        "20261120T080000Z",
        "2026-W47-5T08:00:00Z",
        "2026-11-20T08:00:61Z",
        "2026-11-20T25:00:00Z",
        "2026-11-20T08:00:00Z ",
        "1795161600",
        "1989-12-31T23:59:59Z",
        "2101-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        0,
        -1,
        NOW * 1000,
        True,
        [NOW],
        math.nan,
        math.inf,
        10**400,
    ],
)
def test_bad_times(ts: Any) -> None:
    assert refused({**PREDICTION, "ts": ts}) is Reason.BAD_TIME
    assert refused({**PREDICTION, "ts": ts}, live=True, broker=NOW) is Reason.BAD_TIME


def test_times_of_a_live_topic_are_corrected_to_the_brokers() -> None:
    for shift, corrected in ((0, False), (600, False), (601, True), (-604_800, False), (-604_801, True)):
        for fields in (PREDICTION, ACCESS):
            event = decode({**fields, "ts": NOW + shift}, live=True, broker=NOW)
            assert (event.time, event.time_corrected) == (NOW if corrected else NOW + shift, corrected)
    tight = decode({**PREDICTION, "ts": NOW - 9}, live=True, broker=NOW, record_age=8.0)
    assert tight.time_corrected
    for fields in (LABEL, METRIC):
        assert decode({**fields, "ts": NOW + 10_000}, live=True, broker=NOW).time == NOW + 10_000
    for rules in ({"live": False, "broker": NOW}, {"live": True, "broker": None}, {"live": True, "broker": -1.0}):
        event = decode({**PREDICTION, "ts": NOW + 10_000}, **rules)
        assert (event.time, event.time_corrected) == (NOW + 10_000, False)


def test_a_topic_may_go_by_the_brokers_time() -> None:
    for fields in (PREDICTION, LABEL, {**PREDICTION, "ts": "never"}):
        event = decode(fields, time="broker", broker=NOW + 5)
        assert (event.time, event.time_corrected) == (NOW + 5, False)
    assert refused(PREDICTION, time="broker") is Reason.BAD_TIME
    assert refused(PREDICTION, time="broker", broker=9e15) is Reason.BAD_TIME


def test_reference_rows_may_lack_time_and_model() -> None:
    event = decode({"features": {"x": 1}}, type="prediction", model="m", default_time=NOW)
    assert (event.time, event.model) == (NOW, "m")


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "prediction"},
        {"type": "label", "model": None},
        {"type": "access"},
        {"type": "access", "resource": None},
        {"type": "access", "resource": ["/"]},
        {"type": "metric", "value": 1},
    ],
)
def test_subject_is_required(fields: dict[str, Any]) -> None:
    assert refused({"ts": NOW, **fields}) is Reason.NO_SUBJECT


def test_an_access_to_nothing_is_still_an_access() -> None:
    assert decode({**ACCESS, "resource": ""}).resource == ""


def test_topic_fills_model_and_tenant() -> None:
    event = decode({"type": "label", "ts": NOW}, model="m", tenant="t")
    assert (event.model, event.tenant) == ("m", "t")
    event = decode({**LABEL, "model": "own", "tenant": "mine"}, model="m", tenant="t")
    assert (event.model, event.tenant) == ("own", "mine")
    assert decode({**LABEL, "tenant": ""}).tenant == ""


@pytest.mark.parametrize("name", ["model", "tenant", "series"])
@pytest.mark.parametrize("value", [7, True, ["m"], {}, "x" * 201, "a\nb", "a\x00b", "\x7f", "a\u202eb", "a\u2028b"])
def test_bad_names(name: str, value: Any) -> None:
    event = {"type": "metric", "ts": NOW, "value": 1} if name == "series" else PREDICTION
    assert refused({**event, name: value}) is Reason.BAD_FIELD


def test_names_that_mean_nothing_there_are_ignored() -> None:
    event = decode({**PREDICTION, "series": 5})
    assert event.series is None and event.unknown_fields == 1
    event = decode({"type": "access", "ts": NOW, "resource": "/", "model": 7})
    assert event.model is None and event.unknown_fields == 1


def test_names_that_would_be_taken_for_others() -> None:
    assert refused({**PREDICTION, "tenant": "a/b"}) is Reason.BAD_FIELD
    assert refused({**PREDICTION, "model": "m@shadow"}) is Reason.BAD_FIELD
    assert refused({**PREDICTION, "model": ""}) is Reason.BAD_FIELD
    assert decode({**PREDICTION, "model": "a/e\u0301 m"}).model == "a/\u00e9 m"
    assert decode({**PREDICTION, "model": "x" * 200}).model == "x" * 200
    assert refused({**PREDICTION, "model": "\u6a21" * 67}) is Reason.BAD_FIELD  # 201 bytes: keys are bounded in bytes


def test_features_are_passed_on_as_they_are() -> None:
    features = {"a": 1, "b": 1.5, "c": "x", "d": True, "e": None, "f": [1, {"g": "h"}], "i": 2**63 - 1}
    event = decode({**PREDICTION, "features": features})
    assert event.features == features
    assert event.vector is None
    assert type(event.features["a"]) is int
    large = decode({**PREDICTION, "features": {"x": 2**63, "y": -(10**400)}}).features
    assert large == {"x": 2.0**63, "y": -math.inf}
    empty = decode({**PREDICTION, "features": None})
    assert (empty.features, empty.vector) == (None, None)


@pytest.mark.parametrize("features", [[1], "x", 1, True])
def test_features_must_be_an_object(features: Any) -> None:
    assert refused({**PREDICTION, "features": features}) is Reason.BAD_FIELD


def test_input_as_arrays() -> None:
    assert decode({**PREDICTION, "input": [0.5, 1, 2**80]}).vector == [0.5, 1.0, 2.0**80]
    assert decode({**PREDICTION, "input": [[[1, 2], [3, 4]], [[5, 6], 7]]}).vector == [1, 2, 3, 4, 5, 6, 7]
    assert decode({**PREDICTION, "input": []}).vector == []
    bad = decode({**PREDICTION, "input": [1, "2", None, True, {}, 10**400, math.nan]}).vector
    assert bad is not None
    assert all(type(v) is float for v in bad)
    assert [math.isnan(v) for v in bad] == [False, True, True, True, True, False, True]
    assert bad[5] == math.inf


def test_input_as_base64() -> None:
    text = base64.b64encode(struct.pack("<3f", 1.5, -2.0, math.inf)).decode()
    assert decode({**PREDICTION, "input": text}).vector == [1.5, -2.0, math.inf]
    assert decode({**PREDICTION, "input": ""}).vector == []
    values: tuple[Any, ...] = ("no base64!", "AAAA", "é", "AAAAAA", 5, {}, True)
    for value in values:
        assert refused({**PREDICTION, "input": value}) is Reason.BAD_FIELD


def test_features_win_over_input() -> None:
    for order in (("features", "input"), ("input", "features")):
        values = {"features": {"x": 1}, "input": [1]}
        event = decode({**PREDICTION, **{name: values[name] for name in order}})
        assert (event.features, event.vector) == ({"x": 1}, None)


def test_inputs_mean_nothing_outside_predictions() -> None:
    event = decode({**ACCESS, "features": "x", "input": "not base64"})
    assert (event.features, event.vector, event.unknown_fields) == (None, None, 2)


def test_scores() -> None:
    assert decode({**PREDICTION, "scores": [0.1, 0.9]}).scores == [0.1, 0.9]
    assert decode({**LABEL, "scores": {"yes": 2**64}}).scores == {"yes": 2.0**64}
    event = decode({**PREDICTION, "scores": "high"})
    assert (event.scores, event.unknown_fields) == (None, 1)
    assert decode({**PREDICTION, "scores": None}).unknown_fields == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, True, "12", [1], {}, None])
def test_numbers_that_are_none(value: Any) -> None:
    event = decode({**PREDICTION, "latency_ms": value, "bytes": value, "sample_weight": value, "status": value})
    assert (event.latency_ms, event.bytes, event.sample_weight, event.status) == (None, None, 1.0, None)
    if value is not None:
        assert decode({**METRIC, "value": value}).value is None


def test_numbers() -> None:
    event = decode({**PREDICTION, "latency_ms": 2, "sample_weight": 0, "status": 404.0})
    assert (event.latency_ms, event.sample_weight, event.status) == (2.0, 0.0, 404)
    assert type(event.latency_ms) is float and type(event.sample_weight) is float and type(event.status) is int
    assert decode({**PREDICTION, "sample_weight": -1}).sample_weight == 1.0
    assert decode({**ACCESS, "status": 200.5}).status is None
    assert decode({**ACCESS, "status": 10**30}).status is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        ("", None),
        (12, "12"),
        (12.0, "12"),
        (1.25, "1.25"),
        (2**64 - 1, "18446744073709551615"),
        (math.inf, None),
        (10**400, None),
        (True, None),
        (["x"], None),
        (None, None),
    ],
)
def test_event_id(value: Any, text: str | None) -> None:
    event = decode({**PREDICTION, "event_id": value, "model_version": value})
    assert (event.event_id, event.model_version) == (text, text)


def test_long_text_is_cut_and_hostile_text_is_cleaned() -> None:
    event = decode({**PREDICTION, "segment": "x" * 5_000, "prediction": "y" * 5_000, "source": "a\x00\ud800b"})
    assert (event.segment, event.prediction, event.source) == ("x" * 1_024, "y" * 1_024, "a\ufffd\ufffdb")


def test_answers_keep_their_type() -> None:
    for value in (1, 1.5, True, "yes", None, [0, 1], {"a": 1}):
        event = decode({**LABEL, "label": value, "prediction": value})
        assert (event.label, event.prediction) == (value, value)
        assert type(event.label) is type(value)
    assert decode({**LABEL, "label": 2**63}).label == 2.0**63


def test_role() -> None:
    assert decode({**PREDICTION, "role": "shadow"}).shadow
    event = decode({**PREDICTION, "role": "primary"})
    assert (event.shadow, event.unknown_fields) == (False, 0)
    event = decode({**PREDICTION, "role": "boss"})
    assert (event.shadow, event.unknown_fields) == (False, 1)


def test_unknown_fields_are_counted() -> None:
    event = decode({**PREDICTION, "color": 1, "Features": {}, "": None})
    assert event.unknown_fields == 3
    assert decode({**PREDICTION, "client": "a"}, client_from=("key",)).unknown_fields == 0


@pytest.mark.parametrize(
    ("client_from", "expected"),
    [
        (("field:client",), "f"),
        (("header:X-Client",), "h"),
        (("key",), "k"),
        (("field:meta.user.id",), "12"),
        (("field:none", "header:none", "field:empty", "field:meta", "key"), "k"),
        (("field:client.id", "header:bytes"), "\u00ff"),
        (("field:none",), None),
    ],
)
def test_client_from(client_from: tuple[str, ...], expected: str | None) -> None:
    fields = {**PREDICTION, "client": "f", "empty": "", "meta": {"user": {"id": 12}}}
    headers = [("x-client", b""), ("x-CLIENT", b"h"), ("bytes", b"\xff"), ("null", None)]
    event = decode(fields, client_from=client_from, headers=headers, key=b"k")
    assert event.client == (None if expected is None else NAMES.client(expected))


def test_client_fields_are_not_unknown() -> None:
    fields = {**PREDICTION, "user": "u", "meta": {"id": "v"}}
    assert decode(fields, client_from=("field:user", "field:meta.id")).unknown_fields == 0


def test_where_the_client_was_found_nothing_of_it_stays() -> None:
    event = decode({**PREDICTION, "features": {"user": "u", "x": 1}}, client_from=("field:features.user",))
    assert (event.client, event.features) == (NAMES.client("u"), {"x": 1})
    event = decode({**ACCESS, "user_agent": "u"}, client_from=("field:user_agent",))
    assert (event.client, event.user_agent) == (NAMES.client("u"), None)


def test_unknown_client_source_is_refused() -> None:
    for bad in ("cookie:x", "header:", "field:", "keys", ""):
        with pytest.raises(ValueError, match="client_from"):
            decode(PREDICTION, client_from=(bad,))


def test_address_that_is_none_is_still_a_pseudonym() -> None:
    event = decode({**ACCESS, "source_ip": "unknown host", "principal": 42})
    assert (event.source_ip, event.networks) == (NAMES.address("unknown host"), ())
    assert event.principal == NAMES.principal("42")
    assert decode({**ACCESS, "source_ip": 5, "principal": {}}).source_ip is None


def test_record_cap_is_the_topics() -> None:
    assert refused(PREDICTION, record_bytes=10) is Reason.TOO_LARGE
    assert refused(b"") is Reason.EMPTY


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**19), st.floats(), st.text(max_size=5), st.just("x" * 2000),
    st.lists(st.floats(), max_size=2), st.dictionaries(st.sampled_from(["a", "b"]), st.floats(0, 1), max_size=2),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*sorted(_USUAL), "tenant", "odd"]), _VALUES))
def test_the_usual_prediction_is_taken_as_field_by_field(fields: dict[str, Any]) -> None:
    quick = _usual_prediction(fields)
    if quick is None:
        return
    slow = Event(EventType.PREDICTION, 0.0)
    _take_fields(slow, {k: v for k, v in fields.items() if k != "model"}, TopicRules("t", NAMES))
    slow.model = fields["model"]
    assert msgspec.json.encode(quick) == msgspec.json.encode(slow)


def test_the_usual_prediction_is_usual() -> None:
    fields = {"event_id": "1", "model": "m", "model_version": "7", "features": {"a": 1}, "prediction": "yes"}
    assert _usual_prediction(fields) is not None
    assert _usual_prediction({**fields, "scores": {"yes": 1.0}, "latency_ms": 0.5}) is not None
    assert _usual_prediction({**fields, "odd": 1}) is None
