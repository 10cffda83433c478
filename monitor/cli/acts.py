"""An operator's act: queued for the active daemon, or done here while no daemon is active."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from monitor.cli.failures import CommandError

if TYPE_CHECKING:
    from monitor.config import Config
    from monitor.state.store import StateStore
    from monitor.state.unit import CommandResult

WAIT_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.2
_LEASE_SECONDS: Final = 10.0


def act(store: StateStore, config: Config, by: str | None, name: str, arguments: Mapping[str, Any]) -> str:
    """Have the command applied; its answer. CommandError when it is refused or nobody applies it in time."""
    result = _wait(store, store.enqueue(by or _user(), name, arguments), config)
    if result is None:
        raise CommandError(f"queued, not yet applied: no daemon took it within {WAIT_SECONDS:.0f} s")
    if not result.ok:
        raise CommandError(result.message)
    return result.message


def _wait(store: StateStore, command: int, config: Config) -> CommandResult | None:
    """The answer to the command, from the daemon or, while none is active, from this process."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        result = store.command_result(command)
        if result is not None or time.monotonic() >= deadline:
            return result
        if store.status()["active"]["holder"] is not None or not _apply(store, config):
            time.sleep(_POLL_SECONDS)


def _apply(store: StateStore, config: Config) -> bool:
    """Take the lease, apply, give it back; False when somebody was quicker."""
    from monitor.commands import apply_without_daemon
    from monitor.outgoing import outbox_writer
    from monitor.state.errors import Conflict, Fenced

    lease = store.acquire_lease(f"cli:{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}", _LEASE_SECONDS)
    if lease is None:
        return False
    try:
        apply_without_daemon(store, lease, outbox_writer(config, store.told()))
    except (Fenced, Conflict):
        return False
    finally:
        store.release(lease)
    return True


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return f"uid {os.getuid()}"
