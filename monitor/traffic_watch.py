"""The traffic of topics, models and metric series: which events belong to which subject, and its state pages.

Subjects are `access:<topic>`, `series:<name>`, and each watched model for its predictions; accesses whose resource
names a model go to `access:<topic>/<tenant>/<model>` as well. What these find is an incident of the model, one with
what its predictions show. Time goes on for a subject with its own events; while none come it goes on with the ticks, so
that silence is heard in a live stream, and a backlog or an old file is not taken for silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from alerts.incidents import Incident, Sighting
from detectors.base import JOINS, Finding, Page, StateError, SubjectRef
from detectors.traffic.subject import NAME, STATE_VERSION, Role, Traffic, TrafficSettings
from detectors.traffic.windows import Happened
from monitor.client_traffic import ClientTraffic, is_client_page
from monitor.intake.events import Event
from monitor.intake.resources import model_in
from monitor.state.unit import StatePage

DETECTOR = f"watch.{NAME}"
"""Under this name pages are stored, also those of a model: its panel leaves them alone."""
CUT = 1_024
_ERROR = 400
_SAME_CAUSE = 6 * 3_600.0
"""Seconds between two findings of one kind, about a model and its topic, within which the latter is no news."""
_NAN = math.nan
_KINDS = ("traffic_anomaly", "error_burst", "latency_anomaly")
"""Kinds of incident whose last time is stored, in this order."""


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
    topic: str | None = None
    """The access topic of a model's accesses."""
    alarmed: dict[str, float] = field(default_factory=dict)
    """Of a model's accesses: when they last showed each kind of incident (event time)."""

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

    def time_page(self) -> Page:
        """How far time has come, and when which kind of incident was shown."""
        alarmed = np.array([self.alarmed.get(kind, math.nan) for kind in _KINDS])
        return {"watermark": np.array([self.watermark]), "alarmed": alarmed}

    def restore_time(self, page: Page) -> None:
        """Take what `time_page` gave."""
        self.watermark = float(page["watermark"][0])
        times = zip(_KINDS, page["alarmed"].tolist(), strict=True) if "alarmed" in page else ()
        self.alarmed = {kind: at for kind, at in times if not math.isnan(at)}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a desk asks of the pipeline."""

    apply: Callable[[Sighting], Incident | None]
    """Takes a sighting; answers the incident it opened or fed."""
    is_watched: Callable[[str, str], bool]
    """Whether a model, by name and tenant, is watched."""
    model_settings: Callable[[str, str], TrafficSettings | None]


class TrafficDesk:
    """All traffic subjects of a pipeline."""

    def __init__(
        self, around: Surroundings, settings: TrafficSettings | None, max_series: int, max_models: int
    ) -> None:
        self._around = around
        self._settings = settings
        self._max_series = max_series
        self._max_models = max_models
        """Models that are watched in access topics, of those that only these name."""
        self._of_topic: dict[str, dict[tuple[str, str], TrafficWatch]] = {}
        """By topic, tenant and model: the watches of models' accesses."""
        self._watches: dict[str, TrafficWatch] = {}
        self._ticked: float | None = None
        self.refused = 0
        """Samples of series beyond the limit."""

    @property
    def watermark(self) -> float:
        """The newest event time of all subjects, in epoch seconds."""
        return max((w.watermark for w in self._watches.values()), default=0.0)

    def access(self, event: Event, topic: str) -> None:
        """An access event of a topic."""
        if self._settings is None:
            return
        of_model = self._model_watch(event, topic)
        if of_model is not None:
            self._take(of_model, event)
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

    def tick(self, at: float, listening: bool = True) -> None:
        """Judge all that waits, and let time pass. It stands still for subjects that are not heard while the source
        cannot be read (not `listening`)."""
        deaf = 0.0 if listening or self._ticked is None else max(at - self._ticked, 0.0)
        self._ticked = at
        for watch in sorted(self._watches.values(), key=lambda w: w.topic is None):  # models before their topic
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
                pages["time"] = watch.time_page()
            made += [StatePage(watch.subject, DETECTOR, "", n, STATE_VERSION, p) for n, p in pages.items()]
        return made

    def restore(self, subject: str, stored: Iterable[StatePage], settings: TrafficSettings | None) -> str | None:
        """Take the pages of a subject. Why it starts anew, where it does."""
        pages: dict[str, Page] = {p.page: p.arrays for p in stored if p.detector == DETECTOR}
        found = settings if subject.startswith("model:") else self._settings_of(subject)
        if not pages or found is None:
            return None
        wrong = [p.version for p in stored if p.detector == DETECTOR and p.version != STATE_VERSION]
        watch = self._watch(subject, found)
        try:
            if wrong:
                raise StateError(f"stored traffic has version {wrong[0]}, this build reads version {STATE_VERSION}")
            watch.restore_time(pages.pop("time"))
            watch.traffic.restore({name: page for name, page in pages.items() if not is_client_page(name)})
            if watch.clients is not None:
                watch.clients.restore(pages)
        except Exception as error:  # whatever a page holds: the daemon goes on
            self._forget(subject)
            return str(error) if isinstance(error, StateError) else f"it cannot be read ({type(error).__name__})"
        return None

    def _model_watch(self, event: Event, topic: str) -> TrafficWatch | None:
        """The watch of the model that an access names. A name that nothing else knows counts from the first access on
        that succeeds: who tries out names must not make watches."""
        named = model_in(event.resource or "")
        if named is None:
            return None
        known = self._of_topic.setdefault(topic, {})
        watch = known.get((event.tenant, named.model))
        if watch is None:
            succeeds = named.certain and event.status is not None and event.status < _ERROR
            others = sum(map(len, self._of_topic.values()))
            if not self._around.is_watched(named.model, event.tenant) and (not succeeds or others >= self._max_models):
                return None
            subject = f"access:{topic}/{event.tenant}/{named.model}"
            settings = self._settings_of(subject)
            if settings is None:
                return None
            watch = self._watch(subject, settings)
        return watch

    def _settings_of(self, subject: str) -> TrafficSettings | None:
        """The settings of an access or a series subject."""
        place = _place(subject)
        if self._settings is None or place is None:
            return self._settings
        return self._around.model_settings(place[2], place[1])

    def _watch(self, subject: str, settings: TrafficSettings) -> TrafficWatch:
        watch = self._watches.get(subject)
        if watch is None:
            watch = self._watches[subject] = _new_watch(subject, settings)
            place = _place(subject)
            if place is not None:
                self._of_topic.setdefault(place[0], {})[place[1], place[2]] = watch
        return watch

    def _forget(self, subject: str) -> None:
        del self._watches[subject]
        place = _place(subject)
        if place is not None:
            del self._of_topic[place[0]][place[1], place[2]]

    def _take(self, watch: TrafficWatch, event: Event) -> None:
        error = _NAN if event.status is None else float(event.status >= _ERROR)
        columns = (event.time,), (error,), (_number(event.latency_ms),), (_number(event.value),)
        watch.take(columns, (event.client or event.principal,))
        if watch.queued >= CUT:
            for of_model in self._of_topic.get(watch.subject.removeprefix("access:"), {}).values():
                of_model.cut(self._report(of_model))
            watch.cut(self._report(watch))

    def _report(self, watch: TrafficWatch) -> Callable[[Finding], str | None]:
        def report(finding: Finding) -> str | None:
            trigger = f"{watch.subject}/{finding.time:.3f}"
            found, subject = self._related(finding, watch)
            incident = self._around.apply(Sighting(found, subject, watch.model, watch.tenant, trigger, None))
            return None if incident is None else incident.id

        return report

    def _related(self, finding: Finding, watch: TrafficWatch) -> tuple[Finding, str]:
        """A finding as it belongs with others about the same model, and the subject whose incident it is of."""
        opens = finding.action == "open" and finding.account == "traffic" and not finding.cause
        if watch.topic is not None:
            if opens:
                watch.alarmed[finding.kind] = finding.time
            # A cause of its own: what the accesses show may be over before what the predictions show, or after.
            others = ("traffic", *(f"access:{topic}" for topic in self._of_topic))
            detail = {**finding.detail, JOINS: "\n".join(others)} if opens else finding.detail
            subject, cause = told_under(watch.subject)
            return replace(finding, cause=cause, position=0, detail=detail), subject
        if opens and watch.subject.startswith("model:") and self._of_topic:
            names = "\n".join(f"access:{topic}" for topic in self._of_topic)
            return replace(finding, detail={**finding.detail, JOINS: names}), watch.subject
        if opens and self._is_told(finding, watch):
            return replace(finding, severity="info"), watch.subject
        return finding, watch.subject

    def _is_told(self, finding: Finding, watch: TrafficWatch) -> bool:
        """Whether a model of the topic has shown already what is found in the accesses of all."""
        of_topic = self._of_topic.get(watch.subject.removeprefix("access:"), {}).values()
        return any(abs(finding.time - w.alarmed.get(finding.kind, -math.inf)) <= _SAME_CAUSE for w in of_topic)


