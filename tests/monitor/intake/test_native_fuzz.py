"""Whatever bytes arrive: events or Rejected, with values that every store takes, and no raw identifier in them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from monitor.intake.dead_letters import dead_letter
from monitor.intake.events import DeadLetter, Decoded, Event, Record, Rejected
from monitor.intake.formats.base import TopicRules, formats
from monitor.intake.formats.native import EARLIEST, LATEST
from monitor.intake.identity import Pseudonyms

NAMES = Pseudonyms(bytes(32))
RULES = [
    TopicRules("t", NAMES, live=True),
    TopicRules("t", NAMES, type="prediction", model="m", client_from=("header:c", "field:features.who", "key")),
    TopicRules("t", NAMES, type="access", time="broker", client_from=("field:principal", "field:client")),
    TopicRules("t", NAMES, type="label", model="m", default_time=2e9),
    TopicRules("t", NAMES, type="metric", client_from=("field:meta.user",)),
]
CANARY = "canary-7f3a"
FIELDS = [f.name for f in msgspec.structs.fields(Event)] + ["ts", "role", "input", "meta", "who", "other"]
TEXT = st.text(max_size=8) | st.text(st.characters(), max_size=3) | st.sampled_from(["\x00", "\ud800", "m", "label"])
NUMBER = st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([10**400, 1795161600, 1795161600.5])
SCALAR = st.none() | st.booleans() | NUMBER | TEXT
JSON = st.recursive(SCALAR, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXT, v, max_size=4), max_leaves=12)
VALID: dict[str, Any] = {
    "type": "prediction", "event_id": "p-1", "ts": "2026-11-20T08:00:00.120Z", "model": "m", "client": "c",
    "features": {"x": 0.3, "who": "w"}, "prediction": "yes", "scores": {"yes": 0.81}, "latency_ms": 12.4,
    "resource": "/r", "series": "s", "value": 1.5, "source_ip": "203.0.113.9", "principal": "p", "status": 200,
}  # fmt: skip
RULE, BROKER = st.sampled_from(RULES), st.none() | st.floats(allow_nan=False) | st.just(1795161600.0)


def check(
    raw: bytes | None, rules: TopicRules, broker: float | None, key: bytes | None = None, headers: Any = ()
) -> Event | DeadLetter:
    record = Record("t", 0, 0, broker, key, raw, headers)
    try:
        decoded = formats()["native"].decode(record, rules)
    except Rejected as rejected:
        letter = dead_letter(record, rejected, b"key")
        check_value(list(letter))
        return letter
    assert isinstance(decoded, Decoded)
    (event,) = decoded.events
    check_event(event)
    return event


def check_event(event: Event) -> None:
    assert EARLIEST <= event.time < LATEST
    for name in ("time", "sample_weight", "latency_ms", "bytes", "value"):
        value = getattr(event, name)
        assert type(value) is float or (value is None and name not in ("time", "sample_weight"))
    assert event.vector is None or all(type(v) is float for v in event.vector)
    assert event.status is None or type(event.status) is int
    assert event.features is None or type(event.features) is dict
    for name in ("event_id", "model", "model_version", "client", "source", "segment", "request_id", "trace_id",
                 "source_ip", "principal", "method", "resource", "user_agent", "series"):  # fmt: skip
        value = getattr(event, name)
        assert value is None or (type(value) is str and len(value) <= 1_024 and (value or name == "resource"))
    check_value(msgspec.structs.astuple(event))


def check_value(value: Any) -> None:
    if isinstance(value, str):
        value.encode()
        assert "\0" not in value
    elif isinstance(value, int):
        assert -(2**63) <= value < 2**63
    elif isinstance(value, dict):
        for name, item in value.items():
            check_value(name)
            check_value(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_value(item)


@given(st.binary(max_size=200), RULE, BROKER)
def test_any_bytes(raw: bytes, rules: TopicRules, broker: float | None) -> None:
    check(raw, rules, broker)


@given(JSON | st.dictionaries(st.sampled_from(FIELDS) | TEXT, JSON, max_size=8), RULE, BROKER, st.booleans())
def test_any_json(value: Any, rules: TopicRules, broker: float | None, ascii_only: bool) -> None:
    check(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"), rules, broker)


@given(st.data(), RULE, BROKER, st.none() | st.binary(max_size=5))
def test_mutated_events(data: st.DataObject, rules: TopicRules, broker: float | None, key: bytes | None) -> None:
    changes = data.draw(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
    removed = data.draw(st.sets(st.sampled_from(FIELDS), max_size=3))
    fields = {k: v for k, v in {**VALID, **changes}.items() if k not in removed}
    headers = [("c", data.draw(st.binary(max_size=4)))]
    check(json.dumps(fields).encode(), rules, broker, key, headers)


@given(st.data(), RULE, BROKER)
def test_mutated_bytes(data: st.DataObject, rules: TopicRules, broker: float | None) -> None:
    raw = bytearray(json.dumps(VALID).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        put = data.draw(st.binary(max_size=2) | st.sampled_from([b'"', b"{", b"\\u0000"]))
        raw[at : at + data.draw(st.integers(0, 2))] = put
    check(bytes(raw), rules, broker)


@given(st.data(), RULE, BROKER)
def test_no_raw_identifier_stays(data: st.DataObject, rules: TopicRules, broker: float | None) -> None:
    """The canary is client, principal and address at once; time and type may be broken to make dead letters."""
    fields = {**VALID, "client": CANARY, "principal": CANARY, "source_ip": CANARY, "meta": {"user": CANARY}, CANARY: 1}
    fields["features"] = {"x": 1, "who": CANARY} if rules.client_from[0] == "header:c" else {"x": 1}
    fields["ts"] = data.draw(st.sampled_from([VALID["ts"], None, CANARY]))
    fields["type"] = data.draw(st.sampled_from(["prediction", "access", "label", "metric", [CANARY], CANARY]))
    headers = [("c", CANARY.encode())] if data.draw(st.booleans()) else []
    result = check(json.dumps(fields).encode(), rules, broker, CANARY.encode(), headers)
    assert CANARY not in repr(result)
    NAMES.take_new()


@given(JSON)
def test_rejections_tell_no_values(value: Any) -> None:
    for name in ("ts", "type", "model", "tenant", "features", "input", "resource"):
        fields = {**VALID, name: [CANARY, value], CANARY: value}
        result = check(json.dumps(fields).encode(), RULES[0], None)
        if not isinstance(result, Event):
            assert CANARY not in repr(result)


def test_the_valid_event_is_valid() -> None:
    assert isinstance(check(json.dumps(VALID).encode(), RULES[0], None), Event)
