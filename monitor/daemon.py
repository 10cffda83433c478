"""The daemon: holds the lease (session.py) or stands by, with HTTP and delivery threads beside it.

One thread owns detector state. HTTP and delivery threads read SQL or flags. A daemon that loses its lease drops all
it holds in memory and stands by; whatever it had not committed is read again by its successor.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import structlog

from monitor.assembly import identity_key, source_topics, without_effect
from monitor.clock import Clock, SystemClock
from monitor.config import Config
from monitor.delivery import Delivery
from monitor.dry_run import DryRun
from monitor.housekeeping import Housekeeping
from monitor.intake.identity import derive_key, key_id
from monitor.intake.sources.base import Source, SourceError
from monitor.intake.sources.kafka import KafkaSource
from monitor.metrics import Metrics
from monitor.outgoing import owner_of, policy_of
from monitor.receivers import alertmanagers, webhook_workers
from monitor.reload import Reloaded, reload_config
from monitor.serve.http import HttpServer, make_app
from monitor.session import LEASE_SECONDS, RETRY_SECONDS, TICK_SECONDS, Condition, Parts, Session
from monitor.state.errors import Conflict, Fenced, StoreError, StoreUnavailable
from monitor.state.lease import Lease
from monitor.state.lock import daemon_lock
from monitor.state.store import StateStore, open_store

log = structlog.get_logger(__name__)
API_VERSION = "MODELWARDEN_KAFKA_API_VERSION"
"""Environment variable with the protocol version of a broker that cannot be asked for it, such as the embedded one."""

_NO_CONFLUENT = "kafka.client: confluent-kafka needs the extra `fast`: pip install 'modelwarden[fast]'"


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
        self._reload = threading.Event()
        self._refused: tuple[str, ...] = ()
        self._dry_run = DryRun(config, self.clock.now())

    def stop(self, *_: Any) -> None:
        """Ask the daemon to commit and end. Safe in a signal handler."""
        self._stop.set()

    def reload(self, *_: Any) -> None:
        """Ask the daemon to read its configuration again. Safe in a signal handler."""
        self._reload.set()

    def run(self) -> int:
        """Serve until stopped; 0. Errors that a restart cannot mend are raised."""
        key = identity_key(self.config)
        url = self.config.store.url.url
        lock = daemon_lock(url)
        if lock is not None:
            lock.acquire()
        try:
            audit_key = derive_key(key, "audit")
            store = self._open(url, audit_key)
            if store is None:
                return 0
            pinned = store.remember("identity_key_id", key_id(key))
            if pinned != key_id(key):
                raise StoreError("identity.key_file: this is not the key that the stored pseudonyms were made with")
            return self._serve(store, key, exclusive=lock is not None)
        finally:
            if lock is not None:
                lock.release()

    def _open(self, url: str, audit_key: bytes) -> StateStore | None:
        """The store, waited for as long as it takes; None when asked to stop meanwhile."""
        while not self._stop.is_set():
            try:
                return open_store(url, self.config.need_kafka().group, audit_key=audit_key, create=True)
            except StoreUnavailable as error:
                log.warning("database does not answer: trying again", reason=str(error))
                self._stop.wait(RETRY_SECONDS[1])
        return None

    def _serve(self, store: StateStore, key: bytes, exclusive: bool) -> int:
        listen = self.config.api.listen
        server = HttpServer(make_app(self.metrics, self._healthy, self._ready), listen.host, listen.port)
        self._delivery = self._deliver(store, key)
        server.start()
        keeping = Housekeeping(store, lambda: self.config, self.metrics, self.clock, self._well)
        keeping.start()
        for sentence in without_effect(self.config):
            log.warning(sentence)
        log.info("serving", address=f"http://{server.address[0]}:{server.address[1]}", holder=self.holder)
        try:
            while not self._stop.is_set():
                self._turn(store, key, keeping, exclusive)
        finally:
            keeping.stop()
            self._delivery.stop()
            server.stop()
            store.close()
        self._dry_run.tell(self.clock.now())
        log.info("stopped")
        return 0

    def _deliver(self, store: StateStore, key: bytes) -> Delivery:
        """What tells receivers, as the configuration in force says; started."""
        wanted = policy_of(self.config).sends
        workers = webhook_workers(self.config, store, self.metrics, self.clock, key)
        delivery = Delivery(
            store, alertmanagers(self.config), self.metrics, self.clock, wanted, workers, owner_of(self.config)
        )
        delivery.start()
        return delivery

    def _turn(self, store: StateStore, key: bytes, keeping: Housekeeping, exclusive: bool) -> None:
        """Take the lease and hold it as long as possible, or wait a second.

        `exclusive`: no other daemon can be alive on this database, so the lease of a dead one is not waited for.
        """
        self.condition.beat(self.clock)
        try:
            lease = store.acquire_lease(self.holder, LEASE_SECONDS, take_over=exclusive)
        except StoreUnavailable as error:
            self.condition.say(False, f"database: {error}")
            self._stop.wait(TICK_SECONDS)
            return
        if lease is None:
            self.condition.say(True, "standing by: another daemon holds the lease")
            outcome = self._read_again()
            if outcome is not None and outcome.config is not None:
                self._adopt(outcome)
                keeping.adapt()
                self._deliver_anew(store, key)
            self._stop.wait(TICK_SECONDS)
            return
        log.info("lease taken", epoch=lease.epoch)
        self.metrics.active.set(1)
        self.metrics.epoch.set(lease.epoch)
        keeping.hold(lease)
        source: Source | None = None
        try:
            source = self._make_source(self.config)
            store.release(self._sessions(store, lease, source, key, keeping))
        except Fenced as error:
            self.metrics.fenced.inc()
            log.warning("lease lost: standing by", reason=str(error))
        except (Conflict, StoreUnavailable) as error:
            log.error("loading state again", reason=str(error))
            self.condition.say(False, f"database: {error}")
            self._stop.wait(RETRY_SECONDS[1])
        except SourceError:
            with suppress(StoreError):
                store.release(lease)
            raise
        finally:
            self._delivery.hold(None)
            keeping.hold(None)
            self.metrics.active.set(0)
            if source is not None:
                source.close()

    def _sessions(self, store: StateStore, lease: Lease, source: Source, key: bytes, keeping: Housekeeping) -> Lease:
        """One session, and another each time that a reload ended one; the lease as last renewed."""
        while True:
            self._delivery.hold(lease)
            parts = Parts(
                config=self.config,
                clock=self.clock,
                metrics=self.metrics,
                condition=self.condition,
                store=store,
                delivery=self._delivery,
                troubles=keeping.troubles,
                reload=self._read_again,
                refused=self._refused,
                dry_run=self._dry_run,
            )
            session = Session(parts, lease, source, key)
            session.run(self._stop)
            lease = session.lease
            if session.reloaded is None:
                return lease
            self._adopt(session.reloaded)
            keeping.adapt()
            self._deliver_anew(store, key)

    def _deliver_anew(self, store: StateStore, key: bytes) -> None:
        """Receivers as the new configuration says. What is being sent may take long to end; nothing waits for it."""
        self._delivery.hold(None)
        threading.Thread(target=self._delivery.stop, name="delivery ends", daemon=True).start()
        self._delivery = self._deliver(store, key)

    def _read_again(self) -> Reloaded | None:
        """The outcome of a reload, if one was asked for."""
        if not self._reload.is_set() or self.config.file is None:
            return None
        self._reload.clear()
        outcome = reload_config(self.config, self.config.file)
        self.metrics.config_reload_success.set(float(outcome.config is not None and not outcome.refused))
        for error in outcome.errors:
            log.error("configuration not read again: the old one stays in force", reason=error)
        for name in outcome.refused:
            log.error(f"{name} cannot be changed by a reload: the old value stays in force until a restart")
        if outcome.config is not None:
            log.info("configuration read again", sha256=outcome.digest, changed=list(outcome.changed))
        return outcome

    def _adopt(self, outcome: Reloaded | None) -> None:
        """Go on with a new configuration."""
        if outcome is None or outcome.config is None:
            return
        self._dry_run.tell(self.clock.now())
        self.config, self._refused = outcome.config, outcome.refused
        self._dry_run.config = self.config
        self.metrics.limit(self.config.limits.series)
        for sentence in without_effect(self.config):
            log.warning(sentence)

    def _healthy(self) -> tuple[bool, str]:
        """Alive as long as the loop comes round, whatever the state of brokers and databases."""
        age = self.clock.monotonic() - self.condition.healthy_at
        return age < 60.0, "ok" if age < 60.0 else f"the loop has not come round for {age:.0f} s"

    def _well(self) -> bool:
        """Whether the watch is kept, if this process holds the lease."""
        return self._healthy()[0] and self._ready()[0]

    def _ready(self) -> tuple[bool, str]:
        return self.condition.ready, self.condition.text


def run_daemon(config: Config) -> int:
    """Run in the foreground until SIGTERM or SIGINT; the exit code."""
    daemon = Daemon(config)

    def stop(number: int, _: FrameType | None) -> None:
        log.info("stopping", signal=signal.Signals(number).name)
        daemon.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, daemon.reload)
    return daemon.run()


def kafka_source(config: Config) -> Source:
    """The source that the configuration names. SourceError when its client library is missing or refuses a setting."""
    kafka = config.need_kafka()
    servers = [f"{a.host}:{a.port}" for a in kafka.bootstrap_servers]
    options: dict[str, Any] = dict(kafka.security.client_options())
    if kafka.client == "confluent-kafka":
        try:
            from monitor.intake.sources.confluent import ConfluentSource
        except ImportError as error:
            raise SourceError(_NO_CONFLUENT) from error
        return ConfluentSource(servers, source_topics(config), group=kafka.group, client_options=options)
    version = os.environ.get(API_VERSION)
    if version:
        options["api_version"] = tuple(int(part) for part in version.split("."))
    return KafkaSource(servers, source_topics(config), group=kafka.group, client_options=options)
