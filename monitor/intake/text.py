"""Text as every store takes it: what PostgreSQL, UTF-8 and a log line refuse is replaced or found here."""

from __future__ import annotations

import re

_BAD = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def clean(text: str) -> str:
    """`text` with NUL (PostgreSQL refuses it) and lone surrogates (no UTF-8 exists for them) as U+FFFD."""
    return _BAD.sub("\ufffd", text)


def has_control(text: str) -> bool:
    """Whether `text` holds a control, a line separator or a mark that turns the direction of writing."""
    return _CONTROL.search(text) is not None
