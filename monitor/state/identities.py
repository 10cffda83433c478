"""Who is behind a pseudonym: stored encrypted, erased on request, and forgotten when not seen for long."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy import Connection

from monitor.state.database import Database
from monitor.state.lease import Lease, fence
from monitor.state.tables import erasures, identities, incident_subjects, incidents
from monitor.state.unit import IdentityRow

_CHUNK = 500
_AT_ONCE = 100_000
"""Most identities that one expiry looks at; the next one goes on."""


def store(db: Database, connection: Connection, found: Sequence[IdentityRow], erased: Sequence[str], at: float) -> None:
    """Erase, then store what was met; `at` is when it was last seen. What was ever erased is not stored again."""
    if erased:
        _delete(db, connection, [identities.c.pseudonym.in_(list(erased))])
        db.insert_new(connection, erasures, [{"group_id": db.group, "pseudonym": p, "at": at} for p in erased])
    for start in range(0, len(found), _CHUNK):
        chunk = found[start : start + _CHUNK]
        gone = _erased(db, connection, [row.pseudonym for row in chunk])
        rows = [{"group_id": db.group, **r._asdict(), "last_seen": at} for r in chunk if r.pseudonym not in gone]
        db.upsert(connection, identities, rows, replace=["last_seen"])


def expire(db: Database, held: Lease, before: float, rest: Callable[[], bool]) -> int:
    """Delete identities last seen before then, except those that an open incident names; how many.

    Each batch is a transaction of its own, fenced by the lease. `rest` is called between them; True ends the work.
    """
    stale = identities.c.group_id == db.group, identities.c.last_seen < before
    with db.read() as connection:
        query = sa.select(identities.c.pseudonym).where(*stale, ~_named()).limit(_AT_ONCE)
        names = list(connection.execute(query).scalars())
    removed = 0
    for start in range(0, len(names), _CHUNK):
        with db.write() as connection:
            fence(db, connection, held)
            chunk = identities.c.pseudonym.in_(names[start : start + _CHUNK])
            removed += _delete(db, connection, [identities.c.last_seen < before, chunk, ~_named()])
        if rest():
            break
    return removed


def _named() -> sa.Exists:
    """Whether an incident that is not resolved is about this pseudonym."""
    return sa.exists().where(
        incident_subjects.c.group_id == identities.c.group_id,
        incident_subjects.c.subject_id == identities.c.pseudonym,
        incidents.c.group_id == incident_subjects.c.group_id,
        incidents.c.incident_id == incident_subjects.c.incident_id,
        incidents.c.status != "resolved",
    )


def _erased(db: Database, connection: Connection, pseudonyms: Sequence[str]) -> set[str]:
    mine = erasures.c.group_id == db.group, erasures.c.pseudonym.in_(list(pseudonyms))
    return set(connection.execute(sa.select(erasures.c.pseudonym).where(*mine)).scalars())


def _delete(db: Database, connection: Connection, where: Sequence[sa.ColumnElement[bool]]) -> int:
    """Delete, and on SQLite overwrite with zeros what the file would otherwise keep in its free pages."""
    if not db.postgres:
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
    done = connection.execute(identities.delete().where(identities.c.group_id == db.group, *where)).rowcount
    if not db.postgres:
        connection.exec_driver_sql("PRAGMA secure_delete=OFF")
    return done
