"""The traffic of the busiest clients of one subject: who asks more, less, slower or with more errors than usual.

What it finds is severity info: a client that doubles its requests is worth a line and no page. It names the client.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from detectors.base import F64, Finding, Page, StateError, SubjectRef
from detectors.traffic.subject import Traffic, TrafficSettings
from detectors.traffic.windows import Happened

SLOTS: Final = 8
"""Clients watched of one subject."""
LEAST_SHARE: Final = 0.02
"""Of the events: below that a client is not busy."""
STRETCH: Final = 4_096
"""Events after which it is looked who is busy."""
SHARE: Final = 0.1
"""Part of the traffic budget that all clients together may cost."""
_LIST = "clients"
_PREFIX = "client"
Report = Callable[[Finding], str | None]


class ClientTraffic:
    """Up to eight clients, each with windows and baselines of its own. Clients are pseudonyms."""

    def __init__(self, settings: TrafficSettings, type: str = "client") -> None:
        """`type` of subject that findings name: client, or principal where accesses are watched."""
        self._type = type
        self._settings = replace(settings, budget=settings.budget * SHARE / SLOTS)
        self._slots: list[tuple[str, Traffic] | None] = [None] * SLOTS
        self._counts: Counter[str] = Counter()
        self._seen = 0
        self._written: list[set[str]] = [set() for _ in range(SLOTS)]
        """Pages of each slot that are stored."""
        self._stale: list[set[str]] = [set() for _ in range(SLOTS)]
        """Those of a former client, to be emptied."""
        self._changed = False

    @property
    def clients(self) -> list[str]:
        """Who is watched."""
        return [slot[0] for slot in self._slots if slot is not None]

    def add(self, clients: Sequence[str | None], columns: F64, report: Report) -> None:
        """Events of the subject in order: `columns` (4, n) are time, error, latency and value."""
        self._counts.update(filter(None, clients))
        self._seen += len(clients)
        self._changed = True
        at: dict[str | None, list[int]] = {client: [] for client in self.clients}
        for i, client in enumerate(clients):
            if client in at:
                at[client].append(i)
        for slot in self._slots:
            if slot is not None and at[slot[0]]:
                slot[1].add(Happened(*columns[:, at[slot[0]]]), _about(slot[0], report))
        now = float(columns[0].max())
        for slot in self._slots:
            if slot is not None:
                slot[1].advance(now, _about(slot[0], report))
        if self._seen >= STRETCH:
            self._choose()

    def advance(self, now: float, report: Report) -> None:
        """It is `now` for the subject, whether or not events came."""
        for slot in self._slots:
            if slot is not None:
                slot[1].advance(now, _about(slot[0], report))

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        if not self._changed:
            return {}
        self._changed = False
        names = [None if slot is None else slot[0] for slot in self._slots]
        state = {"names": names, "counts": dict(self._counts.most_common(4 * SLOTS)), "seen": self._seen}
        pages: dict[str, Page] = {_LIST: {"json": np.frombuffer(json.dumps(state).encode(), np.uint8).copy()}}
        for k, slot in enumerate(self._slots):
            pages |= {name: {} for name in self._stale[k]}
            self._stale[k] = set()
            fresh = {} if slot is None else {f"{_PREFIX}{k}.{name}": page for name, page in slot[1].dirty().items()}
            pages |= fresh
            self._written[k] |= fresh.keys()
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the pages of an equal one; others are left alone. StateError when they do not fit."""
        if _LIST not in pages:
            return
        try:
            state = json.loads(pages[_LIST]["json"].astype(np.uint8).tobytes())
        except (KeyError, ValueError) as error:
            raise StateError(f"the list of busy clients cannot be read: {error}") from error
        for k, name in enumerate(state["names"][:SLOTS]):
            if name is None:
                continue
            own = {p.partition(".")[2]: page for p, page in pages.items() if p.startswith(f"{_PREFIX}{k}.") and page}
            traffic = self._traffic(name)
            traffic.restore(own)
            self._slots[k] = (name, traffic)
            self._written[k] = {f"{_PREFIX}{k}.{p}" for p in own}
        self._counts, self._seen = Counter(state["counts"]), int(state["seen"])

    def _choose(self) -> None:
        """Look who was busy in the stretch that ends; who is not any more makes room, unless an alarm is open."""
        busy = [c for c, n in self._counts.most_common(SLOTS) if n >= LEAST_SHARE * self._seen]
        watched = set(self.clients)
        new = [c for c in busy if c not in watched]
        for k, slot in enumerate(self._slots):
            if not new:
                break
            if slot is None or (not self._counts[slot[0]] and not slot[1].latched):
                name = new.pop(0)
                self._slots[k] = (name, self._traffic(name))
                self._stale[k] |= self._written[k]
                self._written[k] = set()
        self._counts.clear()
        self._seen = 0

    def _traffic(self, client: str) -> Traffic:
        return Traffic(SubjectRef(self._type, client), "requests", self._settings)


def is_client_page(name: str) -> bool:
    """Whether a page of a subject is one of its clients'."""
    return name.startswith(_PREFIX)


def _about(client: str, report: Report) -> Report:
    """Findings about a client are told under a cause of their own, and never page."""
    cause = f"traffic:client:{client}"

    def tell(finding: Finding) -> str | None:
        return report(replace(finding, cause=cause, severity="info"))

    return tell
