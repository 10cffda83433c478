"""Dead letters: where a refused record lies and how it is built, without anything that it says."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from monitor.intake.events import DeadLetter, Reason, Record, Rejected
from monitor.intake.formats.native import KNOWN_FIELDS
from monitor.intake.json_object import json_type, parse_object

_UNPARSED = frozenset({Reason.EMPTY, Reason.TOO_LARGE, Reason.TOO_DEEP, Reason.NOT_JSON, Reason.NOT_AN_OBJECT})
_DIGEST_BYTES = 16


def dead_letter(record: Record, rejected: Rejected, digest_key: bytes, row: int = -1) -> DeadLetter:
    """What is kept of `record`, refused for `rejected`. `digest_key` (1 to 64 bytes) keys the hash of its bytes.

    `structure` has only fields that native events know; names of others, and of features, may be data themselves.
    """
    raw = record.value or b""
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        row=row,
        reason=rejected.reason,
        detail=rejected.detail,
        structure={} if rejected.reason in _UNPARSED else _structure(raw),
        length=len(raw),
        digest=hashlib.blake2b(raw, key=digest_key, digest_size=_DIGEST_BYTES).hexdigest(),
    )


def _structure(raw: bytes) -> dict[str, str]:
    try:
        fields = parse_object(raw, len(raw))
    except Rejected as again:
        fields = _with_duplicates(raw) if again.reason is Reason.DUPLICATE_KEY else {}
    return {name: f"{json_type(value)}:{_length(value)}" for name, value in fields.items() if name in KNOWN_FIELDS}


def _with_duplicates(raw: bytes) -> dict[str, Any]:
    """The object with the last of equal keys. Empty where it is none: a duplicate is found before the end is seen."""
    try:
        found = json.loads(raw.decode(), parse_int=float)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _length(value: Any) -> int:
    """Characters of a text, members of an array or object, characters of a number; 0 of null and booleans."""
    if isinstance(value, (str, list, dict)):
        return len(value)
    return 0 if value is None or isinstance(value, bool) else len(repr(value))
