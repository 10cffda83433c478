"""Creating and upgrading the tables. Migrations are Alembic's, shipped as the package `migrations`."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final, Literal

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from monitor.state.database import begin_write, translated
from monitor.state.errors import SchemaError

SchemaState = Literal["empty", "current", "older", "newer"]
VERSION_TABLE: Final = "modelwarden_version"
_LOCK: Final = 0x6D6F64656C77
"""Key of the PostgreSQL advisory lock that lets one process migrate at a time."""


def schema_state(engine: Engine) -> SchemaState:
    """How the tables compare with this program. A revision unknown to it is "newer"."""
    with translated(engine.url), engine.connect() as connection:
        return _state(connection)


def upgrade(engine: Engine) -> None:
    """Bring the tables to this program's revision, in one transaction; SchemaError when they are newer."""
    with translated(engine.url), begin_write(engine) as connection:
        if engine.dialect.name == "postgresql":
            for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                connection.exec_driver_sql(f"SET LOCAL {name} = 0")
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        if _state(connection) == "newer":
            raise _newer(engine)
        command.upgrade(config(connection), "head")


def prepare(engine: Engine) -> None:
    """What `run` does: create the tables of an empty database, upgrade SQLite. SchemaError otherwise."""
    state = schema_state(engine)
    if state == "empty" or (state == "older" and engine.dialect.name == "sqlite"):
        upgrade(engine)
    else:
        require_current(engine)


def require_current(engine: Engine) -> None:
    """SchemaError unless the tables are those of this program."""
    state = schema_state(engine)
    if state == "empty":
        raise SchemaError(f"{_place(engine)}: no ModelWarden tables; start `modelwarden run` or `modelwarden migrate`")
    if state == "older":
        raise SchemaError(f"{_place(engine)}: tables of an older version; run `modelwarden migrate`")
    if state == "newer":
        raise _newer(engine)


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, made here: there is no alembic.ini to install or to lose."""
    made = Config()
    made.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    made.attributes["connection"] = connection
    made.attributes["version_table"] = VERSION_TABLE
    return made


def _state(connection: Connection) -> SchemaState:
    options: dict[str, Any] = {"version_table": VERSION_TABLE}
    heads = MigrationContext.configure(connection, opts=options).get_current_heads()
    scripts = ScriptDirectory.from_config(config())
    if not heads:
        return "empty"
    if set(heads) == set(scripts.get_heads()):
        return "current"
    known = {script.revision for script in scripts.walk_revisions()}
    return "older" if known.issuperset(heads) else "newer"


def _newer(engine: Engine) -> SchemaError:
    return SchemaError(f"{_place(engine)}: tables of a newer version of ModelWarden; upgrade this program")


def _place(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=True)
