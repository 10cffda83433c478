from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from monitor.state.errors import DaemonRunning
from monitor.state.lock import DaemonLock, daemon_lock

HOLDS = """
import sys, time
from pathlib import Path
from monitor.state.lock import DaemonLock
DaemonLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_the_second_daemon_is_told_who_has_it(tmp_path: Path) -> None:
    database = tmp_path / "state.db"
    with DaemonLock(database) as first:
        assert first.path == tmp_path / "state.db.lock"
        with pytest.raises(DaemonRunning, match=rf"state\.db\.lock: another daemon \(pid {os.getpid()}\)"):
            DaemonLock(database).acquire()
    with DaemonLock(database):
        pass


def test_a_killed_daemon_leaves_no_lock(tmp_path: Path) -> None:
    database = tmp_path / "state.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(database)],
        env={"PYTHONPATH": ":".join(sys.path)}, stdout=subprocess.PIPE, text=True,
    ) as daemon:  # fmt: skip
        try:
            assert daemon.stdout is not None and daemon.stdout.readline() == "held\n"
            with pytest.raises(DaemonRunning, match=f"pid {daemon.pid}"):
                DaemonLock(database).acquire()
        finally:
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()
        DaemonLock(database).acquire()


def test_only_sqlite_has_a_lock(tmp_path: Path) -> None:
    lock = daemon_lock(f"sqlite:///{tmp_path}/a.db")
    assert lock is not None and lock.path == tmp_path / "a.db.lock"
    assert daemon_lock("postgresql+psycopg://u@h/d") is None
