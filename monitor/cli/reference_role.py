"""What rows are built for: the target, the noise around it, or the rows a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from alerts.times import rfc3339_or_none
from monitor.cli.failures import CommandError

if TYPE_CHECKING:
    from monitor.intake.events import Event

_DAY: Final = 86_400.0
_SEASON_DAYS: Final = 2
"""Whole days from which a daily season can be learnt."""


class Role(StrEnum):
    """The three artefacts of a reference (`docs/operations.md`)."""

    TARGET = "target"
    NOISE = "noise"
    TRAINING = "training"


def rows_for(role: Role | None, rows: Sequence[Event], where: str) -> list[Event]:
    """The rows as they are written for this role: with times, in their order, where these are to teach the noise.

    Without a role rows keep their times where all have one. CommandError, naming `where` they came from, when rows
    that are to teach the noise have no times.
    """
    from monitor.references import ANY_TIME

    times = {row.time for row in rows}
    timed = len(times) > 1 and ANY_TIME not in times
    if role is Role.NOISE and not timed:
        raise CommandError(
            f"{where}: the noise is learnt from live events in the order of time: every row needs its `ts`, and they "
            "must differ; rows in no order make a target (--role target)"
        )
    if timed and role in (None, Role.NOISE):
        return sorted(rows, key=lambda row: row.time)
    for row in rows:
        row.time = ANY_TIME
        if role is Role.TRAINING:
            row.label = None
    return list(rows)


def span_of(rows: Sequence[Event]) -> dict[str, Any]:
    """Begin and end of rows that have times, and what they teach of the season; nothing of others."""
    begin, end = rows[0].time, rows[-1].time
    if begin == end:
        return {"from": None, "to": None, "rows_per_day": None, "teaches": None}
    days = (end - begin) / _DAY
    season = "noise and season" if days >= _SEASON_DAYS else "noise; a season of the day needs two whole days"
    per_day = round(len(rows) / days, 1)
    return {"from": rfc3339_or_none(begin), "to": rfc3339_or_none(end), "rows_per_day": per_day, "teaches": season}


def key_of(role: Role | None, model: str) -> str:
    """Where the file is to be named."""
    if role is Role.TRAINING:
        return f"models.{model}.training_rows"
    further = ", with reference_is: same_traffic if it is live traffic" if role is Role.NOISE else ""
    return f"models.{model}.reference{further}"
