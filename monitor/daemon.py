"""The daemon: holds the lease or stands by; while it holds it, polls, feeds the pipeline, and commits.

One thread owns detector state. HTTP and delivery threads read SQL or flags. A daemon that loses its lease drops all
it holds in memory and stands by; whatever it had not committed is read again by its successor.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import structlog

from monitor.assembly import identity_key, pipeline_settings, source_topics, without_effect
from monitor.clock import Clock, SystemClock
from monitor.config import AlertmanagerReceiver, Config
from monitor.delivery import AlertmanagerTarget, Delivery
from monitor.intake.alignment import Aligner
from monitor.intake.identity import Pseudonyms, derive_key, key_id
from monitor.intake.sources.base import Source, SourceError, SourceUnavailable, TopicPartition
from monitor.intake.sources.kafka import KafkaSource
from monitor.metrics import Metrics
from monitor.pipeline import Pipeline
from monitor.serve.http import HttpServer, make_app
from monitor.startup import claim_partitions, load_state
from monitor.state.errors import Conflict, Fenced, StoreError, StoreUnavailable
from monitor.state.lease import Lease
from monitor.state.lock import daemon_lock
from monitor.state.store import StateStore, open_store
from monitor.state.unit import CommitUnit

log = structlog.get_logger(__name__)
LEASE_SECONDS = 9.0
"""A successor takes over this long after its predecessor died; a renewal comes every third of it."""
TICK_SECONDS = 1.0
DISCOVER_SECONDS = 10.0
POLL_SECONDS = 0.2
POLL_RECORDS = 1_000
MAX_PENDING = 50_000
"""Records after which a commit is due whatever the interval: a restart reads at most this many again."""
API_VERSION = "MODELWARDEN_KAFKA_API_VERSION"
"""Environment variable with the protocol version of a broker that cannot be asked for it, such as the embedded one."""
_RETRY_SECONDS = (0.2, 5.0)


@dataclass(slots=True)
class Condition:
    """What the probes answer. Written by the loop, read by the HTTP thread."""

    healthy_at: float
    ready: bool = False
    text: str = "starting"


class Daemon:
    """Runs until told to stop. `make_source` brings the Kafka source; tests bring others."""

    def __init__(
        self,
        config: Config,
        clock: Clock | None = None,
        make_source: Callable[[Config], Source] | None = None,
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.metrics = Metrics(config.limits.series)
        self.condition = Condition(self.clock.monotonic())
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
        self._make_source = make_source or kafka_source
        self._stop = threading.Event()

    def stop(self, *_: Any) -> None:
        """Ask the daemon to commit and end. Safe in a signal handler."""
        self._stop.set()

    def run(self) -> int:
        """Serve until stopped; 0. Errors that a restart cannot mend are raised."""
        key = identity_key(self.config)
        url = self.config.store.url.url
        lock = daemon_lock(url)
        if lock is not None:
            lock.acquire()
        try:
            audit_key = derive_key(key, "audit")
            store = open_store(url, self.config.need_kafka().group, audit_key=audit_key, create=True)
            pinned = store.remember("identity_key_id", key_id(key))
            if pinned != key_id(key):
                raise StoreError("identity.key_file: this is not the key that the stored pseudonyms were made with")
            return self._serve(store, key, exclusive=lock is not None)
        finally:
            if lock is not None:
                lock.release()

    def _serve(self, store: StateStore, key: bytes, exclusive: bool) -> int:
        listen = self.config.api.listen
        server = HttpServer(make_app(self.metrics, self._healthy, self._ready), listen.host, listen.port)
        delivery = Delivery(store, alertmanagers(self.config), self.metrics, self.clock, _is_sent)
        server.start()
        delivery.start()
        for sentence in without_effect(self.config):
            log.warning(sentence)
        log.info("serving", address=f"http://{server.address[0]}:{server.address[1]}", holder=self.holder)
        try:
            while not self._stop.is_set():
                self._turn(store, key, delivery, exclusive)
        finally:
            delivery.stop()
            server.stop()
            store.close()
        log.info("stopped")
        return 0

    def _turn(self, store: StateStore, key: bytes, delivery: Delivery, exclusive: bool) -> None:
        """Take the lease and hold it as long as possible, or wait a second.

        `exclusive`: no other daemon can be alive on this database, so the lease of a dead one is not waited for.
        """
        self._beat()
        try:
            lease = store.acquire_lease(self.holder, LEASE_SECONDS, take_over=exclusive)
        except StoreUnavailable as error:
            self._say(False, f"database: {error}")
            self._stop.wait(TICK_SECONDS)
            return
        if lease is None:
            self._say(True, "standing by: another daemon holds the lease")
            self._stop.wait(TICK_SECONDS)
            return
        log.info("lease taken", epoch=lease.epoch)
        self.metrics.active.set(1)
        self.metrics.epoch.set(lease.epoch)
        delivery.hold(lease)
        session: Session | None = None
        try:
            session = Session(self, store, key, lease, delivery)
            session.run(self._stop)
            store.release(lease)
        except Fenced as error:
            self.metrics.fenced.inc()
            log.warning("lease lost: standing by", reason=str(error))
        except Conflict as error:
            log.error("stored offsets moved: loading state again", reason=str(error))
        except StoreUnavailable as error:
            log.error("database lost: loading state again", reason=str(error))
        except SourceError:
            store.release(lease)
            raise
        finally:
            delivery.hold(None)
            self.metrics.active.set(0)
            if session is not None:
                session.close()

    def _beat(self) -> None:
        self.condition.healthy_at = self.clock.monotonic()

    def _say(self, ready: bool, text: str) -> None:
        self.condition.ready, self.condition.text = ready, text

    def _healthy(self) -> tuple[bool, str]:
        """Alive as long as the loop comes round, whatever the state of brokers and databases."""
        age = self.clock.monotonic() - self.condition.healthy_at
        return age < 60.0, "ok" if age < 60.0 else f"the loop has not come round for {age:.0f} s"

    def _ready(self) -> tuple[bool, str]:
        return self.condition.ready, self.condition.text


class Session:
    """One holding of the lease: state is loaded from SQL, partitions are owned, records are consumed."""

    def __init__(self, daemon: Daemon, store: StateStore, key: bytes, lease: Lease, delivery: Delivery) -> None:
        self.daemon = daemon
        self.config = daemon.config
        self.store = store
        self.lease = lease
        self.delivery = delivery
        self.clock = daemon.clock
        networks = {name: [str(n) for n in nets] for name, nets in self.config.access.networks.items()}
        self.pseudonyms = Pseudonyms(key, networks)
        settings = pipeline_settings(self.config, self.pseudonyms, key)
        self.pipeline = Pipeline(settings, daemon.metrics, store.open_incidents())
        self.source: Source = daemon._make_source(self.config)
        self.aligner = Aligner()
        self._last_tick = self._last_commit = self._last_renewal = self._last_discovery = self.clock.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Load, then poll, feed, tick and commit until stopped; a last commit on the way out."""
        load_state(self.config, self.store, self.pipeline, self.clock)
        owned = False
        while not stop.is_set():
            self.daemon._beat()
            owned = owned or self._own()
            if owned:
                self._poll()
            else:
                stop.wait(TICK_SECONDS)
            self._keep_time(stop)
        self._tick()
        self._commit(stop)
        log.info("committed and stopping", positions={f"{t}/{p}": o for (t, p), o in self.pipeline.positions().items()})

    def close(self) -> None:
        """Let go of the source."""
        self.source.close()

    def _own(self) -> bool:
        """Own every partition there is; those already owned go on where the pipeline is. False: no broker answers."""
        try:
            claim_partitions(self.store, self.lease, self.source, self.pipeline, self.clock.now())
        except SourceUnavailable as error:
            self.daemon._say(False, f"Kafka: {error}")
            log.warning("no broker answers: trying again", reason=str(error))
            return False
        # The source goes back to what the pipeline has taken; records that waited come again.
        self.aligner.own([TopicPartition(*key) for key in self.pipeline.partitions], self.clock.monotonic())
        owned = len(self.pipeline.partitions)
        self.daemon._say(owned > 0, self.source.condition or f"active: {owned} partitions")
        return True

    def _poll(self) -> None:
        polled = self.source.poll(POLL_SECONDS, POLL_RECORDS)
        now = self.clock.now()
        for loss in polled.losses:
            log.error("records lost", topic=loss.topic, partition=loss.partition, lost=loss.lost)
            self.pipeline.feed(
                loss.topic, loss.partition, self.aligner.flush(TopicPartition(loss.topic, loss.partition))
            )
            self.pipeline.lose(loss, now)
        at = self.clock.monotonic()
        for partition, records in polled.records:
            self.aligner.add(partition, records, at)
        for partition, records in self.aligner.take(at):
            self.pipeline.feed(partition.topic, partition.partition, records)
            self.daemon.metrics.last_record.set(now)

    def _keep_time(self, stop: threading.Event) -> None:
        """What is due by the clock: tick, commit, renewal of the lease, new partitions."""
        now = self.clock.monotonic()
        if now - self._last_tick >= TICK_SECONDS:
            self._last_tick = now
            self._tick()
            for command in self.store.pending_commands():
                self.pipeline.apply_command(command)
            due = now - self._last_commit >= self.config.store.commit_interval.total_seconds()
            if self.pipeline.urgent or self.pipeline.pending >= MAX_PENDING or (due and self.pipeline.pending):
                self._commit(stop)
        if now - self._last_renewal >= LEASE_SECONDS / 3:
            self._last_renewal = now
            self.lease = self.store.renew(self.lease)
        if now - self._last_discovery >= DISCOVER_SECONDS:
            self._last_discovery = now
            if set(self.source.discover()) != {TopicPartition(*key) for key in self.pipeline.partitions}:
                self._own()
            self._show_lag()

    def _tick(self) -> None:
        self.pipeline.tick(self.clock.now())

    def _commit(self, stop: threading.Event) -> None:
        """Store everything since the last commit in one transaction, however long the database takes to answer."""
        unit = self.pipeline.take_unit(self.clock.now())
        unit.identities = self.pseudonyms.take_new()
        begin = self.clock.monotonic()
        self._store(unit, stop)
        now = self.clock.monotonic()
        self._last_commit = self._last_renewal = now
        metrics = self.daemon.metrics
        metrics.commits.inc()
        metrics.commit_seconds.observe(now - begin)
        metrics.last_commit.set(self.clock.now())
        if unit.incidents:
            self.delivery.wake()
            self._show_open()
        self.source.hint({TopicPartition(t, p): o for (t, p), o in self.pipeline.positions().items()})

    def _store(self, unit: CommitUnit, stop: threading.Event) -> None:
        """Commit; while the database is away, keep polling with everything paused, so that nothing piles up."""
        wait, longest = _RETRY_SECONDS
        while True:
            try:
                self.store.commit(unit, self.lease)
                break
            except StoreUnavailable as error:
                self.daemon.metrics.commit_failures.inc()
                self.daemon._say(False, f"database: {error}")
                log.warning("commit failed: trying again", error=str(error))
                if stop.is_set():
                    raise
                self.source.pause()
                self.source.poll(wait * random.uniform(0.5, 1.0), 1)
                self.daemon._beat()
                wait = min(2 * wait, longest)
        if not self.daemon.condition.ready:
            self.source.resume()
            self.daemon._say(True, "active")

    def _show_lag(self) -> None:
        for partition, lag in self.source.lag().items():
            self.daemon.metrics.lag.labels(partition.topic, str(partition.partition)).set(lag)
        for watch in self.pipeline.watches.values():
            if self.daemon.metrics.admits("model", watch.subject):
                self.daemon.metrics.clients.labels(watch.model).set(watch.clients.distinct)

    def _show_open(self) -> None:
        gauge = self.daemon.metrics.open
        gauge.clear()
        for incident in self.pipeline.book.open():
            gauge.labels(incident.model or "", incident.kind, incident.severity).inc()


