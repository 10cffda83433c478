"""What Alertmanager was last told, one row a label set: the other half of its reconciliation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import sqlalchemy as sa

from monitor.state.columns import json_text
from monitor.state.database import Database
from monitor.state.lease import Lease, fence
from monitor.state.tables import notified_alerts


class NotifiedAlert(NamedTuple):
    """An alert as a receiver knows it. Times in epoch seconds; `resolved_at` None while it fires."""

    labels: dict[str, str]
    starts_at: float
    last_sent: float
    resolved_at: float | None = None


def fingerprint(labels: Mapping[str, str]) -> str:
    """Identifies a label set."""
    return hashlib.blake2b(json_text(dict(labels)).encode(), digest_size=16).hexdigest()


def load(db: Database, receiver: str) -> list[NotifiedAlert]:
    """All alerts the receiver was told of, in a fixed order."""
    query = (
        sa.select(notified_alerts)
        .where(notified_alerts.c.group_id == db.group, notified_alerts.c.receiver == receiver)
        .order_by(notified_alerts.c.fingerprint)
    )
    with db.read() as connection:
        found = connection.execute(query).all()
    return [NotifiedAlert(row.labels, row.starts_at, row.last_sent, row.resolved_at) for row in found]


def save(
    db: Database,
    receiver: str,
    alerts: Iterable[NotifiedAlert],
    forget: Iterable[Mapping[str, str]],
    held: Lease | None,
) -> None:
    """Store what was sent, and drop label sets that need no further word (`forget`), in one transaction.

    With `held`, only while that lease is good: Fenced, and nothing stored, once it was lost.
    """
    mine = {"group_id": db.group, "receiver": receiver}
    new = [{**mine, "fingerprint": fingerprint(alert.labels), **alert._asdict()} for alert in alerts]
    old = [fingerprint(labels) for labels in forget]
    with db.write() as connection:
        if held is not None:
            fence(db, connection, held)
        db.upsert(connection, notified_alerts, new)
        for one in old:
            connection.execute(
                notified_alerts.delete().where(
                    notified_alerts.c.group_id == db.group,
                    notified_alerts.c.receiver == receiver,
                    notified_alerts.c.fingerprint == one,
                )
            )
