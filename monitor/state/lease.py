"""Who may write: one lease row per group. Its epoch grows with every acquisition and fences every write.

All times are those of the database's clock, so that the clocks of the daemons need not agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from monitor.state.database import Database
from monitor.state.errors import Fenced, StoreUnavailable
from monitor.state.tables import leases

_WAIT_MS = 2_000


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write for `group` in `epoch`. `since` and `expires_at` are of the database's clock."""

    group: str
    holder: str
    epoch: int
    ttl: float
    since: float
    expires_at: float


def acquire_lease(db: Database, holder: str, ttl: float, *, take_over: bool = False) -> Lease | None:
    """Take the lease if it is free or has expired; None if somebody has it.

    `holder` must be unique to the process. `take_over` takes it from whoever has it: only for a daemon that knows
    by other means that the former one is dead (it has SQLite's daemon lock).
    """
    if not holder:
        raise ValueError("the holder of a lease needs a name")
    mine = leases.c.group_id == db.group
    free = sa.true() if take_over else leases.c.expires_at <= db.now
    try:
        with db.write() as connection:
            if db.postgres:
                # A frozen holder may sit on the row until PostgreSQL ends its session: the caller tries again.
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_WAIT_MS}")
            db.insert_new(connection, leases, [_vacant(db.group)])
            row = connection.execute(
                leases.update()
                .where(mine, free)
                .values(holder=holder, epoch=leases.c.epoch + 1, ttl=ttl, acquired_at=db.now, expires_at=db.now + ttl)
                .returning(leases.c.holder, leases.c.epoch, leases.c.acquired_at, leases.c.expires_at)
            ).one_or_none()
    except StoreUnavailable as error:
        if _lock_timeout(error):
            return None
        raise
    return None if row is None else Lease(db.group, row.holder, row.epoch, ttl, row.acquired_at, row.expires_at)


def fence(db: Database, connection: Connection, lease: Lease) -> float:
    """First statement of every write: extends the lease, and locks its row until the transaction ends.

    Returns the new expiry. Fenced when the lease was lost. A lease that ran out but that nobody took is still good:
    whoever takes it waits for this row.
    """
    row = connection.execute(
        leases.update().where(_is(lease)).values(expires_at=db.now + lease.ttl).returning(leases.c.expires_at)
    ).one_or_none()
    if row is None:
        raise Fenced(f"lease of {lease.holder} on group {lease.group}, epoch {lease.epoch}, was lost")
    return float(row.expires_at)


def renew(db: Database, lease: Lease) -> Lease:
    """Extend the lease by its ttl from now. Fenced when it was lost."""
    with db.write() as connection:
        expires_at = fence(db, connection, lease)
    return Lease(lease.group, lease.holder, lease.epoch, lease.ttl, lease.since, expires_at)


def release(db: Database, lease: Lease) -> None:
    """Free the lease, if it is still ours."""
    with db.write() as connection:
        connection.execute(leases.update().where(_is(lease)).values(holder="", expires_at=0.0))


def _is(lease: Lease) -> sa.ColumnElement[bool]:
    return sa.and_(leases.c.group_id == lease.group, leases.c.holder == lease.holder, leases.c.epoch == lease.epoch)


def _vacant(group: str) -> dict[str, Any]:
    return {"group_id": group, "holder": "", "epoch": 0, "ttl": 0.0, "acquired_at": 0.0, "expires_at": 0.0}


def _lock_timeout(error: StoreUnavailable) -> bool:
    cause = error.__cause__
    return isinstance(cause, sa.exc.DBAPIError) and getattr(cause.orig, "sqlstate", None) == "55P03"
