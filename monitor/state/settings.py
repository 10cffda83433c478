"""Facts about a group that must outlive processes: key ids, heads. Small texts under a name."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Connection

from monitor.state.database import Database
from monitor.state.tables import settings


def setting(db: Database, connection: Connection, key: str) -> str | None:
    """The stored value."""
    query = sa.select(settings.c.value).where(settings.c.group_id == db.group, settings.c.key == key)
    value: str | None = connection.execute(query).scalar_one_or_none()
    return value


def remember(db: Database, connection: Connection, key: str, value: str) -> str:
    """Store the value unless there is one; returns the one in force."""
    db.insert_new(connection, settings, [{"group_id": db.group, "key": key, "value": value}])
    kept = setting(db, connection, key)
    return value if kept is None else kept


def store_setting(db: Database, connection: Connection, key: str, value: str) -> None:
    """Store the value, in place of any other."""
    db.upsert(connection, settings, [{"group_id": db.group, "key": key, "value": value}])
