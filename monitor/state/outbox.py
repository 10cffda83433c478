"""Messages on their way: claimed for a while, posted, marked. At least once, in order for (receiver, incident).

A message is claimed only when no earlier one of the same receiver and incident is pending. A claim that runs out
(its worker died) is claimed again, with the same idempotency key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from monitor.state.database import Database
from monitor.state.settings import setting
from monitor.state.tables import incidents, outbox


class OutboxMessage(NamedTuple):
    """A claimed message. `attempt` counts from 1 and tells this claim from others."""

    number: int
    key: str
    receiver: str
    incident_id: str
    event: str
    payload: str
    created_at: float
    attempt: int


class OutboxCounts(NamedTuple):
    """Messages since the first start, by what became of them. `failed` ones were given up."""

    pending: int
    delivered: int
    failed: int


def claim(db: Database, receivers: Sequence[str], lease_seconds: float, limit: int) -> list[OutboxMessage]:
    """Claim up to `limit` messages that are due for these receivers, oldest first."""
    earlier = outbox.alias("earlier")
    blocked = sa.exists().where(
        earlier.c.group_id == outbox.c.group_id,
        earlier.c.incident_id == outbox.c.incident_id,
        earlier.c.receiver == outbox.c.receiver,
        earlier.c.status == "pending",
        earlier.c.number < outbox.c.number,
    )
    due = (
        sa.select(outbox)
        .where(outbox.c.group_id == db.group, outbox.c.status == "pending", outbox.c.receiver.in_(list(receivers)))
        .where(outbox.c.next_attempt_at <= db.now)
        .where(sa.or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until <= db.now))
        .where(sa.or_(outbox.c.incident_id == "", ~blocked))
        .order_by(outbox.c.number)
        .limit(limit)
        .with_for_update(skip_locked=True, of=outbox)
    )
    with db.write() as connection:
        found = connection.execute(due).all()
        if found:
            connection.execute(
                outbox.update()
                .where(outbox.c.number.in_([row.number for row in found]))
                .values(claimed_until=db.now + lease_seconds, attempts=outbox.c.attempts + 1)
            )
    return [_message(row) for row in found]


def mark_delivered(db: Database, message: OutboxMessage) -> None:
    """The receiver took it. True also when the claim had run out: the key makes a second post harmless."""
    _mark(db, message, status="delivered", delivered_at=db.now, claimed_until=None, error="")


def mark_failed(db: Database, message: OutboxMessage, error: str, retry_in: float | None) -> None:
    """It was not taken: try again in so many seconds, or (None) give it up. A claim that ran out changes nothing."""
    outcome: dict[str, Any] = {"status": "failed"} if retry_in is None else {"next_attempt_at": db.now + retry_in}
    _mark(db, message, outbox.c.attempts == message.attempt, claimed_until=None, error=error, **outcome)


def counts(db: Database, connection: sa.Connection, receiver: str | None = None) -> OutboxCounts:
    """How many messages are pending, delivered, given up: to one receiver, or to all."""
    query = sa.select(outbox.c.status, sa.func.count()).where(outbox.c.group_id == db.group)
    if receiver is not None:
        query = query.where(outbox.c.receiver == receiver)
    found = {row[0]: int(row[1]) for row in connection.execute(query.group_by(outbox.c.status))}
    for status in ("delivered", "failed"):
        found[status] = found.get(status, 0) + int(setting(db, connection, removed_key(status)) or 0)
    return OutboxCounts(found.get("pending", 0), found["delivered"], found["failed"])


def told(db: Database) -> list[tuple[str, str]]:
    """(receiver, id) of incidents that are not resolved, where there is a message to the receiver about them."""
    query = (
        sa.select(outbox.c.receiver, outbox.c.incident_id)
        .distinct()
        .where(outbox.c.group_id == db.group, of_open_incident())
    )
    with db.read() as connection:
        return [(row.receiver, row.incident_id) for row in connection.execute(query)]


def of_open_incident() -> sa.ColumnElement[bool]:
    """Whether a message is about an incident that is not resolved."""
    same = incidents.c.group_id == outbox.c.group_id, incidents.c.incident_id == outbox.c.incident_id
    return sa.exists().where(*same, incidents.c.status != "resolved")


def removed_key(status: str) -> str:
    """The setting that counts messages of a status that retention has removed."""
    return f"outbox_removed_{status}"


def _mark(db: Database, message: OutboxMessage, *where: sa.ColumnElement[bool], **values: Any) -> None:
    mine = outbox.c.number == message.number, outbox.c.group_id == db.group, outbox.c.status == "pending"
    with db.write() as connection:
        connection.execute(outbox.update().where(*mine, *where).values(**values))


def _message(row: Any) -> OutboxMessage:
    values = {name: getattr(row, name) for name in OutboxMessage._fields if name != "attempt"}
    return OutboxMessage(**values, attempt=row.attempts + 1)
