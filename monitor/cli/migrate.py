"""`modelwarden migrate`: bring the tables of the database to this version."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import typer

from monitor.cli.options import ConfigFile, need_config

if TYPE_CHECKING:
    from sqlalchemy import Engine


def migrate(config: ConfigFile = None) -> None:
    """Create or upgrade the tables, SQLite or PostgreSQL. Stop the daemons first."""
    settings = need_config(config)
    from monitor.cli.stored import group_of
    from monitor.state import schema
    from monitor.state.database import Database, create_private
    from monitor.state.lock import daemon_lock

    address = settings.store.url
    if address.path is not None:
        create_private(address.path)
    database = Database(address.url, group_of(settings))
    try:
        was = _revision(database.engine)
        if schema.schema_state(database.engine) == "current":
            typer.echo(f"{address}: nothing to do, the tables are at revision {was}")
            return
        with daemon_lock(address.url) or nullcontext():
            schema.upgrade(database.engine)
        typer.echo(f"{address}: {was or 'no tables'} → {_revision(database.engine)}")
    finally:
        database.engine.dispose()


def _revision(engine: Engine) -> str | None:
    """The revision of the tables, None where there are none."""
    from alembic.migration import MigrationContext

    from monitor.state.database import translated
    from monitor.state.schema import VERSION_TABLE

    with translated(engine.url), engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        return ", ".join(context.get_current_heads()) or None
