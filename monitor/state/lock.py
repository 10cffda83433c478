"""One daemon per SQLite file. The lock dies with its process, so a restart after kill -9 starts at once."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from monitor.state.database import parsed_url, sqlite_path
from monitor.state.errors import DaemonRunning


class DaemonLock:
    """An advisory lock on `<database>.lock`, which holds the pid of the daemon. Commands of the CLI do not take it."""

    def __init__(self, database: Path) -> None:
        self.path = Path(f"{database}.lock")
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock. DaemonRunning names the pid of the process that has it."""
        # Not inherited by children, so that a surviving child cannot hold the lock of a dead daemon.
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise DaemonRunning(
                f"{self.path}: another daemon (pid {pid}) uses this SQLite database; stop it, or use PostgreSQL, "
                "where further daemons stand by"
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would race with a daemon that just opened it."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def daemon_lock(url: str) -> DaemonLock | None:
    """The lock a daemon must hold on this store; None where the lease alone decides (PostgreSQL)."""
    path = sqlite_path(parsed_url(url))
    return None if path is None else DaemonLock(path)
