"""The native event: one flat JSON object a record (prediction, label, access or metric)."""

from __future__ import annotations

import base64
import binascii
import functools
import unicodedata
from collections.abc import Callable
from datetime import datetime
from math import isfinite
from typing import Any

import numpy as np

from monitor.intake.events import Decoded, Event, EventType, Reason, Record, Rejected
from monitor.intake.formats.base import TopicRules, identifier, register
from monitor.intake.json_object import INT_LIMIT, finite, json_type, parse_object, widen
from monitor.intake.text import has_control

MAX_TEXT = 1_024
MAX_NAME = 200
EARLIEST = datetime.fromisoformat("1990-01-01T00:00:00Z").timestamp()
LATEST = datetime.fromisoformat("2101-01-01T00:00:00Z").timestamp()
"""Event times lie in [EARLIEST, LATEST)."""
_TIME_MARKS = frozenset({"--T::", "-- ::"})
"""Every third character from the fifth of YYYY-MM-DDTHH:MM:SS."""
_PREDICTION, _LABEL, _ACCESS, _METRIC = EventType  # constants: an attribute of an Enum is slow to look up
_TYPES: dict[Any, EventType] = {t.value: t for t in EventType}
_USUAL_CLIENT = ("field:client",)
_USUAL = frozenset({"event_id", "model", "model_version", "features", "prediction", "scores", "latency_ms"})
"""What is left of the usual prediction when type, time and client are taken."""
_PLAIN = frozenset({str, float, bool})
_SHORT = MAX_NAME // 4  # characters that are never more than MAX_NAME bytes
_SHADOW = "@shadow"  # the suffix by which the state of shadow models is named


@register
class NativeFormat:
    """Decodes native events. Unknown fields are ignored and counted; a bad optional value is as if it were absent."""

    name = "native"

    def decode(self, record: Record, settings: TopicRules) -> Decoded:
        """The one event of `record`. Raises Rejected."""
        fields = parse_object(record.value, settings.record_bytes)
        kind = _type(fields, settings)
        ts = fields.pop("ts", None)
        usual_client = settings.client_from == _USUAL_CLIENT
        if usual_client:
            client = fields.pop("client", None)
            if type(client) is not str:
                client = identifier(client)
        else:
            client = settings.take_client(record, fields)
        event = _usual_prediction(fields) if kind is _PREDICTION else None
        if event is None:
            event = Event(kind, 0.0)
            _set_time(event, ts, record, settings)
            _take_fields(event, fields, settings)
        else:
            _set_time(event, ts, record, settings)
            event.model = checked_name("model", fields["model"])
        if client:
            event.client = settings.pseudonyms.client(client, event.time)
            if not usual_client and settings.client_fields & _HIDEABLE:
                _hide(event, settings)
        _check_subject(event, fields, settings)
        return Decoded([event], [])


def _usual_prediction(fields: dict[str, Any]) -> Event | None:
    """A prediction of which nothing has to be decided, in one go. None: its fields want to be taken one by one.

    What this returns is what `_take_fields` makes of the same fields, with the model's name unchecked.
    """
    if not _USUAL.issuperset(fields):
        return None
    get = fields.get
    features, model, scores, latency = get("features"), get("model"), get("scores"), get("latency_ms")
    event_id, version, prediction = get("event_id"), get("model_version"), get("prediction")
    if (
        type(features) is not dict
        or type(model) is not str
        or not 1 <= len(model) <= _SHORT
        or not (event_id is None or (type(event_id) is str and 0 < len(event_id) <= MAX_TEXT))
        or not (version is None or (type(version) is str and 0 < len(version) <= MAX_TEXT))
        or not (scores is None or type(scores) is dict or type(scores) is list)
        or not (latency is None or (type(latency) is float and isfinite(latency)))
        or not (prediction is None or type(prediction) in _PLAIN)
        or (type(prediction) is str and len(prediction) > MAX_TEXT)
    ):
        return None
    return Event(
        _PREDICTION, 0.0, 0, event_id, model, "", version, False, None, features, None,
        prediction, scores, None, None, latency,
    )  # fmt: skip


def _take_fields(event: Event, fields: dict[str, Any], rules: TopicRules) -> None:
    """Field by field, whatever they are."""
    unknown = 0
    for name, value in fields.items():
        if name in _TEXTS and type(value) is str and 0 < len(value) <= MAX_TEXT:  # most fields: no call
            setattr(event, name, value)
            continue
        take = _TAKES.get(name)
        if take is not None:
            if value is not None and not take(event, name, value, rules):
                unknown += 1
        elif name not in rules.client_roots:
            unknown += 1
    if unknown:
        event.unknown_fields = unknown


