"""Epoch seconds as people and other programs read them: RFC 3339, UTC, milliseconds, always with the zone."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(at: float) -> str:
    """Epoch seconds as RFC 3339. OverflowError, ValueError or OSError for what is no time of the years 1 to 9999."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_or_none(at: float | None) -> str | None:
    """As `rfc3339`; None for None and for what is no time."""
    try:
        return None if at is None else rfc3339(at)
    except (OverflowError, ValueError, OSError):
        return None
