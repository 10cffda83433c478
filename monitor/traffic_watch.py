"""The traffic of topics, models and metric series: which events belong to which subject, and its state pages.

Subjects are `access:<topic>`, `series:<name>`, and each watched model for its predictions. Time goes on for a subject
with its own events; while none come it goes on with the ticks, so that silence is heard in a live stream, and a
backlog or an old file is not taken for silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from alerts.incidents import Incident, Sighting
from detectors.base import Finding, Page, StateError, SubjectRef
from detectors.traffic.subject import NAME, STATE_VERSION, Role, Traffic, TrafficSettings
from detectors.traffic.windows import Happened
from monitor.client_traffic import ClientTraffic, is_client_page
from monitor.intake.events import Event
from monitor.state.unit import StatePage

DETECTOR = f"watch.{NAME}"
"""Under this name pages are stored, also those of a model: its panel leaves them alone."""
CUT = 1_024
_ERROR = 400
_NAN = math.nan


@dataclass(slots=True)
class TrafficWatch:
    """One subject: events waiting for the next cut, and its windows, channels and account."""

    subject: str
    model: str | None
    tenant: str
    traffic: Traffic
    watermark: float = 0.0
    heard_at: float | None = None
    """The tick at which the newest event was there; None from a restart to its first tick."""
    clients: ClientTraffic | None = None
    """Its busiest clients; None for a metric."""
    columns: tuple[list[float], list[float], list[float], list[float]] = field(default_factory=lambda: ([], [], [], []))
    """Of the events in the queue: time, error, latency and value."""
    senders: list[str | None] = field(default_factory=list)
    """Client of each event in the queue."""
    heard: bool = False

    @property
    def queued(self) -> int:
        """Events that wait."""
        return len(self.senders)

    def take(self, columns: Sequence[Iterable[float]], clients: Iterable[str | None]) -> None:
        """Queue events: times, errors, latencies, values, and who sent them."""
        for queue, column in zip(self.columns, columns, strict=True):
            queue += column
        self.senders += clients

    def cut(self, report: Callable[[Finding], str | None]) -> None:
        """Judge what waits."""
        if self.senders:
            happened = np.array(self.columns, np.float64)
            senders, self.senders, self.columns = self.senders, [], ([], [], [], [])
            self.watermark = max(self.watermark, float(happened[0].max()))
            self.heard = True
            self.traffic.add(Happened(*happened), report)
            if self.clients is not None:
                self.clients.add(senders, happened, report)

    def advance(self, at: float, report: Callable[[Finding], str | None]) -> None:
        """A tick at `at`."""
        if self.heard or self.heard_at is None:
            self.heard_at, self.heard = max(at, self.watermark), False
        elif at > self.heard_at:
            now = self.watermark + at - self.heard_at
            self.traffic.advance(now, report)
            if self.clients is not None:
                self.clients.advance(now, report)


class TrafficDesk:
    """All traffic subjects of a pipeline. `apply` takes a sighting and answers the incident it opened or fed."""

    def __init__(
        self, apply: Callable[[Sighting], Incident | None], settings: TrafficSettings | None, max_series: int
    ) -> None:
        self._apply = apply
        self._settings = settings
        self._max_series = max_series
        self._watches: dict[str, TrafficWatch] = {}
        self.listening = True
        """False while the source cannot be read: time stands still for subjects that are not heard."""
        self._ticked: float | None = None
        self.refused = 0
        """Samples of series beyond the limit."""

    @property
    def watermark(self) -> float:
        """The newest event time of all subjects, in epoch seconds."""
        return max((w.watermark for w in self._watches.values()), default=0.0)

    def access(self, event: Event, topic: str) -> None:
        """An access event of a topic."""
        if self._settings is not None:
            self._take(self._watch(f"access:{topic}", self._settings), event)

    def metric(self, event: Event) -> None:
        """A sample of a series; a series beyond the limit is counted only."""
        if self._settings is None:
            return
        subject = f"series:{event.series}"
        if subject not in self._watches and len(self._watches) >= self._max_series:
            self.refused += 1
            return
        self._take(self._watch(subject, self._settings), event)

    def predictions(self, events: Sequence[Event], subject: str, settings: TrafficSettings | None) -> None:
        """Consecutive predictions of a watched model."""
        if settings is None:
            return
        watch = self._watch(subject, settings)
        unknown = [_NAN] * len(events)
        latency = [_NAN if e.latency_ms is None else e.latency_ms for e in events]
        watch.take(([e.time for e in events], unknown, latency, unknown), [e.client for e in events])
        if watch.queued >= CUT:
            watch.cut(self._report(watch))

    def tick(self, at: float) -> None:
        """Judge all that waits, and let time pass."""
        deaf = 0.0 if self.listening or self._ticked is None else max(at - self._ticked, 0.0)
        self._ticked = at
        for watch in self._watches.values():
            report = self._report(watch)
            watch.cut(report)
            if watch.heard_at is not None:
                watch.heard_at += deaf
            watch.advance(at, report)

    def dirty(self) -> list[StatePage]:
        """Pages changed since the last call. Only after a tick: queued events are in no page."""
        made = []
        for watch in self._watches.values():
            pages = watch.traffic.dirty()
            if watch.clients is not None:
                pages |= watch.clients.dirty()
            if pages:
                pages["time"] = {"watermark": np.array([watch.watermark])}
            made += [StatePage(watch.subject, DETECTOR, "", n, STATE_VERSION, p) for n, p in pages.items()]
        return made

    def restore(self, subject: str, stored: Iterable[StatePage], settings: TrafficSettings | None) -> str | None:
        """Take the pages of a subject. Why it starts anew, where it does."""
        pages: dict[str, Page] = {p.page: p.arrays for p in stored if p.detector == DETECTOR}
        found = settings if subject.startswith("model:") else self._settings
        if not pages or found is None:
            return None
        wrong = [p.version for p in stored if p.detector == DETECTOR and p.version != STATE_VERSION]
        watch = self._watch(subject, found)
        try:
            if wrong:
                raise StateError(f"stored traffic has version {wrong[0]}, this build reads version {STATE_VERSION}")
            watch.watermark = float(pages.pop("time")["watermark"][0])
            watch.traffic.restore({name: page for name, page in pages.items() if not is_client_page(name)})
            if watch.clients is not None:
                watch.clients.restore(pages)
        except (StateError, KeyError) as error:
            del self._watches[subject]
            return str(error)
        return None

    def _watch(self, subject: str, settings: TrafficSettings) -> TrafficWatch:
        watch = self._watches.get(subject)
        if watch is None:
            kind, _, rest = subject.partition(":")
            tenant, _, model = rest.partition("/") if kind == "model" else ("", "", "")
            name = model or rest
            who = SubjectRef({"access": "route", "series": "series"}.get(kind, "model"), name)
            role: Role = "metric" if kind == "series" else "requests"
            traffic = Traffic(who, role, settings)
            who_asks = "principal" if kind == "access" else "client"
            clients = ClientTraffic(settings, who_asks) if role == "requests" else None
            watch = self._watches[subject] = TrafficWatch(
                subject, model.removesuffix("@shadow") or None, tenant, traffic, clients=clients
            )
        return watch

    def _take(self, watch: TrafficWatch, event: Event) -> None:
        error = _NAN if event.status is None else float(event.status >= _ERROR)
        columns = (event.time,), (error,), (_number(event.latency_ms),), (_number(event.value),)
        watch.take(columns, (event.client or event.principal,))
        if watch.queued >= CUT:
            watch.cut(self._report(watch))

    def _report(self, watch: TrafficWatch) -> Callable[[Finding], str | None]:
        def report(finding: Finding) -> str | None:
            trigger = f"{watch.subject}/{finding.time:.3f}"
            incident = self._apply(Sighting(finding, watch.subject, watch.model, watch.tenant, trigger, None))
            return None if incident is None else incident.id

        return report


def is_traffic(subject: str) -> bool:
    """Whether a stored subject is one of traffic alone, and no model."""
    return subject.startswith(("access:", "series:"))


def _number(value: float | None) -> float:
    return _NAN if value is None else float(value)