def _type(fields: dict[str, Any], rules: TopicRules) -> EventType:
    said = fields.pop("type", None)
    if said is None:
        if rules.type != "auto":
            return _TYPES[rules.type]
        if fields.get("model") is not None or rules.model is not None:
            return _PREDICTION
        raise Rejected(Reason.BAD_TYPE, "neither the event nor the topic says what it is, and it names no model")
    kind = _TYPES.get(said) if type(said) is str else None
    if kind is None:
        raise Rejected(Reason.BAD_TYPE, "type is none of prediction, label, access and metric")
    if rules.type != "auto" and rules.type != said:
        raise Rejected(Reason.BAD_TYPE, f"type is {kind.value}, but the topic holds events of type {rules.type}")
    return kind


def _set_time(event: Event, ts: Any, record: Record, rules: TopicRules) -> None:
    broker = record.timestamp
    if broker is not None and not EARLIEST <= broker < LATEST:
        broker = None  # set by a producer, and as wrong as an event's own time may be
    if rules.time == "broker":
        if broker is None:
            raise Rejected(Reason.BAD_TIME, "the topic goes by the broker's time, and the record has none")
        event.time = broker
        return
    at = _rfc3339(ts) if type(ts) is str else _time(ts, rules)
    if at is None:
        raise Rejected(Reason.BAD_TIME, "ts is neither RFC 3339 with a time zone nor epoch seconds")
    if not EARLIEST <= at < LATEST:
        raise Rejected(Reason.BAD_TIME, "ts lies outside the years 1990 to 2100 (epoch times are in seconds)")
    event.time = at
    if not rules.live or broker is None or broker - rules.record_age <= at <= broker + rules.skew:
        return
    if event.type is _PREDICTION or event.type is _ACCESS:
        event.time = broker
        event.time_corrected = True


def _time(ts: Any, rules: TopicRules) -> float | None:
    """Epoch seconds of a `ts` that is no text."""
    if ts is not None:
        return finite(ts)
    if rules.default_time is None:
        raise Rejected(Reason.BAD_TIME, "ts is missing")
    return rules.default_time