def run_daemon(config: Config) -> int:
    """Run in the foreground until SIGTERM or SIGINT; the exit code."""
    daemon = Daemon(config)

    def stop(number: int, _: FrameType | None) -> None:
        log.info("stopping", signal=signal.Signals(number).name)
        daemon.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return daemon.run()


def kafka_source(config: Config) -> Source:
    """The source that the configuration names."""
    kafka = config.need_kafka()
    if kafka.client != "kafka-python":
        raise SourceError(f"kafka.client: {kafka.client} is not available in this version; use kafka-python")
    servers = [f"{a.host}:{a.port}" for a in kafka.bootstrap_servers]
    options: dict[str, Any] = dict(kafka.security.client_options())
    version = os.environ.get(API_VERSION)
    if version:
        options["api_version"] = tuple(int(part) for part in version.split("."))
    return KafkaSource(servers, source_topics(config), group=kafka.group, client_options=options)


def alertmanagers(config: Config) -> list[AlertmanagerTarget]:
    """Receivers of type alertmanager; none while `notify` is off."""
    if not config.notify:
        return []
    return [
        AlertmanagerTarget(name, tuple(str(u) for u in receiver.urls))
        for name, receiver in config.receivers.items()
        if isinstance(receiver, AlertmanagerReceiver)
    ]


def _is_sent(severity: str) -> bool:
    """Without routes, warning and above goes to every receiver, info nowhere."""
    return severity in ("warning", "critical")
