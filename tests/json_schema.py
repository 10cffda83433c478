"""A small validator of JSON Schema: the keywords that the published schemas use, and an error for any other."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

_ABOUT: Final = {
    "$schema", "$defs", "title", "description", "default", "examples", "discriminator", "writeOnly", "x-reload",
    "contentEncoding",
}  # fmt: skip
_TYPES: Final[dict[str, Any]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
    "number": (int, float),
}  # fmt: skip


def valid(value: Any, schema: Any, root: dict[str, Any] | None = None) -> bool:
    """Whether `value` satisfies the schema (draft 2020-12). KeyError for a keyword that is not known here."""
    if isinstance(schema, bool):
        return schema
    root = schema if root is None else root
    # every keyword is looked at, also behind one that fails: an unknown one must not hide there
    held = [_holds(value, word, rule, schema, root) for word, rule in schema.items() if word not in _ABOUT]
    return all(held)


def _holds(value: Any, word: str, rule: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    if word in ("oneOf", "anyOf"):
        passed = sum(valid(value, part, root) for part in rule)
        return passed == 1 if word == "oneOf" else passed > 0
    if word == "$ref":
        return valid(value, root["$defs"][rule.removeprefix("#/$defs/")], root)
    if word == "not":
        return not valid(value, rule, root)
    if word in ("type", "const", "enum"):
        if word == "type":
            return any(_is(value, name) for name in ([rule] if isinstance(rule, str) else rule))
        return value in (rule if word == "enum" else [rule])
    kind, check = _KEYWORDS[word]
    if not isinstance(value, _TYPES[kind]) or isinstance(value, bool):
        return True
    return bool(check(value, rule, schema, root))


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name]) or (name == "integer" and isinstance(value, float) and value.is_integer())


def _format(value: str, rule: str, *_: Any) -> bool:
    if rule != "date-time":
        return True
    try:
        return datetime.fromisoformat(value).tzinfo is not None and len(value) >= len("2000-01-01T00:00:00Z")
    except ValueError:
        return False


def _more(value: dict[str, Any], rule: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    return all(valid(v, rule, root) for name, v in value.items() if name not in schema.get("properties", {}))


_KEYWORDS: Final[dict[str, tuple[str, Any]]] = {
    "required": ("object", lambda v, rule, *_: all(name in v for name in rule)),
    "properties": ("object", lambda v, rule, _, root: all(valid(v[k], rule[k], root) for k in rule if k in v)),
    "additionalProperties": ("object", _more),
    "propertyNames": ("object", lambda v, rule, _, root: all(valid(name, rule, root) for name in v)),
    "items": ("array", lambda v, rule, _, root: all(valid(item, rule, root) for item in v)),
    "minItems": ("array", lambda v, rule, *_: len(v) >= rule),
    "minLength": ("string", lambda v, rule, *_: len(v) >= rule),
    "maxLength": ("string", lambda v, rule, *_: len(v) <= rule),
    "pattern": ("string", lambda v, rule, *_: re.search(rule, v) is not None),
    "format": ("string", _format),
    "minimum": ("number", lambda v, rule, *_: v >= rule),
    "maximum": ("number", lambda v, rule, *_: v <= rule),
    "exclusiveMinimum": ("number", lambda v, rule, *_: v > rule),
    "exclusiveMaximum": ("number", lambda v, rule, *_: v < rule),
}
