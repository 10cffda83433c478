"""The way of an event: records in, detectors run, and everything that changed out as one commit.

The pipeline knows no broker, no database and no clock. It is fed records of one partition at a time (`feed`) and
ticks (`tick`); both are written down in order, and fed again in that order they make byte-equal findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from alerts.incidents import Incident, IncidentBook, Sighting
from detectors.base import Finding, Rows
from detectors.traffic.subject import DEFAULT, TrafficSettings
from detectors.traffic.subject import NAME as TRAFFIC
from monitor import troubles
from monitor.client_budget import DEFAULT as CLIENT_STATE
from monitor.client_budget import ClientBudget
from monitor.commands import References, apply_command
from monitor.failpoints import failpoint
from monitor.intake.events import DeadLetter, Event, EventType, Record
from monitor.intake.pairing import DETECTOR as PAIRING
from monitor.intake.pairing import SUBJECT, Pairing, split_stored
from monitor.intake.reader import Intake, RecordReader
from monitor.intake.sources.base import Loss
from monitor.keyed import KeyedTopics
from monitor.lineup import SHADOW
from monitor.metrics import Metrics
from monitor.model_metrics import ModelMetrics
from monitor.outgoing import OutboxWriter, no_messages, tell_changes
from monitor.own_health import OwnHealth
from monitor.references import FOR_NEW_VERSION, reference_row
from monitor.sensing import sense
from monitor.state.commands import Command
from monitor.state.unit import (
    AuditRow,
    CommitUnit,
    ObsoletePages,
    PartitionCounts,
    Position,
    ReferenceRow,
    Sampled,
    Slice,
    StatePage,
    SubjectRow,
    Tick,
)
from monitor.traffic_watch import DETECTOR as TRAFFIC_PAGES
from monitor.traffic_watch import Surroundings, TrafficDesk, told_under
from monitor.unwatched import Unwatched
from monitor.watch import ANOTHER_REFERENCE, Watch, WatchSettings

log = structlog.get_logger(__name__)
_PREDICTION, _LABEL, _ACCESS, _METRIC = EventType  # constants: an attribute of an Enum is slow to look up


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """What the pipeline needs to know before the first record."""

    intakes: Mapping[str, Intake]
    watch: Callable[[str, str], WatchSettings]
    """Settings of a model by name and tenant."""
    listed: frozenset[str] = frozenset()
    """Models the configuration names: watched whatever `max_models` says."""
    max_models: int = 200
    digest_key: bytes = b"modelwarden"
    max_dead_letters: int = 1_000
    """Kept of one commit; the rest are counted only, or a flood of bad records would fill the database."""
    outbox: OutboxWriter = no_messages
    """Messages that tell receivers of a changed incident, stored with it."""
    traffic: TrafficSettings | None = DEFAULT
    """Of access topics and metric series; None: they are counted only."""
    max_series: int = 5_000
    client_state: int = CLIENT_STATE
    """Bytes that the clients of all models may take."""
    keyed: frozenset[str] = frozenset()
    """Topics of which all records of a model should be in one partition."""
    introduce: Callable[[Watch], None] = lambda watch: None
    """Told of each new model before its first event; may give it a reference."""


@dataclass(slots=True)
class _Partition:
    """Where a partition stood at the last commit and stands now."""

    committed: int
    next: int
    counts: PartitionCounts
    counted: PartitionCounts
    """The counts of the last commit."""


class Pipeline:
    """Detector state of all models. One thread owns it; nothing here blocks."""

    def __init__(self, settings: PipelineSettings, metrics: Metrics, open_incidents: Iterable[Incident] = ()) -> None:
        self.settings = settings
        self.metrics = metrics
        self.book = IncidentBook(open_incidents)
        self.watches: dict[str, Watch] = {}
        self._watched: dict[tuple[str, str, bool], Watch] = {}
        """The same by model, tenant and whether it is a shadow: no text is made for an event."""
        self._unlisted: set[tuple[str, str]] = set()
        """Tenant and name of the watched models that nobody listed; a model and its shadow are one."""
        self.partitions: dict[tuple[str, int], _Partition] = {}
        self.urgent = False
        """Something to tell: the next tick should be followed by a commit."""
        self.cluster_id = ""
        self._unit = CommitUnit(at=0.0)
        self._now = 0.0
        self._model_metrics = ModelMetrics(metrics)
        self._clients = ClientBudget(settings.client_state)
        self.unwatched = Unwatched()
        self._keyed = KeyedTopics(settings.keyed)
        joined = {i.pairing.name: i.pairing for i in settings.intakes.values() if i.pairing is not None}
        self.pairings = {name: Pairing(rules, metrics, self._names) for name, rules in sorted(joined.items())}
        self._reader = RecordReader(self.pairings, settings.digest_key)
        around = Surroundings(self._apply, self._is_watched, self._traffic_of)
        self.traffic = TrafficDesk(around, settings.traffic, settings.max_series, settings.max_models)
        self.health = OwnHealth(self._apply, self.book.open())

    # --- input ---------------------------------------------------------------------------------------------------

    def own(self, topic: str, partition: int, position: int, counts: PartitionCounts | None = None) -> None:
        """Begin a partition at `position`, with its counts so far."""
        known = counts or PartitionCounts()
        self.partitions[topic, partition] = _Partition(position, position, known, known)

    def feed(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Take records of one partition. Offsets below the expected one are dropped, gaps are counted."""
        place = self.partitions[topic, partition]
        begin = expected = place.next
        fresh = []
        for record in records:
            if record.offset >= expected:
                fresh.append(record)
                expected = record.offset + 1
        if not fresh:
            return
        rejected = rows_rejected = corrected = unknown = 0
        intake, keyed = self.settings.intakes[topic], topic in self._keyed
        for record in fresh:
            events, bad, origin = self._reader.read(intake, record)
            if keyed:
                self._check_place(topic, partition, events)
            if bad:
                whole = self._keep(topic, bad)
                rejected += whole
                rows_rejected += 0 if whole else len(bad)
            for event in events:
                if event.time_corrected or event.unknown_fields:
                    corrected += event.time_corrected
                    unknown += event.unknown_fields
                self._route(event, (*origin, event.row))
        gap = fresh[-1].offset + 1 - begin - len(fresh)
        self._count(topic, place, len(fresh), rejected, rows_rejected, corrected, unknown, gap)
        place.next = fresh[-1].offset + 1
        self._trail(Slice(topic, partition, begin, place.next))
        failpoint("after_feed")

    def lose(self, loss: Loss, at: float) -> None:
        """Records are gone from the log: count them, say so, and go on where the source goes on."""
        place = self.partitions[loss.topic, loss.partition]
        place.counts = place.counts._replace(gap=place.counts.gap + loss.lost)
        place.next = loss.followed
        self.metrics.lost.labels(loss.topic).inc(loss.lost)
        self.health.hear(troubles.records_lost(loss, place.counts.gap, at), at)

    def stopped(self, reason: str, at: float) -> None:
        """Say that reading cannot go on until somebody mends something."""
        self.health.hear(troubles.source_stopped(reason, at), at)

    def task_trouble(self, task: str, reason: str, failures: int, at: float) -> None:
        """A recurring task of the daemon keeps failing (`failures` in a row), or (none) works again."""
        if failures:
            self.health.hear(troubles.task_failing(task, reason, failures, at), at)
        else:
            self.health.over(troubles.task_cause(task), at)

    def sample(self, subject: str, one_in: int) -> None:
        """Give statistical detectors one prediction in `one_in` of this model from the next cut on, and say so."""
        self.watch_of(subject).sample(one_in)
        self._unit.trail.append(Sampled(subject, one_in))
        self.urgent = True
        if one_in > 1:
            self.health.hear(troubles.sampling(subject, one_in, self._now), self._now)
        else:
            self.health.over(troubles.sampling_cause(subject), self._now)

    def note(self, act: AuditRow) -> None:
        """Write an act into the audit log with the next commit."""
        self._unit.audit.append(act)
        self.urgent = True

    def tick(self, at: float, listening: bool = True) -> None:
        """Let time pass: every queued event is judged, and detectors hear the watermark.

        `listening`: whether the source could be read since the last tick.
        """
        self._now = at
        for pairing in self.pairings.values():
            pairing.tick(at)
        for watch in list(self.watches.values()):
            self._cut(watch)
            watch.advance(self._report)
            self._watch_health(watch)
        sense(self.watches.values())
        self.traffic.tick(at, listening)
        self.health.fade(at)
        if self.book.end_silences(at):
            self.urgent = True
        self._model_metrics.show(self.watches)
        self._model_metrics.show_clients(self._clients.keep(self.watches.values()), self._clients.limit, self.watches)
        self._unit.trail.append(Tick(at, listening))
        failpoint("after_tick")

    # --- output --------------------------------------------------------------------------------------------------

    def take_unit(self, at: float) -> CommitUnit:
        """Everything since the last call, for one transaction. Call after `tick`; keep the unit until it is stored."""
        unit, self._unit = self._unit, CommitUnit(at=at)
        unit.at, unit.cluster_id = at, self.cluster_id
        for (topic, partition), place in self.partitions.items():
            if place.next != place.committed or place.counts != place.counted:
                unit.positions.append(Position(topic, partition, place.committed, place.next, place.counts))
                place.committed, place.counted = place.next, place.counts
        for pairing in self.pairings.values():
            unit.pages += pairing.dirty()
        for watch in self.watches.values():
            pages = watch.dirty()
            unit.pages += pages
            if pages:
                unit.subjects.append(watch.row())
            unit.references += _learnt(watch, at)
        unit.pages += self.traffic.dirty()
        unit.subjects += self.unwatched.take_changes()
        tell_changes(self.book, unit, self.settings.outbox)
        self.urgent = False
        return unit

    @property
    def pending(self) -> int:
        """Records consumed since the last commit."""
        return sum(
            abs(p.counts.received - p.counted.received) + p.counts.gap - p.counted.gap for p in self.partitions.values()
        )

    @property
    def trail_length(self) -> int:
        """Slices and ticks since the last commit: time alone makes state that wants to be stored."""
        return len(self._unit.trail)

    def positions(self) -> dict[tuple[str, int], int]:
        """The next offset of every partition."""
        return {key: place.next for key, place in self.partitions.items()}

    # --- state ---------------------------------------------------------------------------------------------------

    def begin(self, at: float) -> None:
        """A session begins at this time."""
        self._now = at
        self.health.begin(at)

    def restore(
        self, watch: Watch, pages: Iterable[StatePage], counted: SubjectRow | None, damaged: Mapping[str, str]
    ) -> None:
        """Take the stored state of one model, which has its reference already.

        A detector that cannot take its state starts anew: its open incidents are closed, because nothing would close
        them any more, and an incident (info) says so. `damaged` names detectors whose pages could not be read.
        """
        stored = list(pages)
        restored = watch.restore(stored, counted)
        self._model_metrics.begin(watch)
        held = troubles.held_cause(watch.subject)
        if watch.held is None:
            self.health.over(held, self._now)
        elif not self.health.touch(held, self._now):  # somebody resolved it while no daemon ran
            watch.release()
        self._unit.obsolete += [ObsoletePages(watch.subject, name, hash_) for name, hash_ in restored.obsolete]
        anew = dict.fromkeys(restored.anew, ANOTHER_REFERENCE) if watch.content_changed else restored.anew
        self._start_anew(watch.subject, dict(damaged) | anew)
        self.restore_traffic(watch.subject, stored, watch.settings.traffic)

    def restore_traffic(
        self, subject: str, pages: Iterable[StatePage], settings: TrafficSettings | None, damaged: str | None = None
    ) -> None:
        """Take the stored traffic of a subject. Where that cannot be, for example because a page is `damaged`, the
        subject starts anew and its pages are deleted."""
        reason = damaged or self.traffic.restore(subject, list(pages), settings)
        if reason is not None:
            self._unit.obsolete.append(ObsoletePages(subject, TRAFFIC_PAGES, ""))
            self._start_anew(subject, {TRAFFIC: reason})

    def _start_anew(self, subject: str, reasons: Mapping[str, str]) -> None:
        """Detectors start anew, by name and reason: say so once for each reason, and close what they had found."""
        for reason in dict.fromkeys(reasons.values()):
            names = [name for name in reasons if reasons[name] == reason]
            self.health.hear(troubles.starts_anew(subject, names, reason, self._now), self._now)
        about, cause = told_under(subject)
        for name, reason in reasons.items():
            log.warning("detector starts anew", detector=name, subject=subject, reason=reason)
            for incident in self.book.open():
                if incident.subject != about or (cause and cause not in incident.held_by):
                    continue
                if name in incident.detectors or name == f"account.{incident.account}":
                    self.book.resolve(incident.id, self._now, f"{name} starts anew: {reason}"[:400])
                    self.urgent = True

    def restore_pairings(self, pages: Iterable[StatePage], damaged: Mapping[str, str]) -> list[StatePage]:
        """Take the stored halves of pairings; the pages of everything else are returned.

        Halves that cannot be read are lost: an incident (info) says so. `damaged` has the reasons by subject. Pages
        that this build does not read, and those of a pairing that is not configured any more, are deleted.
        """
        own, others = split_stored(pages)
        stored = {SUBJECT + name for name in own} | {subject for subject in damaged if subject.startswith(SUBJECT)}
        gone = stored - {pairing.subject for pairing in self.pairings.values()}
        for name, pairing in self.pairings.items():
            reason = damaged.get(pairing.subject)
            try:
                pairing.restore(own.get(name, ()))
            except Exception as error:  # whatever a page holds: the daemon goes on
                reason = str(error) if type(error) is ValueError else f"cannot be read ({type(error).__name__})"
                gone.add(pairing.subject)
                self.pairings[name] = Pairing(pairing.rules, self.metrics, self._names)
            if reason is not None:
                log.warning("stored requests and responses not read", pairing=name, reason=reason)
                self.health.hear(troubles.pairing_starts_anew(pairing.subject, self._now), self._now)
        self._unit.obsolete += [ObsoletePages(subject, PAIRING, "") for subject in sorted(gone)]
        return others

    def mended(self) -> None:
        """All is loaded: conditions of earlier starts that are gone are closed."""
        self.health.mended(self._now)

    def listed_watch(self, model: str, tenant: str) -> Watch:
        """The watch of a model that the configuration lists: made whatever the limits say."""
        return self.watch_of(f"model:{tenant}/{model}")

    def add_reference(self, row: ReferenceRow) -> None:
        """Store a version of a reference in the next commit."""
        self._unit.references.append(row)
        approved = row.approved_by or "nobody yet"
        self._unit.audit.append(
            AuditRow(row.created_at, approved, "reference.register", row.subject, {"content": row.content_hash})
        )
        self.urgent = True

    def reference_waits(self, watch: Watch, path: str, at: float) -> None:
        """Say that the configured reference has changed and waits for approval."""
        self.health.hear(troubles.reference_waits(watch.subject, path, at), at)

    def reference_unusable(self, watch: Watch, reason: str, at: float) -> None:
        """Say that a reference cannot be used. Without another one the model is off."""
        self.health.hear(troubles.reference_unusable(watch.subject, reason, at), at)
        if watch.panel is None:
            watch.off = reason

    def apply_command(self, command: Command, references: References) -> None:
        """Apply an operator's command, with its audit row, in the next commit."""
        if command.id in {result.id for result in self._unit.commands}:
            return
        apply_command(self.book, references, command, self._now).add_to(self._unit)
        self.health.resolved(self.book)
        for watch in self.watches.values():
            if watch.held is not None and not self.health.touch(troubles.held_cause(watch.subject), self._now):
                watch.release()
        self.urgent = True

    # --- inside --------------------------------------------------------------------------------------------------

    def _keep(self, topic: str, letters: Sequence[DeadLetter]) -> bool:
        """Count the dead letters of a record, and keep them up to a bound. True when the whole record is refused."""
        room = max(0, self.settings.max_dead_letters - len(self._unit.dead_letters))
        self._unit.dead_letters += letters[:room]
        self.metrics.dead_letters_dropped.inc(max(0, len(letters) - room))
        for letter in letters:
            counter = self.metrics.rejected if letter.row < 0 else self.metrics.rows_rejected
            counter.labels(topic, letter.reason.value).inc()
        return any(letter.row < 0 for letter in letters)

    def _check_place(self, topic: str, partition: int, events: Sequence[Event]) -> None:
        """Say of models in several partitions of a topic that is keyed by model that they are."""
        for split in self._keyed.see(topic, partition, events):
            if not self.health.touch(troubles.split_cause(split), self._now):
                self.health.hear(troubles.model_split(split, self._now), self._now)

    def _route(self, event: Event, place: tuple[str, int, int, int]) -> None:
        if not self._now:
            self._now = event.time
        kind = event.type
        if kind is _PREDICTION or kind is _LABEL:
            watch = self._watch(event.model or "", event.tenant, event.shadow)
            if watch is None:
                self.metrics.unwatched.inc()
                self.unwatched.count(f"model:{event.tenant}/{event.model}", event)
            elif kind is _LABEL:
                if watch.add_label(event, place):
                    self._cut(watch)
                    self._watch_health(watch)
            elif watch.add_prediction(event, place):
                self._cut(watch)
                self._watch_health(watch)
        elif kind is _ACCESS:
            access = self._unit.access_events
            access[place[0]] = access.get(place[0], 0) + 1
            self.traffic.access(event, place[0])
        else:
            self.traffic.metric(event)

    def _cut(self, watch: Watch) -> None:
        """Judge the queued events of a model, and count them as its traffic."""
        predictions = watch.queued
        watch.cut(self._report)
        if watch.rolled is not None:
            self._rolled(watch, watch.rolled)
        if predictions:
            self.traffic.predictions(predictions, watch.subject, watch.settings.traffic)

    def _rolled(self, watch: Watch, version: str) -> None:
        """A new version answers, and is learnt afresh or held, as the configuration has it: say so."""
        watch.rolled = None
        self.urgent = True
        held = watch.held is not None
        log.warning("a new version answers", model=watch.model, version=version, held=held)
        act = "version.held" if held else "version.fresh"
        self._unit.audit.append(AuditRow(self._now, "configuration", act, watch.subject, {"version": version}))
        trouble = troubles.version_held if held else troubles.version_learnt_afresh
        self.health.hear(trouble(watch.subject, version, self._now), self._now)
        if not held:
            for incident in self.book.open():
                if incident.subject == watch.subject and incident.account != "traffic":
                    self.book.resolve(incident.id, self._now, f"version {version} is learnt afresh"[:400])

    def _names(self, model: str, tenant: str) -> tuple[Sequence[str], Sequence[str]]:
        """Declared features and classes of a model, whether it is watched or not."""
        watch = self.watches.get(f"model:{tenant}/{model}")
        known = self.settings.watch(model, tenant) if watch is None else watch.settings
        return known.features, known.classes

    def _is_watched(self, model: str, tenant: str) -> bool:
        return f"model:{tenant}/{model}" in self.watches

    def _traffic_of(self, model: str, tenant: str) -> TrafficSettings | None:
        return self.settings.watch(model, tenant).traffic

    def _watch(self, model: str, tenant: str, shadow: bool) -> Watch | None:
        key = (model, tenant, shadow)
        watch = self._watched.get(key)
        if watch is not None:
            return watch
        subject = f"model:{tenant}/{model}{SHADOW if shadow else ''}"
        if subject in self.watches:
            watch = self._watched[key] = self.watches[subject]
            return watch
        listed = self._is_listed(model, tenant)
        if not listed and (tenant, model) not in self._unlisted and len(self._unlisted) >= self.settings.max_models:
            self._too_many()
            return None
        return self.watch_of(subject)

    def _is_listed(self, model: str, tenant: str) -> bool:
        """A plain name in the configuration serves every tenant's model, but names only the one without a tenant:
        tenants come from records, and must not make watches without bound."""
        return (f"{tenant}/{model}" if tenant else model) in self.settings.listed

    def watch_of(self, subject: str) -> Watch:
        """The watch of a subject (`model:tenant/name`), made if need be."""
        watch = self.watches.get(subject)
        if watch is None:
            tenant, _, model = subject.removeprefix("model:").removesuffix(SHADOW).partition("/")
            watch = self.watches[subject] = Watch(subject, model, tenant, self.settings.watch(model, tenant))
            if not self._is_listed(model, tenant):
                self._unlisted.add((tenant, model))
            self.settings.introduce(watch)
            counted = self.unwatched.release(subject)
            if counted is not None:
                watch.predictions, watch.labels = counted.predictions, counted.labels
        return watch

    def _too_many(self) -> None:
        trouble = troubles.too_many_models(self.settings.max_models, self._now)
        if not self.health.touch(trouble.cause, self._now):
            self.health.hear(trouble, self._now)
            self.health.touch(trouble.cause, self._now)

    def _count(
        self, topic: str, place: _Partition, n: int, rejected: int, rows: int, corrected: int, unknown: int, gap: int
    ) -> None:
        c = place.counts
        place.counts = PartitionCounts(
            c.received + n,
            c.accepted + n - rejected,
            c.rejected + rejected,
            c.rows_rejected + rows,
            c.time_corrected + corrected,
            c.gap + gap,
            c.unknown_fields + unknown,
        )
        self.metrics.received.labels(topic).inc(n)
        for counter, value in (
            (self.metrics.time_corrected, corrected),
            (self.metrics.unknown_fields, unknown),
            (self.metrics.lost, gap),
        ):
            if value:
                counter.labels(topic).inc(value)

    def _trail(self, piece: Slice) -> None:
        """Write down consumed records; a slice that goes on where the last one stopped is one slice with it."""
        trail = self._unit.trail
        last = trail[-1] if trail else None
        if isinstance(last, Slice) and last[:2] == piece[:2] and last.stop == piece.start:
            trail[-1] = last._replace(stop=piece.stop)
        else:
            trail.append(piece)

    def _report(self, watch: Watch, finding: Finding, batch: Rows) -> Incident | None:
        row = finding.row
        trigger = batch.identity.at(row) if row >= 0 else f"tick/{self._now}"
        event_id = batch.event_ids[row] if row >= 0 else None
        return self._apply(Sighting(finding, watch.subject, watch.model, watch.tenant, trigger, event_id))

    def _watch_health(self, watch: Watch) -> None:
        if watch.panel is None:
            return
        for name, error in watch.panel.failures:
            log.error("detector stopped", detector=name, model=watch.model, error=error)
            self.metrics.failed_detectors.labels(name).inc()
            self.health.hear(troubles.detector_stopped(watch.subject, name, self._now), self._now)
        watch.panel.failures.clear()

    def _apply(self, sighting: Sighting) -> Incident | None:
        incident = self.book.apply(sighting)
        if incident is not None:
            self.urgent = True
            new = incident.alarms == 1 and incident.status == "open"
            if new and self.metrics.admits("model", incident.subject):
                self.metrics.incidents.labels(incident.model or "", incident.kind).inc()
        return incident


def _learnt(watch: Watch, at: float) -> list[ReferenceRow]:
    """The row of a provisional reference that a model has just learnt."""
    rows, watch.learnt = watch.learnt, None
    if rows is None or watch.panel is None:
        return []
    version, watch.learnt_for = watch.learnt_for, None
    approved = None if version is None else FOR_NEW_VERSION
    return [reference_row(watch.subject, rows, watch.panel.context.reference.version, "live", at, approved)]
