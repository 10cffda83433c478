"""Rows that are older than they need be, removed in small transactions.

Kept for good: detector state, counts, offsets, audit rows, open incidents, references that are or may come in force.
Each batch is a transaction of its own that begins with the fence, so that only the holder of the lease removes
anything, and that is over before a reader or the next commit notices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from monitor.references import in_force
from monitor.state import references as versions
from monitor.state.database import Database
from monitor.state.lease import Lease, fence
from monitor.state.outbox import of_open_incident, removed_key
from monitor.state.settings import setting, store_setting
from monitor.state.tables import commands, commits, dead_letters, evidence, incidents, outbox, references

BATCH: Final = 500
_INCIDENTS: Final = 50
"""Incidents of one batch: each may have 64 rows of evidence and many subjects."""
ANSWERED_SECONDS: Final = 30 * 86_400.0
"""How long messages that were delivered or given up, and commands that were answered, are kept."""
Step = Callable[[Connection], int]
"""Removes one batch; how many rows of its table went."""


class Ages(NamedTuple):
    """How long rows are kept, in seconds; `evidence` goes for the recorded trail too."""

    incidents: float
    evidence: float
    dead_letters: float


def sweep(db: Database, held: Lease, ages: Ages, now: float, rest: Callable[[], bool]) -> dict[str, int]:
    """Remove what is too old at `now` (epoch seconds); table → rows removed. Fenced when the lease was lost.

    `rest` is called between batches, to let others write; True ends the work, and the next sweep goes on.
    """
    removed: dict[str, int] = {}
    for name, size, step in _steps(db, ages, now):
        while True:
            with db.write() as connection:
                fence(db, connection, held)
                done = step(connection)
            removed[name] = removed.get(name, 0) + done
            if rest():
                return removed
            if done < size:
                break
    return removed


def _steps(db: Database, ages: Ages, now: float) -> list[tuple[str, int, Step]]:
    return [
        ("evidence", _INCIDENTS, lambda c: _old_evidence(db, c, now - ages.evidence)),
        ("incidents", _INCIDENTS, lambda c: _old_incidents(db, c, now - ages.incidents)),
        ("dead_letters", BATCH, lambda c: _old(db, c, dead_letters, dead_letters.c.at < now - ages.dead_letters)),
        ("commits", BATCH, lambda c: _old_trail(db, c, now - ages.evidence)),
        ("commands", BATCH, lambda c: _old(db, c, commands, commands.c.applied_at < now - ANSWERED_SECONDS)),
        ("outbox", BATCH, lambda c: _old_messages(db, c, "delivered", now - ANSWERED_SECONDS)),
        ("outbox", BATCH, lambda c: _old_messages(db, c, "failed", now - ANSWERED_SECONDS)),
        ("references", BATCH, lambda c: _old_references(db, c, now - ages.incidents)),
    ]


def _old(db: Database, connection: Connection, table: Table, *where: sa.ColumnElement[bool]) -> int:
    """Up to `BATCH` rows of a table."""
    keys = list(table.primary_key)
    found = sa.select(*keys).where(table.c.group_id == db.group, *where).limit(BATCH)
    return connection.execute(table.delete().where(sa.tuple_(*keys).in_(found))).rowcount


def _resolved_before(db: Database, before: float) -> sa.Select[tuple[str]]:
    """Incidents resolved before then. Their last change counts, not event time: a back-fill resolves in the past."""
    done = incidents.c.group_id == db.group, incidents.c.status == "resolved", incidents.c.updated_at < before
    return sa.select(incidents.c.incident_id).where(*done).limit(_INCIDENTS)


def _old_evidence(db: Database, connection: Connection, before: float) -> int:
    """The evidence of up to `_INCIDENTS` resolved incidents; how many incidents."""
    of_it = evidence.c.group_id == incidents.c.group_id, evidence.c.incident_id == incidents.c.incident_id
    ids = list(connection.execute(_resolved_before(db, before).where(sa.exists().where(*of_it))).scalars())
    connection.execute(evidence.delete().where(evidence.c.group_id == db.group, evidence.c.incident_id.in_(ids)))
    return len(ids)


def _old_incidents(db: Database, connection: Connection, before: float) -> int:
    """Subjects and evidence go with them, by the foreign keys."""
    ids = list(connection.execute(_resolved_before(db, before)).scalars())
    mine = incidents.c.group_id == db.group, incidents.c.incident_id.in_(ids)
    connection.execute(incidents.delete().where(*mine))
    return len(ids)


def _old_trail(db: Database, connection: Connection, before: float) -> int:
    """Of the oldest commits, those before then; never the last one. Later commits are not looked at: there are many."""
    mine = commits.c.group_id == db.group
    oldest = sa.select(commits.c.number, commits.c.at).where(mine).order_by(commits.c.number).limit(BATCH).subquery()
    last = sa.select(sa.func.max(commits.c.number)).where(mine).scalar_subquery()
    old = sa.select(oldest.c.number).where(oldest.c.at < before, oldest.c.number < last)
    return connection.execute(commits.delete().where(mine, commits.c.number.in_(old))).rowcount


def _old_messages(db: Database, connection: Connection, status: str, before: float) -> int:
    """Messages that went this way. They stay in the counts, which begin with the first start.

    While an incident is open they say who was told of it.
    """
    old = outbox.c.created_at < before, ~of_open_incident()
    done = _old(db, connection, outbox, outbox.c.status == status, *old)
    if done:
        known = int(setting(db, connection, removed_key(status)) or 0)
        store_setting(db, connection, removed_key(status), str(known + done))
    return done


def _old_references(db: Database, connection: Connection, before: float) -> int:
    """Versions that were replaced: neither in force nor the newest, and neither stored nor approved since then."""
    by_role: dict[tuple[str, str], list[versions.ReferenceSummary]] = {}
    for row in versions.summaries_in(db, connection):
        by_role.setdefault((row.subject, row.role), []).append(row)
    old = [row for rows in by_role.values() for row in _replaced(rows, before)][:BATCH]
    for row in old:
        same = references.c.subject == row.subject, references.c.role == row.role, references.c.version == row.version
        connection.execute(references.delete().where(references.c.group_id == db.group, *same))
    return len(old)


def _replaced(rows: Sequence[versions.ReferenceSummary], before: float) -> list[versions.ReferenceSummary]:
    """Of the versions of one subject and role, oldest first, those that can go."""
    kept = in_force(rows)
    return [r for r in rows[:-1] if r is not kept and max(r.created_at, r.approved_at or 0.0) < before]
