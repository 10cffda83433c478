"""`notify: off`: nobody is told, and this says who would have been."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import structlog

from alerts.incidents import Incident
from alerts.policy import Policy, Route
from monitor.config import Config

log = structlog.get_logger(__name__)
ANYBODY = "(no receiver configured)"
"""Stands for the receiver where none is configured yet."""
_DAY = 86_400.0


class Page(NamedTuple):
    """What one page would have been about. `model` is empty for the monitor itself."""

    receiver: str
    kind: str
    model: str


def would_page(config: Config, incident: Incident) -> list[str]:
    """The receivers that would be told of the incident if `notify` were on; none while it is on."""
    if config.notify or incident.status == "silenced":
        return []
    policy = Policy(tuple(Route(r.targets, r.severity, r.kinds, r.models) for r in config.routes))
    names = list(config.receivers) or [ANYBODY]
    return [name for name in names if policy.sends(name, incident, incident.severity_max)]


def report(config: Config, incidents: Iterable[Incident], now: float) -> dict[str, Any] | None:
    """What `status` shows: pages that the stored incidents would have been, in all and opened within a day.

    None while `notify` is on.
    """
    if config.notify:
        return None
    total: Counter[Page] = Counter()
    lately: Counter[Page] = Counter()
    for incident in incidents:
        pages = [Page(name, incident.kind, incident.model or "") for name in would_page(config, incident)]
        total.update(pages)
        lately.update(pages if now - incident.opened_at < _DAY else ())
    rows = [{**p._asdict(), "pages": n, "last_day": lately[p]} for p, n in sorted(total.items())]
    return {"notify": "off", "pages": total.total(), "would_page": rows}


class DryRun:
    """Counts pages that are not sent, and logs them every day and at the end. One thread uses it."""

    def __init__(self, config: Config, now: float) -> None:
        self.config = config
        self._since = now
        self._pages: Counter[Page] = Counter()
        self._known: set[tuple[str, str]] = set()
        """(receiver, incident) already counted."""

    def known(self, incidents: Iterable[Incident]) -> None:
        """These incidents are of before: they count only for receivers that they had not reached."""
        self._known.update((name, i.id) for i in incidents for name in would_page(self.config, i))

    def note(self, incidents: Iterable[Incident], now: float) -> None:
        """Incidents have changed. Says once a day what would have been sent."""
        for incident in incidents:
            for name in would_page(self.config, incident):
                if (name, incident.id) not in self._known:
                    self._known.add((name, incident.id))
                    self._pages[Page(name, incident.kind, incident.model or "")] += 1
        if now - self._since >= _DAY:
            self.tell(now)

    def tell(self, now: float) -> None:
        """Log what would have been sent since the last time; nothing while `notify` is on."""
        hours = round((now - self._since) / 3_600, 1)
        told, self._pages, self._since = self._pages, Counter(), now
        if self.config.notify:
            return
        pages = [f"{n} × {p.receiver}: {p.kind}{f' of {p.model}' if p.model else ''}" for p, n in sorted(told.items())]
        log.info("notify is off: would have paged", pages=told.total(), hours=hours, would_page=pages)
