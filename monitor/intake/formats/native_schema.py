"""JSON Schema of the native event, made of what the decoder knows."""

from __future__ import annotations

from typing import Any, Final

from monitor.intake.events import EventType
from monitor.intake.formats.native import EARLIEST, LATEST, MAX_NAME, MAX_TEXT

_ABOUT: Final = (
    "One JSON object a message. The daemon takes more than this: unknown fields are ignored and counted, and "
    "an optional value of the wrong type is as if it were absent. It refuses what a schema cannot say: records "
    "and names with too many bytes, years outside 1990 to 2100, an event of another type than the topic's. "
    "Where a topic's settings give the type or the model, the event may lack it: validate it against the "
    "definition of its type then."
)
_ID: Final = {"type": ["string", "number"]}
_TEXT: Final = {**_ID, "description": f"Text; beyond {MAX_TEXT:,} characters it is cut."}
_MEASURED: Final = {"type": ["number", "null"]}
_NUMBER: Final = {"description": "A number; anything else counts as not-a-number."}
_SHARED: Final[dict[str, Any]] = {
    "ts": {
        "description": "RFC 3339 with a time zone, or epoch seconds; years 1990 to 2100.",
        "anyOf": [
            {"type": "string", "format": "date-time"},
            {"type": "number", "minimum": EARLIEST, "exclusiveMaximum": LATEST},
        ],
    },
    "event_id": {**_TEXT, "description": "Id of the event; a label has that of its prediction."},
    "tenant": {
        "type": "string",
        "maxLength": MAX_NAME,
        "pattern": "^[^/\\u0000-\\u001f\\u007f-\\u009f]*$",
        "description": f"Whose model it is; at most {MAX_NAME} bytes, without a slash.",
    },
    "client": {**_ID, "description": "Who asked. Only a keyed hash of it is kept."},
    "model_version": _TEXT,
    "request_id": _TEXT,
    "trace_id": _TEXT,
    "segment": _TEXT,
    "source_ip": {"type": "string", "description": "Address of the client. Only a keyed hash of it is kept."},
    "latency_ms": {**_MEASURED, "description": "Time to answer, in milliseconds."},
    "sample_weight": {"type": "number", "minimum": 0, "description": "How many events this one stands for; default 1."},
    "role": {"enum": ["primary", "shadow"], "description": "shadow: the answer was not used."},
}


def native_event_schema() -> dict[str, Any]:
    """The schema (draft 2020-12): one definition a type, of which an event satisfies exactly one."""
    made = {
        EventType.PREDICTION: _event("prediction", "One answer of a model.", ["model"], _prediction()),
        EventType.LABEL: _event("label", "The truth about an earlier prediction.", ["model"], _label()),
        EventType.ACCESS: _event("access", "One request to a server.", ["resource"], _access()),
        EventType.METRIC: _event("metric", "One sample of a series of numbers.", ["series"], _metric()),
    }
    # In files an event with a model and no type is a prediction; the others must say what they are.
    types: list[dict[str, Any]] = [
        {"$ref": f"#/$defs/{kind.value}"} | ({} if kind is EventType.PREDICTION else {"required": ["type"]})
        for kind in made
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ModelWarden native event",
        "description": _ABOUT,
        "oneOf": types,
        "$defs": {kind.value: schema for kind, schema in made.items()},
    }


def _event(kind: str, about: str, subject: list[str], own: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": about,
        "required": ["ts", *subject],
        "properties": {"type": {"const": kind}, **_SHARED, **own},
    }


def _name(about: str) -> dict[str, Any]:
    """A subject. The decoder counts bytes and refuses a few more signs than a pattern can say in every dialect."""
    sign = "[^\\u0000-\\u001f\\u007f-\\u009f\\ufffd]"
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_NAME,
        "pattern": f"^{sign}*$",
        "description": f"{about}; at most {MAX_NAME} bytes, no control characters.",
    }


def _model() -> dict[str, Any]:
    named = _name("Name of the model")
    return {
        **named,
        "not": {"pattern": "@shadow$"},
        "description": f"{named['description'][:-1]}, not ending in @shadow.",
    }


def _prediction() -> dict[str, Any]:
    return {
        "model": _model(),
        "features": {
            "type": "object",
            "description": "Value by name of the feature.",
            "additionalProperties": {"description": "A number, a text or a boolean; null is missing."},
        },
        "input": {
            "description": "In place of features: numbers, flat or nested, or base64 of float32, little-endian.",
            "anyOf": [{"type": "array"}, {"type": "string", "contentEncoding": "base64"}],
        },
        "prediction": {"description": "The answer: a class or a number."},
        "scores": {
            "description": "Score by class, or scores in the order of the model's declared classes.",
            "anyOf": [
                {"type": "object", "additionalProperties": _NUMBER},
                {"type": "array", "items": _NUMBER},
            ],
        },
    }


def _label() -> dict[str, Any]:
    return {
        "model": _model(),
        "label": {"description": "The truth: a class or a number."},
        "source": {**_TEXT, "description": "Where the truth comes from."},
    }


def _access() -> dict[str, Any]:
    return {
        "resource": {"type": "string", "description": "What was asked for, such as the path."},
        "method": _TEXT,
        "status": {"type": ["integer", "null"], "minimum": 0, "maximum": 999, "description": "HTTP status."},
        "bytes": {**_MEASURED, "description": "Size of the answer."},
        "principal": {**_ID, "description": "Who was authenticated. Only a keyed hash of it is kept."},
        "user_agent": _TEXT,
    }


def _metric() -> dict[str, Any]:
    return {"series": _name("Name of the series"), "value": {**_MEASURED, "description": "The sample."}}
