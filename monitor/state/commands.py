"""Operators' commands: queued by CLI and API, applied by the loop in one of its commits, answered there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from monitor.state.database import Database
from monitor.state.tables import commands
from monitor.state.unit import CommandResult


class Command(NamedTuple):
    """A queued command. `created_at` is of the database's clock."""

    id: int
    actor: str
    name: str
    arguments: dict[str, Any]
    created_at: float


def enqueue(db: Database, actor: str, name: str, arguments: Mapping[str, Any]) -> int:
    """Queue a command; returns its id."""
    values = {"group_id": db.group, "actor": actor, "name": name, "arguments": dict(arguments)}
    statement = commands.insert().values(**values, created_at=db.now).returning(commands.c.number)
    with db.write() as connection:
        return int(connection.execute(statement).scalar_one())


def pending(db: Database) -> list[Command]:
    """Commands that no commit has answered, in the order they were asked."""
    query = (
        sa.select(commands)
        .where(commands.c.group_id == db.group, commands.c.applied_at.is_(None))
        .order_by(commands.c.number)
    )
    with db.read() as connection:
        found = connection.execute(query).all()
    return [Command(row.number, row.actor, row.name, row.arguments, row.created_at) for row in found]


def result(db: Database, command: int) -> CommandResult | None:
    """The answer to a command, None while it is queued. KeyError when there is no such command."""
    query = sa.select(commands).where(commands.c.group_id == db.group, commands.c.number == command)
    with db.read() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        raise KeyError(f"no command {command}")
    return None if row.applied_at is None else CommandResult(row.number, row.ok, row.message)
