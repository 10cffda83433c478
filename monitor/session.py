"""One holding of the lease: state is loaded from SQL, partitions are owned, records are consumed and committed."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from monitor.assembly import pipeline_settings
from monitor.clock import Clock
from monitor.config import Config
from monitor.delivery import Delivery
from monitor.dry_run import DryRun
from monitor.flow import SUBJECT, Flow
from monitor.intake.alignment import Aligner
from monitor.intake.identity import Pseudonyms, derive_key
from monitor.intake.sources.base import Polled, Source, SourceError, SourceUnavailable, TopicPartition
from monitor.metrics import Metrics
from monitor.outgoing import outbox_writer
from monitor.overload import Overload
from monitor.pipeline import Pipeline
from monitor.reload import Reloaded
from monitor.reload_notes import tell_reload, tell_restart
from monitor.schedule import Trouble
from monitor.startup import claim_partitions, load_state
from monitor.state.errors import StoreUnavailable
from monitor.state.lease import Lease
from monitor.state.store import StateStore
from monitor.state.unit import CommitUnit

log = structlog.get_logger(__name__)
LEASE_SECONDS = 9.0
"""A successor takes over this long after its predecessor died; a renewal comes every third of it."""
TICK_SECONDS = 1.0
DISCOVER_SECONDS = 10.0
POLL_SECONDS = 0.2
POLL_RECORDS = 1_000
MAX_TRAIL = 600
"""Ticks and slices after which a commit is due even if no record came: state that time changes is stored too."""
MAX_PENDING = 50_000
"""Records after which a commit is due whatever the interval: a restart reads at most this many again."""
REFRESH_SECONDS = 86_400.0
"""Each identifier met is reported to the store once in this time, which so learns who is still there."""
RETRY_SECONDS = (0.2, 5.0)
"""Waits between tries while the database is away: the first, and the longest."""


@dataclass(slots=True)
class Condition:
    """What the probes answer. Written by the loop, read by the HTTP thread."""

    healthy_at: float
    ready: bool = False
    text: str = "starting"

    def beat(self, clock: Clock) -> None:
        """The loop comes round."""
        self.healthy_at = clock.monotonic()

    def say(self, ready: bool, text: str) -> None:
        """Whether it is ready, and a line that says why or why not."""
        self.ready, self.text = ready, text


@dataclass(frozen=True, slots=True)
class Parts:
    """What a session shares with the daemon."""

    config: Config
    clock: Clock
    metrics: Metrics
    condition: Condition
    store: StateStore
    delivery: Delivery
    troubles: Callable[[], Sequence[Trouble]] = tuple
    """What changed with the daemon's recurring tasks since the last call."""
    reload: Callable[[], Reloaded | None] = lambda: None
    """Reads the configuration again if somebody asked for that since the last call."""
    refused: tuple[str, ...] = ()
    """Keys whose new value waits for a restart."""
    dry_run: DryRun | None = None