def _rfc3339(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _unusual_time(text)
    # ISO 8601 has more ways to write a time, and times without a zone.
    return moment.timestamp() if text[4:17:3] in _TIME_MARKS and moment.tzinfo is not None else None


def _unusual_time(text: str) -> float | None:
    """Small letters and leap seconds, which RFC 3339 allows and Python does not read."""
    text = text.upper()
    leap = text[17:19] == "60"
    seconds = "59" if leap else text[17:19]
    try:
        moment = datetime.fromisoformat(text[:17] + seconds + text[19:])
    except ValueError:
        return None
    return moment.timestamp() + leap if text[4:17:3] in _TIME_MARKS and moment.tzinfo is not None else None


def _check_subject(event: Event, fields: dict[str, Any], rules: TopicRules) -> None:
    """Fill model and tenant from the topic where the event has none, and see that there is a subject."""
    kind = event.type
    if event.model is None:
        event.model = rules.model
    if not event.tenant and rules.tenant is not None:
        event.tenant = rules.tenant
    if kind is _PREDICTION or kind is _LABEL:
        if event.model is None:
            raise Rejected(Reason.NO_SUBJECT, f"a {kind.value} needs a model, in the event or in the topic's settings")
    elif kind is _ACCESS:
        if fields.get("resource") == "":  # a malformed request is still a request
            event.resource = ""
        if event.resource is None:
            raise Rejected(Reason.NO_SUBJECT, "an access event needs a resource")
    elif event.series is None:
        raise Rejected(Reason.NO_SUBJECT, "a metric needs a series")


def _hide(event: Event, rules: TopicRules) -> None:
    """Where a field that the event keeps is also the client's identifier, only the pseudonym stays."""
    for name in rules.client_fields & _HIDEABLE:
        setattr(event, name, None)


Take = Callable[[Event, str, Any, TopicRules], bool]
"""Puts a field's value (never null) into the event. False: the value means nothing there."""


def _known(event: Event, name: str, value: Any, rules: TopicRules) -> bool:
    return True


def _take_text(event: Event, name: str, value: Any, rules: TopicRules) -> bool:
    text = value if type(value) is str else identifier(value)
    if text:
        setattr(event, name, text if len(text) <= MAX_TEXT else text[:MAX_TEXT])
    return True


def _take_number(event: Event, name: str, value: Any, rules: TopicRules) -> bool:
    setattr(event, name, finite(value))
    return True


def _take_weight(event: Event, name: str, value: Any, rules: TopicRules) -> bool:
    weight = finite(value)
    event.sample_weight = weight if weight is not None and weight >= 0 else 1.0
    return True


def _take_status(event: Event, name: str, value: Any, rules: TopicRules) -> bool:
    number = finite(value)
    if number is not None and number.is_integer() and 0 <= number < 1_000:
        event.status = int(number)
    return True


def _take_name(event: Event, name: str, value: Any, rules: TopicRules) -> bool:
    if value == "" and name == "tenant":
        return True
    if name != "tenant" and event.type not in _NAMED_BY[name]:
        return False
    if type(value) is not str or not 1 <= len(value) <= MAX_NAME or len(value.encode()) > MAX_NAME:
        raise Rejected(Reason.BAD_FIELD, f"{name} is not a text of 1 to {MAX_NAME} bytes")
    setattr(event, name, checked_name(name, value))
    return True


_NAMED_BY = {"model": (_PREDICTION, _LABEL), "series": (EventType.METRIC,)}
"""Which events a name is the subject of; elsewhere it means nothing."""


@functools.lru_cache(maxsize=4_096)
def checked_name(field: str, name: str) -> str:
    """`name` in NFC. Rejected: it cannot name a subject. `field` is model, tenant or series."""
    if has_control(name) or "\ufffd" in name:  # U+FFFD stands for what was no character
        raise Rejected(Reason.BAD_FIELD, f"{field} holds control characters")
    if field == "tenant" and "/" in name:
        raise Rejected(Reason.BAD_FIELD, "tenant holds a slash, which separates it from the model")
    if field == "model" and name.endswith(_SHADOW):
        raise Rejected(Reason.BAD_FIELD, f"model ends in {_SHADOW}, which is kept for shadow models")
    return unicodedata.normalize("NFC", name)


def _take_role(event: Event, name: str, value: Any, rules: TopicRules) -> bool:
    event.shadow = value == "shadow"
    return event.shadow or value == "primary"


def _take_features(event: Event, name: str, value: Any, rules: TopicRules) -> bool:
    if event.type is not _PREDICTION:
        return False
    if type(value) is not dict:
        raise Rejected(Reason.BAD_FIELD, f"features is {json_type(value)}, not an object")
    event.features = value
    event.vector = None
    return True


def _take_input(event: Event, name: str, value: Any, rules: TopicRules) -> bool:
    if event.type is not _PREDICTION or event.features is not None:
        return False
    if type(value) is list:
        event.vector = _flat(value)
    elif type(value) is str:
        event.vector = _from_base64(value)
    else:
        raise Rejected(Reason.BAD_FIELD, f"input is {json_type(value)}, neither an array nor base64 text")
    return True


def _flat(values: list[Any]) -> list[float]:
    """All cells of a nested array in row-major order, as floats; what is no number becomes NaN."""
    if {float}.issuperset(map(type, values)):
        return values
    flat: list[float] = []
    for v in values:
        if type(v) is list:
            flat += _flat(v)
        else:
            flat.append(_cell(v))
    return flat


def _cell(value: Any) -> float:
    kind = type(value)
    if kind is float:
        return float(value)
    return widen(value) if kind is int else float("nan")


def _from_base64(text: str) -> list[float]:
    """The float32 numbers, little-endian, that base64 text holds."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Rejected(Reason.BAD_FIELD, "input is text, but not base64") from None
    if len(raw) % 4:
        raise Rejected(Reason.BAD_FIELD, f"input holds {len(raw)} bytes, which is no whole number of float32 values")
    return list(map(float, np.frombuffer(raw, "<f4")))


def _take_answer(event: Event, name: str, value: Any, rules: TopicRules) -> bool:
    """A prediction or a label: any JSON value."""
    kind = type(value)
    if kind is str:
        value = value[:MAX_TEXT]
    elif kind is int and not -INT_LIMIT <= value < INT_LIMIT:
        value = widen(value)
    setattr(event, name, value)
    return True


def _take_scores(event: Event, name: str, value: Any, rules: TopicRules) -> bool:
    if type(value) is not dict and type(value) is not list:
        return False
    event.scores = value
    return True


def _take_principal(event: Event, name: str, value: Any, rules: TopicRules) -> bool:
    text = identifier(value)
    if text is not None:
        event.principal = rules.pseudonyms.principal(text, event.time)
    return True


def _take_address(event: Event, name: str, value: Any, rules: TopicRules) -> bool:
    if type(value) is str and value:
        event.source_ip = rules.pseudonyms.address(value, event.time)
        event.networks = rules.pseudonyms.networks(value, event.time)
    return True


_TEXTS = frozenset(
    {
        "event_id",
        "model_version",
        "source",
        "segment",
        "request_id",
        "trace_id",
        "method",
        "resource",
        "user_agent",
    }
)
_HIDEABLE = frozenset({*_TEXTS, "prediction", "label"}) - {"resource"}
_TAKES: dict[str, Take] = {
    "type": _known,
    "ts": _known,
    "client": _known,
    **dict.fromkeys(_TEXTS, _take_text),
    **dict.fromkeys(("model", "tenant", "series"), _take_name),
    **dict.fromkeys(("latency_ms", "bytes", "value"), _take_number),
    **dict.fromkeys(("prediction", "label"), _take_answer),
    "sample_weight": _take_weight,
    "status": _take_status,
    "role": _take_role,
    "features": _take_features,
    "input": _take_input,
    "scores": _take_scores,
    "principal": _take_principal,
    "source_ip": _take_address,
}
KNOWN_FIELDS = frozenset(_TAKES)
