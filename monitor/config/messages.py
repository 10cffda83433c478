"""Validation errors → problems: a clear sentence and a mend for each, never with a secret in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import ValidationError

from monitor.config.checks import did_you_mean
from monitor.config.document import Document
from monitor.config.errors import Key, Problem, key_text, printable
from monitor.config.schema import config_json_schema

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "on or off",
    "string": "text",
    "model": "a mapping of keys to values",
    "dict": "a mapping of keys to values",
    "mapping": "a mapping of keys to values",
    "tuple": "a list",
}
_MISTYPED = ("type", "parsing", "parsing_size", "from_float", "number", "attributes_type")
_SECRET = re.compile(r"password|secret|url|token|key_file", re.IGNORECASE)


def explain(error: ValidationError, document: Document, file: str) -> list[Problem]:
    """One problem for each validation error, with the line and the text of `document`."""
    guide = _guide()
    return [_problem(detail, guide, document, file) for detail in error.errors(include_url=False, include_input=False)]


@cache
def _guide() -> _Guide:
    return _Guide(config_json_schema())


def _problem(detail: Any, guide: _Guide, document: Document, file: str) -> Problem:
    loc: Key = tuple(detail["loc"])
    key = _file_key(loc, document.data)
    if detail["type"] in ("union_tag_not_found", "union_tag_invalid"):
        key = (*key, "type")
    place = document.place(key)
    got = "" if place.written is None or _is_secret(key) else f', not "{printable(place.written)}"'
    sentence, mend = _say(detail, guide, loc, got, place.written or "")
    return Problem(file, place.line, key_text(key), sentence, mend)


def _say(detail: Any, guide: _Guide, loc: Key, got: str, written: str) -> tuple[str, str]:
    kind: str = detail["type"]
    context: dict[str, Any] = detail.get("ctx", {})
    node = guide.at(loc)
    if kind == "configuration":
        return context["sentence"], context["mend"]
    if kind == "extra_forbidden":
        return "This key is not known.", did_you_mean(str(loc[-1]), guide.names(loc[:-1]))
    if kind == "missing":
        return "This key is missing.", _example(loc, node) or _described(node)
    if kind == "union_tag_not_found":
        return "This key is missing.", f"Write one of {', '.join(guide.tags(loc))}."
    if kind == "union_tag_invalid":
        return f"This must be one of {', '.join(guide.tags(loc))}{got}.", _close(written, guide.tags(loc))
    if kind == "literal_error":
        allowed = [str(value) for value in _allowed(node)]
        return f"This must be one of {', '.join(allowed)}{got}.", _close(written, allowed) if got else ""
    for phrase, limit in (("greater than", "gt"), ("at least", "ge"), ("less than", "lt"), ("at most", "le")):
        if limit in context:
            return f"This must be {phrase} {context[limit]}{got}.", _described(node)
    if kind in ("string_too_short", "string_too_long", "string_pattern_mismatch"):
        fault = {"string_too_short": "is empty", "string_too_long": "is too long"}.get(
            kind, "has characters not allowed here"
        )
        return f"This text {fault}.", _described(node)
    if kind == "too_short":
        return "This list is empty.", _example(loc, node) or "Add an entry."
    word, _, fault = kind.partition("_")
    expected = _EXPECTED.get(word) if fault in _MISTYPED else None
    if expected == "text":
        return f"This must be text{got}.", "Put it in quotes."
    if expected is not None:
        return f"This must be {expected}{got}.", _example(loc, node) or _described(node)
    return f"This cannot be used: {detail['msg'][:1].lower()}{detail['msg'][1:]}.", _described(node)


def _file_key(loc: Key, data: Any) -> Key:
    """The key in the file: `loc` without the tags that a choice between models puts into it."""
    key: list[str | int] = []
    for position, part in enumerate(loc):
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if inside:
            data = data[part]
            key.append(part)
        elif position == len(loc) - 1 and part != "[key]":
            key.append(part)
    return tuple(key)


def _is_secret(key: Key) -> bool:
    return any(isinstance(part, str) and _SECRET.search(part) for part in key) or key[:2] == ("kafka", "security")


def _example(loc: Key, node: dict[str, Any]) -> str:
    if not node.get("examples"):
        return ""
    value = node["examples"][0]
    return f"Write {loc[-1]}: {value if isinstance(value, str) else json.dumps(value)}."


def _close(written: str, allowed: list[str]) -> str:
    # The sentence already lists what is allowed.
    close = get_close_matches(written, allowed, n=1)
    return f"Did you mean {close[0]}?" if close else ""


def _described(node: dict[str, Any]) -> str:
    text = node.get("description", "")
    return f"{text[:1].upper()}{text[1:]}" if text else ""


def _allowed(node: dict[str, Any]) -> list[Any]:
    if "const" in node:
        return [node["const"]]
    options = [*node.get("anyOf", []), node]
    return [value for option in options for value in option.get("enum", [])]


class _Guide:
    """Walks the JSON Schema along the location of an error, to say what is allowed there."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = schema

    def at(self, loc: Key) -> dict[str, Any]:
        node = self._root
        for part in loc:
            node = self._step(node, part)
        return node

    def names(self, loc: Key) -> list[str]:
        """The keys that are known at `loc`."""
        return [name for option in self._options(self.at(loc)) for name in option.get("properties", {})]

    def tags(self, loc: Key) -> list[str]:
        """The values of `type` that choose between the models at `loc`."""
        return sorted(self.at(loc).get("discriminator", {}).get("mapping", {}))

    def _step(self, node: dict[str, Any], part: str | int) -> dict[str, Any]:
        for option in self._options(node):
            tagged = option.get("discriminator", {}).get("mapping", {}).get(part)
            if tagged is not None:
                return {"$ref": tagged}
            below = option.get("items") if isinstance(part, int) else option.get("properties", {}).get(part)
            if below is None and isinstance(part, str):
                below = option.get("additionalProperties")
            if isinstance(below, dict):
                return below
        return {}

    def _options(self, node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            yield from self._options(self._root["$defs"][name])
            return
        yield node
        for option in node.get("anyOf", []):
            yield from self._options(option)
