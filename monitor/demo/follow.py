"""Follows the incidents of a running daemon by reading its database, and tells each as it opens and as it closes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from alerts.incidents import Incident
from alerts.render import in_clear, pseudonyms_in
from monitor.intake.identity import Pseudonyms, load_or_create_key
from monitor.state.errors import StoreError
from monitor.state.store import StateStore, open_store

Say = Callable[[Text], None]
_STYLES = {"info": "cyan", "warning": "yellow", "critical": "bold red"}
_INDENT = " " * 11


@dataclass(slots=True)
class Follower:
    """Reads incidents and counts; `say` gets each line. Before the daemon has made its tables there is nothing."""

    url: str
    group: str
    say: Say
    key: Path | None = None
    """The identity key: with it clients are told by name."""
    incidents: dict[str, Incident] = field(default_factory=dict)
    """All incidents seen, in their last state, by id."""
    _store: StateStore | None = None

    def poll(self) -> None:
        """Tell what has changed since the last call. A database that does not answer is asked again next time."""
        try:
            found = [self._named(i) for i in self._open().incidents()]
        except StoreError:
            return
        for incident in sorted(found, key=lambda i: (i.opened_at, i.id)):
            before = self.incidents.get(incident.id)
            self.incidents[incident.id] = incident
            if before is None:
                self.say(opened(incident))
            if incident.status == "resolved" and (before is None or before.status != "resolved"):
                self.say(closed(incident))

    def counts(self) -> dict[str, Any]:
        """`status` of the daemon; empty when the database does not answer."""
        try:
            return self._open().status()
        except StoreError:
            return {}

    def close(self) -> None:
        """Let go of the database."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _named(self, incident: Incident) -> Incident:
        """The incident with the names of its clients, where the daemon has stored them."""
        wanted = sorted(pseudonyms_in(incident))
        if not wanted or self.key is None:
            return incident
        rows = self._open().identities(wanted)
        reader = Pseudonyms(load_or_create_key(self.key, create=False))
        names = {name: reader.resolve(name, row.ciphertext) for name, row in rows.items()}
        return in_clear(incident, lambda name: names.get(name, name))

    def _open(self) -> StateStore:
        if self._store is None:
            self._store = open_store(self.url, self.group)
        return self._store


def opened(incident: Incident) -> Text:
    """Time, kind, severity, subjects and why."""
    line = _head(incident.opened_at, "opened", incident, incident.severity_max)
    return line.append(f"\n{_INDENT}{incident.why}")


def closed(incident: Incident) -> Text:
    """Time, kind, severity and subjects."""
    at = incident.resolved_at if incident.resolved_at is not None else incident.opened_at
    line = _head(at, "closed", incident, incident.severity)
    return line.append(f" ({incident.resolution})" if incident.resolution else "")


def clock(at: float) -> str:
    """Time of day in UTC."""
    return time.strftime("%H:%M:%SZ", time.gmtime(at))


def _head(at: float, what: str, incident: Incident, severity: str) -> Text:
    subjects = ", ".join(f"{s.type} {s.id}" for s in incident.subjects) or "no subject"
    line = Text(f"{clock(at)}  incident {what}: ").append(severity, _STYLES.get(severity, ""))
    where = f" in {incident.model}" if incident.model else ""
    return line.append(f" {incident.kind}", "bold").append(f"{where}: {subjects}")