class Session:
    """Begins with what SQL has; ends with a last commit, or by an exception that leaves SQL as it was."""

    def __init__(self, parts: Parts, lease: Lease, source: Source, key: bytes) -> None:
        self.parts = parts
        self.lease = lease
        self.source = source
        config = parts.config
        networks = {name: [str(n) for n in nets] for name, nets in config.access.networks.items()}
        self.pseudonyms = Pseudonyms(key, networks)
        settings = pipeline_settings(config, self.pseudonyms, derive_key(key, "dead letters"))
        settings = replace(settings, outbox=outbox_writer(config, parts.store.told()))
        self.pipeline = Pipeline(settings, parts.metrics, parts.store.open_incidents())
        topics = [topic.name for topic in config.need_kafka().topics]
        self.flow = Flow(self.pipeline.health, topics, parts.clock.now())
        self.aligner = Aligner(keyed=settings.keyed)
        self.overload = Overload(self.pipeline, config.overload == "sample")
        self._last_time: dict[TopicPartition, float] = {}
        """The broker's time of the last record taken."""
        self.reloaded: Reloaded | None = None
        """A new configuration: this session has ended for it, and the next one runs with it."""
        self._listening = True
        """Whether the source can be read: where not, that nothing comes is no silence."""
        self._left: list[Polled] = []
        """What polls brought while the database was away."""
        self._shown_open: set[tuple[str, str, str]] = set()
        now = parts.clock.monotonic()
        self._last_tick = self._last_commit = self._last_renewal = self._last_discovery = now
        self._last_refresh = now

    def run(self, stop: threading.Event) -> None:
        """Load, then poll, feed, tick and commit until stopped or `reloaded`; a last commit on the way out."""
        if self.parts.refused:
            tell_restart(self.pipeline, self.parts.refused, self.parts.clock.now())
        load_state(self.parts.config, self.parts.store, self.pipeline, self.parts.clock, self._keep_alive)
        self.flow.restore(self.parts.store.load_pages(SUBJECT, damaged=[]))
        self.overload.begin(self.parts.clock.now())
        if self.parts.dry_run is not None:
            self.parts.dry_run.known(self.pipeline.book.open())
        self.parts.metrics.open.clear()
        self._show_open()
        try:
            self._consume(stop)
        except SourceError as error:
            self.pipeline.stopped(str(error), self.parts.clock.now())
            self._tick()
            self._commit(stop)
            raise
        self._tick()
        self._commit(stop)
        doing = "committed and stopping" if self.reloaded is None else "committed: going on with the new configuration"
        log.info(doing, positions={f"{t}/{p}": o for (t, p), o in self.pipeline.positions().items()})

    def _consume(self, stop: threading.Event) -> None:
        owned = False
        while not stop.is_set() and self.reloaded is None:
            self._keep_alive()
            owned = owned or self._own()
            if owned:
                self._poll()
            else:
                stop.wait(TICK_SECONDS)
            self._keep_time(stop)

    def _keep_alive(self) -> None:
        """Renew the lease when it is time, and say that the loop comes round."""
        self.parts.condition.beat(self.parts.clock)
        now = self.parts.clock.monotonic()
        if now - self._last_renewal >= LEASE_SECONDS / 3:
            self._last_renewal = now
            self.lease = self.parts.store.renew(self.lease)

    def _own(self) -> bool:
        """Own every partition there is; those already owned go on where the pipeline is. False: no broker answers."""
        try:
            claim_partitions(self.parts.store, self.lease, self.source, self.pipeline, self.parts.clock.now())
        except SourceUnavailable as error:
            self._listening = False
            self.parts.condition.say(False, f"Kafka: {error}")
            log.warning("no broker answers: trying again", reason=str(error))
            return False
        # The source goes back to what the pipeline has taken; records and losses that waited come again.
        self._left.clear()
        self.flow.own(self._received())
        self.aligner.own([TopicPartition(*key) for key in self.pipeline.partitions], self.parts.clock.monotonic())
        self._say_condition()
        return True

    def _say_condition(self) -> None:
        owned = len(self.pipeline.partitions)
        trouble = self.source.condition
        self._listening = trouble is None
        self.parts.condition.say(owned > 0 and trouble is None, trouble or f"active: {owned} partitions")

    def _poll(self) -> None:
        left, self._left = self._left, []
        for polled in [*left, self.source.poll(POLL_SECONDS, POLL_RECORDS)]:
            self._take(polled)
        now = self.parts.clock.now()
        for partition, records in self.aligner.take(self.parts.clock.monotonic()):
            self.pipeline.feed(partition.topic, partition.partition, records)
            self._last_time[partition] = records[-1].timestamp or now
            self.parts.metrics.last_record.set(now)

    def _take(self, polled: Polled) -> None:
        """Losses come before the records that follow them, and after those that wait."""
        self.overload.polled(sum(len(records) for _, records in polled.records))
        for loss in polled.losses:
            log.error("records lost", topic=loss.topic, partition=loss.partition, lost=loss.lost)
            waiting = self.aligner.flush(TopicPartition(loss.topic, loss.partition))
            self.pipeline.feed(loss.topic, loss.partition, waiting)
            self.pipeline.lose(loss, self.parts.clock.now())
        for partition, records in polled.records:
            self.aligner.add(partition, records, self.parts.clock.monotonic())

    def _keep_time(self, stop: threading.Event) -> None:
        """What is due by the clock: tick, commit, renewal of the lease, new partitions."""
        now = self.parts.clock.monotonic()
        if now - self._last_tick >= TICK_SECONDS:
            self._last_tick = now
            self._tick()
            self._reload()
            for command in self.parts.store.pending_commands():
                self.pipeline.apply_command(command, self.parts.store.references)
            due = now - self._last_commit >= self.parts.config.store.commit_interval.total_seconds()
            work = self.pipeline.pending or self.pipeline.trail_length > MAX_TRAIL
            if self.pipeline.urgent or self.pipeline.pending >= MAX_PENDING or (due and work):
                self._commit(stop)
        if now - self._last_refresh >= REFRESH_SECONDS:
            self._last_refresh = now
            self.pseudonyms.refresh()
        if now - self._last_discovery >= DISCOVER_SECONDS:
            self._last_discovery = now
            self._look_around()

    def _reload(self) -> None:
        """A valid configuration ends this session at a tick; whatever else was read leaves everything as it is."""
        outcome = self.parts.reload()
        if outcome is None:
            return
        tell_reload(self.pipeline, outcome, self.parts.clock.now())
        if outcome.config is not None:
            self.reloaded = outcome

    def _look_around(self) -> None:
        """New partitions, the condition of the brokers, lag. Each question may take seconds."""
        found = set(self.source.discover())
        self._keep_alive()
        if found != {TopicPartition(*key) for key in self.pipeline.partitions}:
            self._own()
            self._keep_alive()
        self._say_condition()
        self._show_lag()

    def _tick(self) -> None:
        now = self.parts.clock.now()
        for trouble in self.parts.troubles():
            self.pipeline.task_trouble(trouble.task, trouble.reason, trouble.failures, now)
        self.flow.tick(now, self._received())
        self.pipeline.tick(now, self._listening)

    def _commit(self, stop: threading.Event) -> None:
        """Store everything since the last commit in one transaction, however long the database takes to answer."""
        unit = self.pipeline.take_unit(self.parts.clock.now())
        unit.pages += self.flow.dirty(unit.at)
        unit.identities = self.pseudonyms.take_new()
        begin = self.parts.clock.monotonic()
        self._store(unit, stop)
        now = self.parts.clock.monotonic()
        self._last_commit = self._last_renewal = now
        metrics = self.parts.metrics
        metrics.commits.inc()
        metrics.state_bytes.inc(sum(a.nbytes for page in unit.pages for a in page.arrays.values()))
        metrics.commit_seconds.observe(now - begin)
        metrics.last_commit.set(self.parts.clock.now())
        if self.parts.dry_run is not None:
            self.parts.dry_run.note(unit.incidents, self.parts.clock.now())
        if unit.incidents:
            self.parts.delivery.wake()
            self._show_open()
        self.source.hint({TopicPartition(t, p): o for (t, p), o in self.pipeline.positions().items()})

    def _store(self, unit: CommitUnit, stop: threading.Event) -> None:
        """Commit; while the database is away, keep polling with everything paused, so that nothing piles up."""
        wait, longest = RETRY_SECONDS
        paused = False
        while True:
            try:
                self.parts.store.commit(unit, self.lease)
                break
            except StoreUnavailable as error:
                self.parts.metrics.commit_failures.inc()
                self.parts.condition.say(False, f"database: {error}")
                log.warning("commit failed: trying again", error=str(error))
                if stop.is_set():
                    raise
                self.source.pause()
                paused = True
                self._left.append(self.source.poll(wait * random.uniform(0.5, 1.0), 1))
                self.parts.condition.beat(self.parts.clock)
                wait = min(2 * wait, longest)
        if paused:
            self.source.resume()
            self._say_condition()

    def _received(self) -> Counter[str]:
        """Records of each topic since its first start."""
        received: Counter[str] = Counter()
        for (topic, _), place in self.pipeline.partitions.items():
            received[topic] += place.counts.received
        return received

    def _show_lag(self) -> None:
        metrics, now = self.parts.metrics, self.parts.clock.now()
        behind: Counter[str] = Counter()
        for partition, lag in self.source.lag().items():
            behind[partition.topic] += lag
            labels = partition.topic, str(partition.partition)
            metrics.lag.labels(*labels).set(lag)
            metrics.lag_records.labels(*labels).set(lag)
            last = self._last_time.get(partition)
            metrics.lag_seconds.labels(*labels).set(max(0.0, now - last) if lag and last is not None else 0.0)
        self.flow.lag(now, behind)
        self.overload.look(self.parts.clock.monotonic(), behind.total())

    def _show_open(self) -> None:
        metrics = self.parts.metrics
        shown = Counter(
            (i.model or "", i.kind, i.severity) for i in self.pipeline.book.open() if metrics.admits("model", i.subject)
        )
        for labels in self._shown_open - shown.keys():
            metrics.open.remove(*labels)
        for labels, number in shown.items():
            metrics.open.labels(*labels).set(number)
        self._shown_open = set(shown)
