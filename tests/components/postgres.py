"""A PostgreSQL server with a new data directory; databases are made for single tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tests.components.need import MissingComponent
from tests.components.process import Component, free_ports

if TYPE_CHECKING:
    import psycopg

ROLE = "modelwarden"
INSTALLED = Path("/usr/lib/postgresql")


class Postgres(Component):
    """PostgreSQL refuses to run as root, so root starts it as the user `postgres`."""

    name: ClassVar[str] = "postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # fast: open connections do not hold it up
    death_signal: ClassVar[signal.Signals] = signal.SIGQUIT  # at once, but shared memory is given back

    def __init__(self) -> None:
        self._programs = find_programs()
        user = unprivileged_user()
        _import_driver()
        super().__init__()
        self.user = user
        if user is not None:
            shutil.chown(self.directory, user)
        self.port = free_ports(1)[0]
        self._data = self.directory / "data"

    def prepare(self) -> None:
        initdb = str(self._programs / "initdb")
        self.run_tool(
            [initdb, "-D", str(self._data), "-A", "trust", "-U", ROLE, "-E", "UTF8", "--locale=C", "--no-sync"]
        )

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "off",  # guards against the fall of the machine, not of a process
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port), *options]

    def ready(self) -> bool:
        driver = _import_driver()
        try:
            self.connect().close()
        except driver.OperationalError:
            return False
        return True

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://{ROLE}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection of the driver, in autocommit."""
        connection: psycopg.Connection[Any] = _import_driver().connect(
            host="127.0.0.1", port=self.port, user=ROLE, dbname=database, autocommit=True, connect_timeout=2
        )
        return connection

    def create_database(self) -> str:
        """Name of a new, empty database."""
        name = f"test_{uuid.uuid4().hex}"
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload,unused-ignore]
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database and whoever is connected to it; nothing if the server is down."""
        if not self.running:
            return
        with self.connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')  # type: ignore[call-overload,unused-ignore]


def find_programs() -> Path:
    """The directory of `initdb` and `postgres`: the newest that Debian installed, else the one on the PATH."""
    installed = sorted(INSTALLED.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if installed:
        return installed[-1].parent
    found = shutil.which("initdb")
    if found is None:
        raise MissingComponent("there is no `initdb`; install the server of PostgreSQL (Debian: postgresql)")
    return Path(found).resolve().parent


def unprivileged_user() -> str | None:
    """The user to start the server as; None means the present one."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise MissingComponent("root cannot run PostgreSQL and there is no user `postgres`; make one") from None


def _import_driver() -> Any:
    try:
        import psycopg
    except ImportError:
        raise MissingComponent("there is no driver; install the extra `postgres`") from None
    return psycopg
