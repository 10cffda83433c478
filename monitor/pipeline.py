"""The way of an event: records in, detectors run, and everything that changed out as one commit.

The pipeline knows no broker, no database and no clock. It is fed records of one partition at a time (`feed`) and
ticks (`tick`); both are written down in order, and fed again in that order they make byte-equal findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from alerts.incidents import Incident, IncidentBook, Sighting
from detectors.base import Batch, Finding, Measure, Severity, SubjectRef
from monitor.commands import apply_command
from monitor.failpoints import failpoint
from monitor.intake.dead_letters import dead_letter
from monitor.intake.events import DeadLetter, Event, EventType, Reason, Record, Rejected
from monitor.intake.formats.base import Format, TopicRules
from monitor.intake.sources.base import Loss
from monitor.metrics import Metrics
from monitor.references import origin_of, reference_row, rows_of
from monitor.state.commands import Command
from monitor.state.unit import (
    AuditRow,
    CommitUnit,
    PartitionCounts,
    Position,
    ReferenceRow,
    Slice,
    StatePage,
    Tick,
)
from monitor.watch import Watch, WatchSettings

log = structlog.get_logger(__name__)
DAEMON = "daemon"
"""Subject of what concerns the monitor itself."""


@dataclass(frozen=True, slots=True)
class Intake:
    """How the records of one topic are read."""

    format: Format
    rules: TopicRules


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
    introduce: Callable[[Watch], None] = lambda watch: None
    """Told of each new model before its first event; may give it a reference."""


@dataclass(slots=True)
class _Partition:
    """Where a partition stood at the last commit and stands now."""

    committed: int
    next: int
    counts: PartitionCounts = field(default_factory=PartitionCounts)


class Pipeline:
    """Detector state of all models. One thread owns it; nothing here blocks."""

    def __init__(self, settings: PipelineSettings, metrics: Metrics, open_incidents: Iterable[Incident] = ()) -> None:
        self.settings = settings
        self.metrics = metrics
        self.book = IncidentBook(open_incidents)
        self.watches: dict[str, Watch] = {}
        self.partitions: dict[tuple[str, int], _Partition] = {}
        self.urgent = False
        """Something to tell: the next tick should be followed by a commit."""
        self.cluster_id = ""
        self._unit = CommitUnit(at=0.0)
        self._now = 0.0
        self._unwatched = 0

    # --- input ---------------------------------------------------------------------------------------------------

    def own(self, topic: str, partition: int, position: int, counts: PartitionCounts | None = None) -> None:
        """Begin a partition at `position`, with its counts so far."""
        self.partitions[topic, partition] = _Partition(position, position, counts or PartitionCounts())

    def feed(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Take records of one partition. Offsets below the expected one are dropped, gaps are counted."""
        place = self.partitions[topic, partition]
        begin = place.next
        fresh = [r for r in records if r.offset >= begin]
        if not fresh:
            return
        rejected = rows_rejected = corrected = unknown = 0
        intake = self.settings.intakes[topic]
        for record in fresh:
            events, bad = self._decode(intake, record)
            self._unit.dead_letters += bad
            whole = any(letter.row < 0 for letter in bad)
            rejected += whole
            rows_rejected += 0 if whole else len(bad)
            for event in events:
                corrected += event.time_corrected
                unknown += event.unknown_fields
                self._route(event, (topic, partition, record.offset, event.row))
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
        where = f"{loss.topic}/{loss.partition}"
        measure = Measure("source", where, float(loss.lost), 0.0, "records lost", loss.lost, at, at)
        self._own_health(f"lost:{where}", measure, f"{where}/{loss.expected}", at)

    def tick(self, at: float) -> None:
        """Let time pass: every queued event is judged, and detectors hear the watermark."""
        self._now = at
        for watch in list(self.watches.values()):
            watch.cut(self._report)
            watch.advance(self._report)
            self._watch_health(watch)
        self._unit.trail.append(Tick(at))
        failpoint("after_tick")

    # --- output --------------------------------------------------------------------------------------------------

    def take_unit(self, at: float) -> CommitUnit:
        """Everything since the last call, for one transaction. Call after `tick`; keep the unit until it is stored."""
        unit, self._unit = self._unit, CommitUnit(at=at)
        unit.at, unit.cluster_id = at, self.cluster_id
        for (topic, partition), place in self.partitions.items():
            if place.next != place.committed:
                unit.positions.append(Position(topic, partition, place.committed, place.next, place.counts))
                place.committed = place.next
        for watch in self.watches.values():
            pages = watch.dirty()
            unit.pages += pages
            if pages:
                unit.subjects.append(watch.row())
            unit.references += _learnt(watch, at)
        unit.incidents = self.book.take_changes()
        self.urgent = False
        return unit

    @property
    def pending(self) -> int:
        """Records consumed since the last commit."""
        return sum(abs(p.next - p.committed) for p in self.partitions.values())

    def positions(self) -> dict[tuple[str, int], int]:
        """The next offset of every partition."""
        return {key: place.next for key, place in self.partitions.items()}

    # --- state ---------------------------------------------------------------------------------------------------

    def restore(self, pages: Iterable[StatePage], references: Mapping[str, ReferenceRow]) -> None:
        """Take stored pages: each watched model first gets its stored reference, then its state."""
        by_subject: dict[str, list[StatePage]] = {}
        for page in pages:
            by_subject.setdefault(page.subject, []).append(page)
        for subject in sorted(by_subject.keys() | references.keys()):
            watch = self._watch_of(subject)
            stored = references.get(subject)
            if stored is not None and watch.panel is None:
                watch.use(watch.prepare(rows_of(stored), origin_of(stored)))
            for sentence in watch.restore(by_subject.get(subject, [])):
                log.warning("state not taken", what=sentence)

    def listed_watch(self, model: str, tenant: str) -> Watch:
        """The watch of a model that the configuration lists: made whatever the limits say."""
        return self._watch_of(f"model:{tenant}/{model}")

    def add_reference(self, row: ReferenceRow) -> None:
        """Store a version of a reference in the next commit."""
        self._unit.references.append(row)
        approved = row.approved_by or "nobody yet"
        self._unit.audit.append(
            AuditRow(row.created_at, approved, "reference.register", row.subject, {"content": row.content_hash})
        )
        self.urgent = True

    def reference_waits(self, watch: Watch, path: str, version: str, at: float) -> None:
        """Say that the configured reference has changed and waits for approval."""
        measure = Measure("references", path, 1.0, 0.0, "versions waiting for approval", 1, at, at)
        self._own_health(f"reference:{watch.subject}", measure, version, at, "info")

    def apply_command(self, command: Command) -> None:
        """Apply an operator's command, with its audit row, in the next commit."""
        if command.id in {result.id for result in self._unit.commands}:
            return
        result, act = apply_command(self.book, command, self._now)
        self._unit.commands.append(result)
        if act is not None:
            self._unit.audit.append(act)
        self.urgent = True

    # --- inside --------------------------------------------------------------------------------------------------

    def _decode(self, intake: Intake, record: Record) -> tuple[list[Event], list[DeadLetter]]:
        """Events and dead letters of one record; whatever it holds, nothing is raised."""
        try:
            decoded = intake.format.decode(record, intake.rules)
        except Rejected as rejected:
            return [], [dead_letter(record, rejected, self.settings.digest_key)]
        except Exception as error:
            log.exception("decoder failed", topic=record.topic, partition=record.partition, offset=record.offset)
            internal = Rejected(Reason.INTERNAL, type(error).__name__)
            return [], [dead_letter(record, internal, self.settings.digest_key)]
        return decoded.events, decoded.bad_rows

    def _route(self, event: Event, place: tuple[str, int, int, int]) -> None:
        kind = event.type
        if kind is EventType.PREDICTION or kind is EventType.LABEL:
            watch = self._watch(event.model or "", event.tenant)
            if watch is None:
                self._unwatched += 1
                self.metrics.unwatched.inc()
            elif kind is EventType.LABEL:
                watch.add_label(event)
            elif watch.add_prediction(event, place):
                watch.cut(self._report)
                self._watch_health(watch)
        elif kind is EventType.ACCESS:
            access = self._unit.access_events
            access[place[0]] = access.get(place[0], 0) + 1

    def _watch(self, model: str, tenant: str) -> Watch | None:
        subject = f"model:{tenant}/{model}"
        watch = self.watches.get(subject)
        if watch is not None:
            return watch
        name = f"{tenant}/{model}" if tenant else model
        listed = name in self.settings.listed or model in self.settings.listed
        if not listed and len(self.watches) >= self.settings.max_models:
            self._too_many()
            return None
        return self._watch_of(subject)

    def _watch_of(self, subject: str) -> Watch:
        watch = self.watches.get(subject)
        if watch is None:
            tenant, _, model = subject.removeprefix("model:").partition("/")
            watch = self.watches[subject] = Watch(subject, model, tenant, self.settings.watch(model, tenant))
            self.settings.introduce(watch)
        return watch

    def _too_many(self) -> None:
        if self._unwatched:
            return
        limit = float(self.settings.max_models)
        measure = Measure("pipeline", "models", limit + 1, limit, "models", int(limit) + 1, self._now, self._now)
        self._own_health("unwatched", measure, "models.auto.max", self._now)

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

    def _report(self, watch: Watch, finding: Finding, batch: Batch) -> Incident | None:
        row = finding.row
        trigger = batch.identity.at(row) if row >= 0 else f"tick/{self._now}"
        event_id = batch.event_ids[row] if row >= 0 else None
        return self._apply(Sighting(finding, watch.subject, watch.model, watch.tenant, trigger, event_id))

    def _own_health(
        self, cause: str, measure: Measure, trigger: str, at: float, severity: Severity = "warning"
    ) -> None:
        finding = Finding(
            detector=measure.detector,
            kind="monitor_health",
            account="rules",
            severity=severity,
            time=at,
            row=-1,
            position=0,
            subjects=(SubjectRef("series", measure.stream),),
            onset=at,
            measures=(measure,),
            cause=cause,
        )
        self._apply(Sighting(finding, DAEMON, None, "", trigger, None))

    def _watch_health(self, watch: Watch) -> None:
        if watch.panel is None:
            return
        for name, error in watch.panel.failures:
            log.error("detector stopped", detector=name, model=watch.model, error=error)
            self.metrics.failed_detectors.labels(name).inc()
            measure = Measure(name, f"{watch.subject}:{name}", 1.0, 0.0, "failures", 1, self._now, self._now)
            self._own_health(f"detector:{watch.subject}:{name}", measure, f"{name}/{watch.predictions}", self._now)
        watch.panel.failures.clear()

    def _apply(self, sighting: Sighting) -> Incident | None:
        incident = self.book.apply(sighting)
        if incident is not None:
            self.urgent = True
            if incident.alarms == 1 and incident.status == "open":
                self.metrics.incidents.labels(incident.model or "", incident.kind).inc()
        return incident


def _learnt(watch: Watch, at: float) -> list[ReferenceRow]:
    """The row of a provisional reference that a model has just learnt."""
    rows, watch.learnt = watch.learnt, None
    if rows is None or watch.panel is None:
        return []
    return [reference_row(watch.subject, rows, watch.panel.context.reference.version, "live", at, None)]
