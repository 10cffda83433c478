"""Run by Alembic. The connection comes from monitor/state/schema.py, which also owns the transaction."""

from __future__ import annotations

from alembic import context

from monitor.state.tables import metadata

connection = context.config.attributes.get("connection")
if context.is_offline_mode() or connection is None:
    raise SystemExit("migrations run through `modelwarden migrate`, on a live database")

context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=context.config.attributes["version_table"],
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
