"""One JSON object from the bytes of a record: capped, without duplicate keys, with strings that every store takes.

The fast way is msgspec and a few counts over the raw bytes; what the counts cannot decide goes the slow way, through
the standard library with a hook on every object. Both give the same result.
"""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any

import msgspec
import numpy as np

from monitor.intake.events import Reason, Rejected
from monitor.intake.text import clean

MAX_DEPTH = 32
INT_LIMIT = 2**63
_Int = Annotated[int, msgspec.Meta(ge=-INT_LIMIT, le=INT_LIMIT - 1)]
_Scalar = _Int | float | str | bool | None
_Third = _Scalar | dict[str, Any] | list[Any]
_Inner = _Scalar | dict[str, _Third] | list[_Third]
_Outer = _Scalar | dict[str, _Inner] | list[_Inner]
_decode = msgspec.json.Decoder(dict[str, _Outer]).decode
"""As quick as without types; a 64-bit overflow in the upper levels, where the usual event ends, is an error."""
_SHALLOW = 3
"""With no more brackets than these no value lies below the levels that `_decode` types."""
_BRACE, _BRACKET, _BACKSLASH, _COLON = b"{[\\:"  # as numbers: bytes are searched much faster for a number
_CAREFUL = re.compile(rb"\\u(?:003[aA]|0000|[dD][89a-fA-F])")
"""Escapes that hide a colon from the count of duplicates, or make a character that must not survive."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
"""A string, or the rest after an unmatched quote: it matches at every quote, so that a scan stays linear."""
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_STEP = np.zeros(256, np.int64)
_STEP[list(b"{[")] = 1
_STEP[list(b"}]")] = -1
_MAX_DIGITS = 400  # more than any finite float has


def parse_object(raw: bytes | None, limit: int) -> dict[str, Any]:
    """The object that `raw` holds. Raises Rejected: empty, too_large, too_deep, not_json, not_an_object, duplicate_key.

    NaN and Infinity as Python writes them are taken, 1e999 is inf. NUL and lone surrogates become U+FFFD. Integers
    beyond ±2**63 become floats inside nested values; at the top level they stay exact, for identifiers.
    """
    if not raw:
        raise Rejected(Reason.EMPTY, "the record has no value")
    if len(raw) > limit:
        raise Rejected(Reason.TOO_LARGE, f"{len(raw)} bytes, the limit is {limit}")
    brackets = raw.count(_BRACE) + (raw.count(_BRACKET) if _BRACKET in raw else 0)
    if brackets > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
        raise Rejected(Reason.TOO_DEEP, f"nested deeper than {MAX_DEPTH} levels")
    if _BACKSLASH in raw and _CAREFUL.search(raw) is not None:
        return _parse_slowly(raw)
    try:
        value = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # NaN, 1e999, long integers, no object, or no JSON at all
        return _parse_slowly(raw)
    if not _keys_are_unique(raw, value):
        raise _duplicate()
    return value if brackets <= _SHALLOW else _tidy_top(value)


def json_type(value: Any) -> str:
    """The JSON type of a decoded value, by its name in the standard."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def finite(value: Any) -> float | None:
    """A finite number as a float, else None. Booleans are no numbers."""
    kind = type(value)
    if kind is not float:
        if kind is not int:
            return None
        value = widen(value)
    return value if math.isfinite(value) else None


def widen(value: int) -> float:
    """An integer of any size as a float, ±inf where it is too large."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _duplicate() -> Rejected:
    return Rejected(Reason.DUPLICATE_KEY, "an object has the same key twice")


def _keys_are_unique(raw: bytes, value: dict[str, Any]) -> bool:
    """Whether no key of `raw` was dropped for a later one. Exact where no escape hides a colon.

    Colons of `raw` = keys as written + colons inside strings. A parser that drops a duplicate loses its key, so the
    colons exceed the decoded keys plus the colons of the decoded strings; without duplicates both are equal. Equality
    with a part of the keys and strings already proves it, so that the usual event (colons only in `ts`) is quick.
    """
    keys = len(value)
    features, scores, time = value.get("features"), value.get("scores"), value.get("ts")
    if type(features) is dict:
        keys += len(features)
    if type(scores) is dict:
        keys += len(scores)
    written = raw.count(_COLON)
    if written == keys or (type(time) is str and written == keys + time.count(":")):
        return True
    keys, colons = _count(value)
    return written == keys + colons


def _count(value: dict[str, Any]) -> tuple[int, int]:
    """Keys at all levels, and colons in all strings, of a decoded object."""
    keys = colons = 0
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is dict:
            keys += len(item)
            colons += "".join(item).count(":")
            item = item.values()
        for member in item:
            kind = type(member)
            if kind is str:
                if ":" in member:
                    colons += member.count(":")
            elif kind is dict or kind is list:
                waiting.append(member)
    return keys, colons


def _depth(raw: bytes) -> int:
    """The deepest nesting of brackets outside strings (of malformed JSON: up to its first fault, or more)."""
    brackets = _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS)
    if not brackets:
        return 0
    return int(_STEP[np.frombuffer(brackets, np.uint8)].cumsum().max())


def _parse_slowly(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_int=_integer)
    except (ValueError, RecursionError):
        raise Rejected(Reason.NOT_JSON, "the value is not one JSON document in UTF-8") from None
    if type(value) is not dict:
        raise Rejected(Reason.NOT_AN_OBJECT, f"the value is JSON, but {json_type(value)}")
    return _tidy_top(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _duplicate()
    return made


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _tidy_top(value: dict[str, Any]) -> dict[str, Any]:
    return _same_size({clean(k): v if type(v) is int else _tidy(v) for k, v in value.items()}, value)


def _tidy(value: Any) -> Any:
    """`value` with clean strings and without integers that a 64-bit column cannot take."""
    kind = type(value)
    if kind is str:
        return clean(value)
    if kind is int:
        return value if -INT_LIMIT <= value < INT_LIMIT else widen(value)
    if kind is list:
        return [_tidy(item) for item in value]
    if kind is dict:
        return _same_size({clean(k): _tidy(v) for k, v in value.items()}, value)
    return value


def _same_size(made: dict[str, Any], origin: dict[str, Any]) -> dict[str, Any]:
    """`made`, unless two keys of `origin` became one when they were cleaned."""
    if len(made) != len(origin):
        raise _duplicate()
    return made
