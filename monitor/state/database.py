"""One database and one group: connections, transactions, the database's clock, upserts. SQLite and PostgreSQL.

SQLite runs in WAL mode, so that commands of the CLI read and write beside the daemon, with synchronous=FULL: every
commit is on disk before it is acknowledged. NORMAL would survive a kill -9 too, but could lose acknowledged commits
on a power cut, and the daemon commits so seldom that one fsync is no cost. Writers begin with BEGIN IMMEDIATE: a
deferred transaction that turns into a writer fails at once when another one wrote in between.

On PostgreSQL a session that idles inside a transaction is ended after 5 seconds: a daemon frozen in the middle of a
commit must not keep the lease row locked against its successor.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, Table, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from monitor.state.errors import StoreError, StoreUnavailable

BUSY_SECONDS: Final = 10
_POSTGRES_SETTINGS: Final = {
    "statement_timeout": "30s",
    "lock_timeout": f"{BUSY_SECONDS}s",
    "idle_in_transaction_session_timeout": "5s",
}
_PASSING: Final = frozenset({"25006", "25P03", "25P04"})
"""SQLSTATEs that pass: a read-only server during a fail-over, a session ended while it idled in a transaction."""
_WRITES: Final = "modelwarden_writes"
_SQLITE_NOW: Final = "((julianday('now') - 2440587.5) * 86400.0)"
_POSTGRES_NOW: Final = "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"

Row = dict[str, Any]


class Database:
    """An engine with the group whose rows it may see."""

    def __init__(self, url: str, group: str) -> None:
        self.url = parsed_url(url)
        self.group = group
        self.postgres = self.url.get_backend_name() == "postgresql"
        self.engine = _postgres_engine(self.url) if self.postgres else _sqlite_engine(self.url)
        self.now: sa.ColumnElement[float] = sa.literal_column(
            _POSTGRES_NOW if self.postgres else _SQLITE_NOW, sa.Double()
        )
        """The database's clock in epoch seconds; moves on inside a transaction."""

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent snapshot."""
        with translated(self.url), self.engine.connect() as connection:
            if self.postgres:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back by any exception."""
        with translated(self.url), begin_write(self.engine) as connection:
            yield connection

    def upsert(
        self, connection: Connection, table: Table, rows: Iterable[Row], replace: Sequence[str] | None = None
    ) -> None:
        """Insert rows or, where the primary key exists, replace all other columns (or those in `replace`).

        Of equal keys the last row wins.
        """
        keys = [column.name for column in table.primary_key]
        unique = list({tuple(row[key] for key in keys): row for row in rows}.values())
        statement = self._insert(table)
        others = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
        if replace is not None:
            others = {name: others[name] for name in replace}
        self._insert_all(connection, statement.on_conflict_do_update(index_elements=keys, set_=others), unique)

    def insert_new(
        self, connection: Connection, table: Table, rows: Sequence[Row], keys: Sequence[str] | None = None
    ) -> None:
        """Insert rows whose key (default: primary key) is not there yet, leave the others as they are."""
        elements = keys or [column.name for column in table.primary_key]
        self._insert_all(connection, self._insert(table).on_conflict_do_nothing(index_elements=elements), rows)

    def insert(self, connection: Connection, table: Table, rows: Sequence[Row]) -> None:
        """Insert rows."""
        self._insert_all(connection, self._insert(table), rows)

    def _insert(self, table: Table) -> Any:
        return (postgresql.insert if self.postgres else sqlite.insert)(table)

    def _insert_all(self, connection: Connection, statement: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        if self.postgres:
            # With RETURNING SQLAlchemy sends one statement of many rows. Plain executemany would open a pipeline:
            # slower, and a process frozen inside a pipeline is not idle in PostgreSQL's eyes.
            statement = statement.returning(sa.literal_column("1"))
        connection.execute(statement, list(rows))


def parsed_url(url: str) -> sa.URL:
    """The URL, checked: a file of SQLite, or PostgreSQL through psycopg. StoreError says what is wrong."""
    try:
        parsed = sa.make_url(url)
    except SQLAlchemyError:
        raise StoreError("store.url is no database URL; write sqlite:///FILE or postgresql+psycopg://…") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if sqlite_path(parsed) is None:
            raise StoreError("store.url: SQLite needs a file, as in sqlite:///modelwarden.db")
        return parsed
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    raise StoreError(f"store.url: {backend} is not supported; write sqlite:///FILE or postgresql+psycopg://…")


def sqlite_path(url: sa.URL) -> Path | None:
    """The file of an SQLite URL; None for anything else."""
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(name)


@contextlib.contextmanager
def begin_write(engine: Engine) -> Iterator[Connection]:
    """A write transaction on an engine of this module."""
    with engine.connect() as connection, connection.execution_options(**{_WRITES: True}).begin():
        yield connection


@contextlib.contextmanager
def translated(url: sa.URL) -> Iterator[None]:
    """Database errors as StoreUnavailable (try again) or StoreError (do not). Names the database, never a password."""
    place = url.render_as_string(hide_password=True)
    try:
        yield
    except DBAPIError as error:
        kind: type[StoreError] = StoreUnavailable if _passes(error) else StoreError
        raise kind(f"{place}: {_first_line(error)}") from error
    except PoolTimeout as error:
        raise StoreUnavailable(f"{place}: all connections are in use") from error


def _passes(error: DBAPIError) -> bool:
    """Whether the cause may go away by itself: no answer, no space, a lock. Not: wrong SQL, wrong data."""
    if getattr(error.orig, "sqlstate", None) in _PASSING:
        return True
    if str(error.orig).startswith("no such "):  # SQLite says OperationalError for a missing table or column too
        return False
    return error.connection_invalidated or isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)


def _first_line(error: DBAPIError) -> str:
    return next(iter(str(error.orig).strip().splitlines()), type(error.orig).__name__)


def _sqlite_engine(url: sa.URL) -> Engine:
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver begins no transactions; the handler below does
        _use_wal(connection)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Turn WAL mode on. SQLite does not wait for others here, whatever the timeout: two first starts would collide."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= end:
                raise
            time.sleep(0.02)


def create_private(path: Path) -> None:
    """Make the database file, readable by its owner only (SQLite gives WAL and shm the same mode)."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened ({error.strerror}); check store.url and its directory") from error


def _postgres_engine(url: sa.URL) -> Engine:
    try:
        engine = sa.create_engine(
            url,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 10, "application_name": "modelwarden"} | dict(url.query),
        )
    except ModuleNotFoundError:
        raise StoreError("PostgreSQL needs psycopg: install modelwarden[postgres]") from None

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # By SET and not as start-up options, which connection poolers refuse.
        connection.autocommit = True
        for name, value in _POSTGRES_SETTINGS.items():
            connection.execute(f"SET {name} = '{value}'")
        connection.autocommit = False

    return engine
