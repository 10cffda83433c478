"""Stored versions of references. The one in force is the version approved last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from monitor.state.database import Database
from monitor.state.tables import references
from monitor.state.unit import ReferenceRow


class StoredReference(NamedTuple):
    """A reference with its version, numbered from 1 for each (subject, role)."""

    version: int
    reference: ReferenceRow


class ReferenceSummary(NamedTuple):
    """A stored version without its rows."""

    subject: str
    role: str
    version: int
    rows: int | None
    origin: str
    content_hash: str
    created_at: float
    approved_at: float | None
    approved_by: str | None


def store(db: Database, connection: Connection, found: Sequence[ReferenceRow]) -> None:
    """A new content becomes the next version; a known one takes the approval, if the row has one."""
    for reference in found:
        same = (
            references.c.group_id == db.group,
            references.c.subject == reference.subject,
            references.c.role == reference.role,
        )
        known = references.c.content_hash == reference.content_hash
        approval = {"approved_at": reference.approved_at, "approved_by": reference.approved_by}
        if connection.execute(sa.select(references.c.version).where(*same, known)).one_or_none() is None:
            last = connection.execute(sa.select(sa.func.max(references.c.version)).where(*same)).scalar_one()
            row = {"group_id": db.group, "version": (last or 0) + 1, **reference._asdict()}
            connection.execute(references.insert(), row)
        elif reference.approved_at is not None:
            connection.execute(references.update().where(*same, known).values(approval))


def load(db: Database, subject: str) -> list[StoredReference]:
    """All versions of a subject's references, by role and version."""
    query = (
        sa.select(references)
        .where(references.c.group_id == db.group, references.c.subject == subject)
        .order_by(references.c.role, references.c.version)
    )
    with db.read() as connection:
        found = connection.execute(query).all()
    return [
        StoredReference(row.version, ReferenceRow(**{name: getattr(row, name) for name in ReferenceRow._fields}))
        for row in found
    ]


def summaries(db: Database) -> list[ReferenceSummary]:
    """All versions of all subjects, by subject, role and version."""
    with db.read() as connection:
        return summaries_in(db, connection)


def summaries_in(db: Database, connection: Connection) -> list[ReferenceSummary]:
    """As `summaries`, in the caller's transaction."""
    names = [name for name in ReferenceSummary._fields if name != "rows"]
    query = (
        sa.select(*(references.c[name] for name in names), references.c.meta)
        .where(references.c.group_id == db.group)
        .order_by(references.c.subject, references.c.role, references.c.version)
    )
    found = connection.execute(query).all()
    return [ReferenceSummary(**{n: getattr(row, n) for n in names}, rows=row.meta.get("rows")) for row in found]
