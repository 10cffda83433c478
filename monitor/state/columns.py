"""Column types that take whatever the world sends: SQLite and PostgreSQL refuse different things.

PostgreSQL refuses NUL in text and text past its bound, both refuse lone surrogates, SQLite stores NaN as NULL, and
integers past 63 bits fail in both. None of that may stop a commit.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

_MAX_INT = 2**63 - 1
_HASH = 16


def storable_text(text: str, limit: int | None) -> str:
    """`text` without NUL and lone surrogates, cut to `limit` bytes of UTF-8."""
    if text.isascii() and "\0" not in text and (limit is None or len(text) <= limit):
        return text
    raw = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")
    return raw[:limit].decode("utf-8", "ignore")


def storable_key(text: str, limit: int) -> str:
    """As `storable_text`, but different texts stay different: what was changed ends in a hash of the original."""
    stored = storable_text(text, limit)
    if stored == text:
        return text
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HASH // 2).hexdigest()
    return storable_text(text, limit - _HASH - 1) + "~" + digest


def json_text(value: Any) -> str:
    """Canonical JSON in ASCII: keys sorted, numbers that are not finite become null."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    except ValueError:
        return json.dumps(_finite(value), sort_keys=True, separators=(",", ":"), default=_plain)


class Key(TypeDecorator[str]):
    """Bounded text that identifies a row."""

    impl = sa.String
    cache_ok = True

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable_key(value, self.limit)


class Words(TypeDecorator[str]):
    """Bounded text for people; cut where it is too long."""

    impl = sa.String
    cache_ok = True

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable_text(value, self.limit)


class LongText(TypeDecorator[str]):
    """Text of our own making, of any length."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable_text(value, None)


class Json(TypeDecorator[Any]):
    """A value as canonical JSON text, the same bytes on every database."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return json_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class Real(TypeDecorator[float]):
    """A float64; NaN and infinities are stored as NULL."""

    impl = sa.Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        return None if value is None or not math.isfinite(value) else float(value)


class Whole(TypeDecorator[int]):
    """A 64-bit integer; what does not fit is stored as the nearest that does."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        return None if value is None else max(-_MAX_INT - 1, min(_MAX_INT, int(value)))


def _plain(value: Any) -> Any:
    """numpy scalars and arrays as Python values, anything else as text."""
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
