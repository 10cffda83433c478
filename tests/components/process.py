"""One server process: a directory and ports of its own, a log, and an end that is certain.

The kernel ends it when the test process dies (Linux), so an aborted run leaves no server behind.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

from tests.components.waiting import wait_until

LOG_TAIL = 4000
PR_SET_PDEATHSIG = 1


class ComponentFailed(RuntimeError):
    """A component ended or did not become ready; the text ends with the tail of its log."""


class Component:
    """A server. A subclass says `command` and `ready`, and what to `prepare` before the first start."""

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"modelwarden-{self.name}-"))
        self.log = self.directory / f"{self.name}.log"
        self.user: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared = False
        self._frozen = False
        self._log_start = 0

    def command(self) -> list[str]:
        """Program and arguments; it must stay in the foreground."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it answers; must return within about a second."""
        raise NotImplementedError

    def prepare(self) -> None:
        """What is done once, before the first start."""

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ComponentFailed(f"{self.name} was never started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process exists; a frozen one does."""
        return self._process is not None and self._process.poll() is None

    def start(self, deadline: float = 60.0) -> Self:
        """Start, again in the same place and on the same ports after a stop or kill, and wait until it is ready."""
        if self.running:
            raise ComponentFailed(f"{self.name} is running already")
        if threading.current_thread() is not threading.main_thread():
            raise ComponentFailed("start a component from the main thread: the kernel ends it with its thread")
        if not self._prepared:
            self.prepare()
            self._prepared = True
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = self.popen(self.command(), log.fileno())
        self.wait_ready(deadline)
        return self

    def wait_ready(self, deadline: float) -> None:
        """Wait at most `deadline` seconds until it answers; ComponentFailed with the log's tail if it does not."""
        try:
            wait_until(lambda: not self.running or self.ready(), deadline, f"{self.name} ready")
        except TimeoutError as late:
            self.kill()
            raise ComponentFailed(f"{late}\n{self.log_tail()}") from None
        if not self.running:
            raise ComponentFailed(f"{self.name} ended with status {self.returncode}\n{self.log_tail()}")

    @property
    def returncode(self) -> int | None:
        """Exit status of the last process; None while it runs."""
        return None if self._process is None else self._process.poll()

    def stop(self, deadline: float = 20.0) -> None:
        """An orderly end; kill -9 if it takes longer than `deadline` seconds."""
        if self._process is None or not self.running:
            return
        self._process.send_signal(self.stop_signal)
        self.sigcont()
        try:
            self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill -9 of the process and its children; returns when all are gone."""
        if self._process is None:
            return
        tree = self._signal_tree(signal.SIGKILL)
        self._process.wait(10)
        self._frozen = False
        wait_until(lambda: not any(exists(pid) for pid in tree), 10, f"{self.name} gone after kill -9")

    def sigstop(self) -> None:
        """Freeze the process and its children."""
        self._signal_tree(signal.SIGSTOP)
        self._frozen = True

    def sigcont(self) -> None:
        """Thaw what `sigstop` froze."""
        if self._frozen:
            self._signal_tree(signal.SIGCONT)
        self._frozen = False

    def restart(self) -> None:
        """Stop in an orderly way and start in place."""
        self.stop()
        self.start()

    def heal(self) -> None:
        """Make it run again, whatever a test did to it."""
        self.sigcont()
        if not self.running:
            self.start()

    def close(self) -> None:
        """Stop and remove the directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log_tail(self) -> str:
        """The last lines that it logged since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read()[-LOG_TAIL:].decode(errors="replace")

    def popen(self, command: list[str], output: int) -> subprocess.Popen[bytes]:
        """Run `command` in the directory, as `user` if that is set, in a session of its own."""
        return subprocess.Popen(
            command,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
            start_new_session=True,
            preexec_fn=die_with_parent(self.death_signal),
        )

    def run_tool(self, command: list[str], deadline: float = 60.0) -> None:
        """Run a command to its end with its output in the log; ComponentFailed if it fails."""
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            process = self.popen(command, log.fileno())
            try:
                status = process.wait(deadline)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
        if status != 0:
            raise ComponentFailed(f"{Path(command[0]).name} ended with status {status}\n{self.log_tail()}")

    def _signal_tree(self, number: signal.Signals) -> list[int]:
        """Signal the process and, as far as the system tells them, its children."""
        if self._process is None or not self.running:
            return []
        tree = [self._process.pid, *descendants(self._process.pid)]
        for pid in tree:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        return tree

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What a new child calls before exec so that the kernel sends it `number` when its parent dies; None off Linux."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return ask


def exists(pid: int) -> bool:
    """Whether a process of this id exists and is not a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _stat(pid)[0] not in ("Z", "X")


def descendants(pid: int) -> list[int]:
    """Ids of all children of a process, and of theirs; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        children.setdefault(_stat(int(entry.name))[1], []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        own = children.get(todo.pop(), [])
        found += own
        todo += own
    return found


def _stat(pid: int) -> tuple[str, int]:
    """State and parent of a process, by proc(5); ("?", 0) where that cannot be read."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return "?", 0
    return after_name[0], int(after_name[1])


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free now, below the range from which the system gives ports to clients.

    A port of that range could be taken by some connection while its server is down between two starts.
    """
    ports: list[int] = []
    for port in random.sample(range(15_000, 32_000), 1_000):
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise ComponentFailed("no free ports between 15000 and 32000 on 127.0.0.1")
