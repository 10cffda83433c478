"""References as stored: read from files, kept with a content hash, and in force only once approved."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from detectors.reference import Origin
from monitor.intake.events import Event, EventType, Record, Rejected
from monitor.intake.formats.base import Format, TopicRules
from monitor.intake.packed import unpacked
from monitor.state.codec import decode, encode
from monitor.state.unit import ReferenceRow
from monitor.tabular import TableError, is_table, table_lines
from monitor.watch import pack_rows, slim, unpack_rows

MAX_ROWS = 50_000
"""Rows taken of a reference file; more teach the target nothing that these do not."""
FOR_NEW_VERSION = "on_new_version: fresh"
"""Approves the reference that is learnt for a new version: the configuration asks for it."""
TARGET, TRAINING = "target", "training"
"""Roles: what the data should be, and the rows the model was trained on."""
_VERSION = 1
ANY_TIME = 946_684_800.0
"""Stands for the time of rows that carry none (2000-01-01): all equal, so nothing is read from it."""


class ReferenceFileError(ValueError):
    """A reference file that cannot be used. The text names the file, the line and the mend."""


def read_reference(
    path: Path, format_: Format, rules: TopicRules, progress: Callable[[int], None] = lambda rows: None
) -> list[Event]:
    """The prediction rows of a reference file (JSON lines, plain or gz; CSV, Parquet), in the order they stand in.

    Rows may lack time, model and event id. ReferenceFileError for an unreadable file, a bad row or no rows.
    """
    rules = replace(rules, type="auto", live=False, time="event", default_time=ANY_TIME)
    rows: list[Event] = []
    for number, line in enumerate(_lines(path), 1):
        record = Record(str(path), 0, number - 1, ANY_TIME, None, line)
        try:
            events = format_.decode(record, rules).events
        except Rejected as error:
            raise ReferenceFileError(f"{path}:{number}: {error}") from error
        if number % 1_000 == 0:
            progress(number)
        rows += [slim(e) for e in events if e.type is EventType.PREDICTION]
        if len(rows) >= MAX_ROWS:
            break
    if not rows:
        raise ReferenceFileError(f"{path}: no prediction rows; a reference has one JSON object with `features` a line")
    if any(e.time == ANY_TIME for e in rows):
        for event in rows:
            event.time = ANY_TIME
    return rows


def reference_row(
    subject: str,
    rows: Sequence[Event],
    content_hash: str,
    origin: str,
    at: float,
    approved_by: str | None,
    role: str = TARGET,
) -> ReferenceRow:
    """A version of a reference as it is stored. Without `approved_by` it is provisional."""
    page = {"rows": np.frombuffer(pack_rows(rows), np.uint8).copy()}
    return ReferenceRow(
        subject=subject,
        role=role,
        content_hash=content_hash,
        origin=origin,
        arrays=encode(page, _VERSION),
        meta={"rows": len(rows)},
        created_at=at,
        approved_at=None if approved_by is None else at,
        approved_by=approved_by,
    )


def training_row(subject: str, rows: Sequence[Event], file: str, at: float) -> ReferenceRow:
    """The rows a model was trained on, as they are stored; `file` is the digest of the file they stood in."""
    content = hashlib.blake2b(pack_rows(rows), digest_size=16).hexdigest()
    row = reference_row(subject, rows, content, "file", at, "configuration", TRAINING)
    return row._replace(meta={**row.meta, "file": file})


def file_digest(path: Path) -> str:
    """Hash of the bytes of a file. OSError when it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def rows_of(stored: ReferenceRow) -> list[Event]:
    """The rows of a stored reference."""
    return unpack_rows(decode(stored.arrays, _VERSION)["rows"].tobytes())


def origin_of(stored: ReferenceRow) -> Origin:
    """How far a stored reference can be trusted."""
    return "live" if stored.origin == "live" else "same_traffic" if stored.origin == "same_traffic" else "file"


class Version(Protocol):
    """What of a version says whether it is in force."""

    @property
    def role(self) -> str: ...
    @property
    def approved_at(self) -> float | None: ...


V = TypeVar("V", bound=Version)


def in_force(stored: Sequence[V], role: str = TARGET) -> V | None:
    """Of the versions of one subject, newest last: the one approved last, else the newest provisional one.

    An earlier version that is approved again is in force again.
    """
    targets = [r for r in stored if r.role == role]
    approved = [(r.approved_at, number) for number, r in enumerate(targets) if r.approved_at is not None]
    return targets[max(approved)[1]] if approved else targets[-1] if targets else None


def _lines(path: Path) -> Iterator[bytes]:
    try:
        if is_table(path):
            yield from table_lines(path, MAX_ROWS)
            return
        with path.open("rb") as raw, unpacked(raw) as file:
            for line in file:
                if line.strip():
                    yield line
    except TableError as error:
        raise ReferenceFileError(str(error)) from error
    except (OSError, EOFError, zlib.error) as error:
        raise ReferenceFileError(f"{path} cannot be read: {error}") from error
