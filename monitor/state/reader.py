"""What is in the store: offsets, pages, subjects, incidents, identities, the trail. Nothing here writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from alerts.incidents import Incident
from monitor.intake.events import DeadLetter, Reason
from monitor.state import rows
from monitor.state.codec import CodecError, decode
from monitor.state.database import Database
from monitor.state.tables import (
    commits,
    dead_letters,
    evidence,
    identities,
    incident_subjects,
    incidents,
    offsets,
    state_pages,
    subjects,
)
from monitor.state.unit import IdentityRow, Position, StatePage, SubjectRow

_CHUNK = 500


class DamagedPage(NamedTuple):
    """A stored page that cannot be read, and why."""

    subject: str
    detector: str
    params_hash: str
    page: str
    error: str


class RecordedCommit(NamedTuple):
    """A commit of the trail: what was consumed, in order."""

    number: int
    epoch: int
    at: float
    cluster_id: str
    trail: rows.Trail


def load_offsets(db: Database, cluster_id: str) -> dict[tuple[str, int], Position]:
    """(topic, partition) → where it stands."""
    query = sa.select(offsets).where(offsets.c.group_id == db.group, offsets.c.cluster_id == cluster_id)
    with db.read() as connection:
        found = connection.execute(query).all()
    return {(row.topic, row.partition): rows.position_of(row) for row in found}


def load_pages(
    db: Database, subject: str | None, damaged: list[DamagedPage] | None, detector: str | None = None
) -> list[StatePage]:
    """Pages of one subject or of all, of one detector or of all.

    Damaged ones go to `damaged`; without that list the first raises CodecError.
    """
    query = sa.select(state_pages).where(state_pages.c.group_id == db.group)
    if subject is not None:
        query = query.where(state_pages.c.subject == subject)
    if detector is not None:
        query = query.where(state_pages.c.detector == detector)
    keys = [state_pages.c[name] for name in ("subject", "detector", "params_hash", "page")]
    with db.read() as connection:
        found = connection.execute(query.order_by(*keys)).all()
    pages = []
    for row in found:
        try:
            arrays = decode(row.data, row.state_version)
        except CodecError as error:
            if damaged is None:
                raise CodecError(f"{row.subject}, {row.detector}, page {row.page}: {error}") from None
            damaged.append(DamagedPage(row.subject, row.detector, row.params_hash, row.page, str(error)))
            continue
        pages.append(StatePage(row.subject, row.detector, row.params_hash, row.page, row.state_version, arrays))
    return pages


def load_subjects(db: Database) -> list[SubjectRow]:
    """All watched subjects, by name."""
    with db.read() as connection:
        return subject_rows(db, connection)


def subject_rows(db: Database, connection: Connection) -> list[SubjectRow]:
    """As `load_subjects`, in the caller's transaction."""
    query = sa.select(subjects).where(subjects.c.group_id == db.group).order_by(subjects.c.subject)
    return [rows.watched_of(row) for row in connection.execute(query)]


def open_incidents(db: Database) -> list[Incident]:
    """Incidents that are not resolved, oldest first."""
    order = incidents.c.opened_at, incidents.c.incident_id
    return _incidents(db, sa.select(incidents).where(incidents.c.status != "resolved").order_by(*order))


def find_incidents(
    db: Database,
    status: Sequence[str],
    model: str | None,
    kind: str | None,
    severity: Sequence[str],
    limit: int | None,
) -> list[Incident]:
    """Incidents, newest first; an empty filter lets everything pass."""
    query = sa.select(incidents).order_by(incidents.c.opened_at.desc(), incidents.c.incident_id)
    if status:
        query = query.where(incidents.c.status.in_(list(status)))
    if severity:
        query = query.where(incidents.c.severity.in_(list(severity)))
    if model is not None:
        query = query.where(incidents.c.model == model)
    if kind is not None:
        query = query.where(incidents.c.kind == kind)
    return _incidents(db, query.limit(limit))


def one_incident(db: Database, incident: str) -> Incident | None:
    """The incident with this id."""
    found = _incidents(db, sa.select(incidents).where(incidents.c.incident_id == incident))
    return found[0] if found else None


def _incidents(db: Database, query: sa.Select[Any]) -> list[Incident]:
    with db.read() as connection:
        heads = connection.execute(query.where(incidents.c.group_id == db.group)).all()
        ids = [row.incident_id for row in heads]
        who = _parts(db, connection, incident_subjects, ids)
        what = _parts(db, connection, evidence, ids)
    return [rows.incident_of(row, who.get(row.incident_id, ()), what.get(row.incident_id, ())) for row in heads]


def _parts(db: Database, connection: Connection, table: sa.Table, ids: Sequence[str]) -> dict[str, list[Any]]:
    """Rows of these incidents, in the order they were written."""
    parts: dict[str, list[Any]] = {}
    for at in range(0, len(ids), _CHUNK):
        query = (
            sa.select(table)
            .where(table.c.group_id == db.group, table.c.incident_id.in_(ids[at : at + _CHUNK]))
            .order_by(table.c.incident_id, table.c.ordinal)
        )
        for row in connection.execute(query):
            parts.setdefault(row.incident_id, []).append(row)
    return parts


def load_identities(db: Database, pseudonyms: Sequence[str]) -> dict[str, IdentityRow]:
    """Pseudonym → row, for those that are known."""
    found: dict[str, IdentityRow] = {}
    with db.read() as connection:
        for at in range(0, len(pseudonyms), _CHUNK):
            chunk = list(pseudonyms[at : at + _CHUNK])
            mine = identities.c.group_id == db.group, identities.c.pseudonym.in_(chunk)
            for row in connection.execute(sa.select(identities).where(*mine)):
                found[row.pseudonym] = IdentityRow(row.pseudonym, row.domain, row.ciphertext, row.first_seen)
    return found


def load_dead_letters(db: Database, limit: int) -> list[DeadLetter]:
    """The newest dead letters, newest first."""
    keys = [dead_letters.c[name].desc() for name in ("at", "topic", "partition", "record_offset", "record_row")]
    query = sa.select(dead_letters).where(dead_letters.c.group_id == db.group).order_by(*keys).limit(limit)
    with db.read() as connection:
        found = connection.execute(query).all()
    return [
        DeadLetter(
            row.topic, row.partition, row.record_offset, row.record_row, Reason(row.reason), row.detail,
            row.structure, row.length, row.digest,
        )
        for row in found
    ]  # fmt: skip


def load_trail(db: Database, after: int) -> Iterator[RecordedCommit]:
    """Commits with a number above `after`, in order; read in chunks, so that no transaction stays open meanwhile."""
    while True:
        query = (
            sa.select(commits)
            .where(commits.c.group_id == db.group, commits.c.number > after)
            .order_by(commits.c.number)
            .limit(_CHUNK)
        )
        with db.read() as connection:
            found = connection.execute(query).all()
        for row in found:
            yield RecordedCommit(row.number, row.epoch, row.at, row.cluster_id, rows.unpacked_trail(row.trail))
        if len(found) < _CHUNK:
            return
        after = found[-1].number
