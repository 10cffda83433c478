"""The daemon as a child process of the demo: the very command an operator would start."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class DaemonProcess:
    """`modelwarden run`, in a process group of its own, its output in a log. It ends with the demo."""

    def __init__(self, config: Path, log: Path, port: int, environment: Mapping[str, str]) -> None:
        self._command = [sys.executable, "-m", "monitor.cli", "run", "--config", str(config)]
        self._log = log
        self._port = port
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DaemonProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it; call this before there are threads, because of what runs between fork and exec."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | self._environment,
                start_new_session=True,
                preexec_fn=_end_with_parent if _LIBC is not None else None,
            )

    def stop(self, timeout: float = 15.0) -> int | None:
        """Let it commit and end; its exit code. A daemon that does not end in time is killed."""
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait()

    def ready(self) -> bool:
        """Whether it says that it is ready."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=2.0)
        with suppress(OSError, HTTPException):
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == 200
        return False

    def tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        with suppress(OSError):
            return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        return ""


def _end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent ends, however it ends."""
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
