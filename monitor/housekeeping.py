"""What the daemon does beside the loop: retention, expiry of identities, signs of life, the size of the database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from monitor import heartbeat
from monitor.clock import Clock
from monitor.config import AlertmanagerReceiver, Config
from monitor.metrics import Metrics
from monitor.schedule import Schedule, Task, Trouble
from monitor.state import identities, retention
from monitor.state.database import sqlite_path
from monitor.state.errors import Fenced
from monitor.state.lease import Lease
from monitor.state.store import StateStore

RETENTION_SECONDS: Final = 3_600.0
EXPIRY_SECONDS: Final = 3_600.0
SIZE_SECONDS: Final = 60.0
HEARTBEAT: Final = "heartbeat"
SOON_SECONDS: Final = 60.0
"""Removal begins this long after the start, when the daemon has caught up with more urgent things."""
REST_SECONDS: Final = 0.05
"""Between batches of removal: others write meanwhile."""


class Housekeeping:
    """Removes and tells on behalf of the lease, as long as this process holds it. `well`: active, ready and alive."""

    def __init__(
        self, store: StateStore, config: Callable[[], Config], metrics: Metrics, clock: Clock, well: Callable[[], bool]
    ) -> None:
        self._store = store
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._well = well
        self._lease: Lease | None = None
        self._stopping = threading.Event()
        self._beating: float | None = None
        """Interval of the signs of life; None: none are wanted."""
        tasks = [
            Task("database_size", SIZE_SECONDS, self.size),
            Task("retention", RETENTION_SECONDS, self.sweep, SOON_SECONDS),
            Task("identity_expiry", EXPIRY_SECONDS, self.expire, 2 * SOON_SECONDS),
        ]
        self._schedule = Schedule(tasks, metrics)
        self.adapt()

    def start(self) -> None:
        """Begin."""
        self._schedule.start()

    def stop(self) -> None:
        """End, at the next batch of what runs."""
        self._stopping.set()
        self._schedule.stop()

    def adapt(self) -> None:
        """Give signs of life as the configuration now says."""
        beat = self._config().heartbeat
        every = beat.every.total_seconds() if beat.url is not None or beat.alertmanager else None
        if every == self._beating:
            return
        self._beating = every
        if every is None:
            self._schedule.drop(HEARTBEAT)
        else:
            self._schedule.put(Task(HEARTBEAT, every, self.beat))

    def hold(self, lease: Lease | None) -> None:
        """Work on behalf of this lease from now on; None: keep still."""
        self._lease = lease

    def troubles(self) -> list[Trouble]:
        """Tasks that began to fail again and again, or work again, since the last call."""
        return self._schedule.troubles()

    def sweep(self) -> bool:
        """Remove rows past `store.retention`."""
        lease, kept = self._lease, self._config().store.retention
        if lease is None:
            return False
        ages = retention.Ages(*(age.total_seconds() for age in (kept.incidents, kept.evidence, kept.dead_letters)))
        try:
            removed = retention.sweep(self._store.db, lease, ages, self._clock.now(), self._rest)
        except Fenced:
            return False  # the next holder goes on
        for table, rows in removed.items():
            self._metrics.rows_removed.labels(table).inc(rows)
        return True

    def expire(self) -> bool:
        """Delete identities not seen for `identity.expire`."""
        lease, age = self._lease, self._config().identity.expire.total_seconds()
        if lease is None:
            return False
        try:
            removed = identities.expire(self._store.db, lease, self._clock.now() - age, self._rest)
        except Fenced:
            return False
        self._metrics.rows_removed.labels("identities").inc(removed)
        return True

    def size(self) -> bool:
        """Measure the database."""
        self._metrics.database_bytes.set(database_bytes(self._store))
        return True

    def beat(self) -> bool:
        """Give signs of life, if all is well. `notify: off` holds back incidents, not these."""
        if self._lease is None or not self._well():
            return False
        config = self._config()
        receivers = [r for r in config.receivers.values() if isinstance(r, AlertmanagerReceiver)]
        every = config.heartbeat.every.total_seconds()
        if config.heartbeat.alertmanager:
            for receiver in receivers:
                urls = [str(url) for url in receiver.urls]
                heartbeat.keep_firing(urls, self._store.db.group, self._clock.now(), every)
        if config.heartbeat.url is not None:
            heartbeat.ask(config.heartbeat.url)
        return True

    def _rest(self) -> bool:
        """Wait a little; whether to end the work."""
        return self._stopping.wait(REST_SECONDS) or self._lease is None


def database_bytes(store: StateStore) -> int:
    """Size of the database: of SQLite's files, or of the PostgreSQL database with all that is in it."""
    path = sqlite_path(store.db.url)
    if path is not None:
        files = [path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))]
        return sum(file.stat().st_size for file in files if file.exists())
    with store.db.read() as connection:
        return int(connection.execute(sa.select(sa.func.pg_database_size(sa.func.current_database()))).scalar_one())
