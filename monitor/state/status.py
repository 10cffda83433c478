"""`status` as SQL has it, in one snapshot."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from alerts.times import rfc3339_or_none
from monitor.state import outbox, reader
from monitor.state.database import Database
from monitor.state.tables import access_counts, leases, offsets
from monitor.state.unit import PartitionCounts, SubjectRow


def status(db: Database) -> dict[str, Any]:
    """Models, access, topics, active, outbox: counts since the first start."""
    with db.read() as connection:
        watched = reader.subject_rows(db, connection)
        return {
            "models": [_model(row) for row in watched if row.model is not None],
            "access": _access(db, connection),
            "topics": _topics(db, connection),
            "active": _active(db, connection),
            "outbox": outbox.counts(db, connection)._asdict(),
        }


def _model(row: SubjectRow) -> dict[str, Any]:
    names = (
        "model", "tenant", "predictions", "labels", "labels_matched", "clients", "clients_exact", "state",
        "attack_state", "unwatched", "subject", "sample_rate", "unjudged",
    )  # fmt: skip
    told = {"note": row.note or None}
    return {name: getattr(row, name) for name in names} | told | {"watermark": rfc3339_or_none(row.watermark)}


def _access(db: Database, connection: Connection) -> dict[str, Any]:
    columns = access_counts.c.topic, access_counts.c.events
    query = sa.select(*columns).where(access_counts.c.group_id == db.group).order_by(access_counts.c.topic)
    topics = {row.topic: int(row.events) for row in connection.execute(query)}
    return {"events": sum(topics.values()), "topics": topics}


def _topics(db: Database, connection: Connection) -> list[dict[str, Any]]:
    order = offsets.c.topic, offsets.c.partition, offsets.c.cluster_id
    found = connection.execute(sa.select(offsets).where(offsets.c.group_id == db.group).order_by(*order))
    return [
        {"topic": row.topic, "partition": row.partition, "next_offset": row.next_offset}
        | {name: getattr(row, name) for name in PartitionCounts._fields}
        | {"cluster_id": row.cluster_id}
        for row in found
    ]


def _active(db: Database, connection: Connection) -> dict[str, Any]:
    """Who holds the lease; `holder` and `since` are null when nobody does."""
    query = sa.select(leases, (leases.c.expires_at > db.now).label("live")).where(leases.c.group_id == db.group)
    row = connection.execute(query).one_or_none()
    if row is None or not row.live:
        return {"holder": None, "epoch": 0 if row is None else row.epoch, "since": None}
    return {"holder": row.holder, "epoch": row.epoch, "since": rfc3339_or_none(row.acquired_at)}
