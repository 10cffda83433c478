"""Named places in the code where a test can make the process die, freeze or raise. Free when off.

`MODELWARDEN_FAILPOINT="after_pages:2:crash"` acts on the second visit of `after_pages`. Actions: `crash` (the
default: SIGKILL to the own process, as no handler or `finally` would run on a power cut), `stop` (SIGSTOP, a frozen
process), `raise` (`FailPointHit`).
"""

from __future__ import annotations

import os
import signal
from typing import Final, Literal, cast

VARIABLE: Final = "MODELWARDEN_FAILPOINT"

FAILPOINTS: Final[dict[str, str]] = {
    "after_claim": "where new partitions begin is stored, no record of them is read",
    "after_feed": "records of one poll and partition are decoded and detected, nothing of it is stored",
    "after_tick": "a tick has acted on the detectors, nothing of it is stored",
    "before_commit": "the unit is complete, no transaction is open yet",
    "after_offsets": "inside the transaction, lease and offsets are written",
    "after_pages": "inside the transaction, detector state is written",
    "before_transaction_end": "inside the transaction, everything is written, COMMIT was not sent",
    "after_commit": "the transaction is durable, the caller does not know it yet",
    "after_post": "a webhook receiver has answered, the outbox does not know it yet",
    "after_mark": "the outbox knows what a webhook receiver answered",
}
"""Every fail-point there is, and what holds at it."""
DELIVERY: Final = frozenset({"after_post", "after_mark"})
"""Those that only delivery visits."""

Action = Literal["crash", "stop", "raise"]


class FailPointHit(Exception):
    """Raised at a fail-point armed with the action `raise`."""


class _Armed:
    def __init__(self, name: str, visit: int, action: Action) -> None:
        self.name = name
        self.visit = visit
        self.action = action
        self.visits = 0


_armed: _Armed | None = None


def failpoint(name: str) -> None:
    """Act here if this fail-point is armed and this is the visit asked for."""
    if _armed is not None:
        _visit(_armed, name)


def arm(spec: str) -> None:
    """Arm one fail-point, `name:visit[:action]`. ValueError for an unknown name or action or a bad visit."""
    global _armed
    name, _, rest = spec.partition(":")
    visit, _, action = rest.partition(":")
    if name not in FAILPOINTS:
        raise ValueError(f"no fail-point {name!r}; known: {', '.join(FAILPOINTS)}")
    if not visit.isdecimal() or int(visit) < 1:
        raise ValueError(f"fail-point {spec!r}: the visit must be a number from 1, as in {name}:1:crash")
    action = action or "crash"
    if action not in ("crash", "stop", "raise"):
        raise ValueError(f"fail-point {spec!r}: the action must be crash, stop or raise")
    _armed = _Armed(name, int(visit), cast(Action, action))


def disarm() -> None:
    """Turn fail-points off."""
    global _armed
    _armed = None


def _visit(armed: _Armed, name: str) -> None:
    if name not in FAILPOINTS:
        raise ValueError(f"fail-point {name!r} is not declared in FAILPOINTS")
    if name != armed.name:
        return
    armed.visits += 1
    if armed.visits != armed.visit:
        return
    if armed.action == "raise":
        raise FailPointHit(f"{name}, visit {armed.visit}")
    os.kill(os.getpid(), signal.SIGKILL if armed.action == "crash" else signal.SIGSTOP)


if VARIABLE in os.environ:
    arm(os.environ[VARIABLE])