def _new_watch(subject: str, settings: TrafficSettings) -> TrafficWatch:
    kind, _, rest = subject.partition(":")
    topic, tenant, model = _place(subject) or (None, "", "")
    if kind == "model":
        tenant, _, model = rest.partition("/")
    type_of = "model" if model else "series" if kind == "series" else "route"
    who = SubjectRef(type_of, model or rest)
    role: Role = "metric" if kind == "series" else "requests"
    clients = ClientTraffic(settings, "principal" if kind == "access" else "client")
    return TrafficWatch(
        subject, model.removesuffix("@shadow") or None, tenant, Traffic(who, role, settings),
        clients=clients if role == "requests" and topic is None else None, topic=topic,
    )  # fmt: skip


def _place(subject: str) -> tuple[str, str, str] | None:
    """Topic, tenant and model of `access:<topic>/<tenant>/<model>`; None of other subjects. No topic has a slash."""
    kind, _, rest = subject.partition(":")
    if kind != "access" or "/" not in rest:
        return None
    topic, tenant, model = rest.split("/", 2)
    return topic, tenant, model


def is_traffic(subject: str) -> bool:
    """Whether a stored subject is one of traffic alone, and no model."""
    return subject.startswith(("access:", "series:"))


def told_under(subject: str) -> tuple[str, str]:
    """The subject whose incidents tell of a traffic subject, and the cause it keeps them open by; "" where it is its
    own, and every incident of it."""
    place = _place(subject)
    return (subject, "") if place is None else (f"model:{place[1]}/{place[2]}", f"access:{place[0]}")


def _number(value: float | None) -> float:
    return _NAN if value is None else float(value)
