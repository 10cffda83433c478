"""The memory of clients: one budget over all models (`limits.client_state`).

Every model may hold up to an equal share; what a small one leaves, larger ones may use. A model beyond its share gives
up, in this order: evidence against clients that is too little for them to be watched, smallest first; counts of the
clients with fewest queries, which go into the summary of the tail; trails of watched clients with least evidence.
Suspects, named clients and heavy hitters stay, so that a flood of new ids drives out nobody but other small ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from detectors.client_account import ClientAccount
from detectors.moves.second_stage import SecondStage
from monitor.clients import ClientLedger
from monitor.suspicion import Suspicion

DEFAULT: Final = 512 << 20
HEAVY: Final = 100
"""Clients with most queries of a model whose counts are always kept."""
_ROOM: Final = 0.9
"""Who gives up something gives up a tenth more, or it would be asked again at the next event."""


class Panel(Protocol):
    """What a model's panel holds of clients."""

    suspicion: Suspicion | None

    @property
    def client_bytes(self) -> int:
        """Memory of it all."""

    def shrink(self, excess: int) -> int:
        """Let its detectors give up that many bytes; those that were freed."""


class Model(Protocol):
    """A watched model."""

    clients: ClientLedger

    @property
    def panel(self) -> Panel | None:
        """Its detectors, once it has any."""


class ClientBudget:
    """Keeps the client state of all models within `limit` bytes, as far as what must stay allows."""

    def __init__(self, limit: int = DEFAULT) -> None:
        self.limit = limit

    def keep(self, models: Iterable[Model]) -> list[int]:
        """Bring the models back to their shares; bytes that each holds then, in the order given."""
        given = list(models)
        held = [held_by(model) for model in given]
        if sum(held) <= self.limit:
            return held
        level = _level(held, self.limit)
        for i, model in enumerate(given):
            if held[i] > level:
                _shrink(model, held[i] - int(level * _ROOM))
                held[i] = held_by(model)
        return held


def held_by(model: Model) -> int:
    """Bytes of client state that a model holds, as far as they can be told without walking through all of it."""
    return model.clients.bytes + (0 if model.panel is None else model.panel.client_bytes)


def _shrink(model: Model, excess: int) -> None:
    """Give up `excess` bytes, if there are as many to be given up."""
    suspicion = None if model.panel is None else model.panel.suspicion
    kept = frozenset[str]() if suspicion is None else suspicion.marked
    if suspicion is not None:
        excess -= _freed(suspicion.account, excess, kept)
    if excess > 0:
        before = model.clients.bytes
        model.clients.summarise(max(HEAVY, _left(len(model.clients), before, excess)), kept)
        excess -= before - model.clients.bytes
    if excess > 0 and model.panel is not None:
        excess -= model.panel.shrink(excess)
    if excess > 0 and suspicion is not None and suspicion.second is not None:
        _let_go(suspicion.second, excess, suspicion.suspects)


def _freed(account: ClientAccount, excess: int, kept: frozenset[str]) -> int:
    before = account.bytes
    account.shrink(_left(account.clients, before, excess), kept)
    return before - account.bytes


def _let_go(second: SecondStage, excess: int, suspects: frozenset[str]) -> None:
    second.shrink(max(0, second.trail_bytes - excess), suspects)


def _left(n: int, held: int, excess: int) -> int:
    """How many of `n` equal parts of what is `held` may stay."""
    return max(0, int(n * (1 - excess / held))) if held else 0


def _level(held: list[int], limit: int) -> float:
    """The level such that all of what is below it, and the level for what is above, add up to `limit`."""
    left = float(limit)
    for i, size in enumerate(sorted(held)):
        share = left / (len(held) - i)
        if size > share:
            return share
        left -= size
    return float(limit)
