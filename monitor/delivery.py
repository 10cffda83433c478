"""The delivery thread: tells receivers what is open, from SQL, at each interval and at once when something changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx
import structlog

from alerts.incidents import Incident
from alerts.render import Owner
from alerts.sinks.alertmanager import DeliveryError, Notified, post, reconcile
from monitor.clock import Clock
from monitor.metrics import Metrics
from monitor.state.errors import Fenced, StoreError
from monitor.state.lease import Lease
from monitor.state.notified import NotifiedAlert
from monitor.state.store import StateStore
from monitor.webhooks import WebhookWorker

log = structlog.get_logger(__name__)
INTERVAL = 15.0
"""Seconds between reconciliations: an alert is sent with an end three intervals away."""
_TIMEOUT = httpx.Timeout(5.0, connect=2.0)
_STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class AlertmanagerTarget:
    """A receiver of type alertmanager: every member of the cluster is posted to."""

    name: str
    urls: tuple[str, ...]


class Delivery:
    """Reconciles Alertmanagers with SQL while this process holds the lease. Failures are counted and tried again."""

    def __init__(
        self,
        store: StateStore,
        targets: Sequence[AlertmanagerTarget],
        metrics: Metrics,
        clock: Clock,
        wanted: Callable[[str, Incident], bool],
        webhooks: Sequence[WebhookWorker] = (),
        owner: Owner = lambda incident: None,
    ) -> None:
        self._store = store
        self._targets = targets
        self._metrics = metrics
        self._clock = clock
        self._wanted = wanted
        """Whether a receiver is told of an incident."""
        self._webhooks = webhooks
        self._owner = owner
        self._lease: Lease | None = None
        self._known: dict[str, list[Incident]] = {}
        """By receiver: what was open when SQL was last read."""
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    def start(self) -> None:
        """Begin."""
        if self._targets:
            self._thread.start()
        for worker in self._webhooks:
            worker.start()

    def stop(self, timeout: float = _STOP_SECONDS) -> None:
        """End. What is open is told again by whoever holds the lease next."""
        self._stopping = True
        self._wake.set()
        for worker in self._webhooks:
            worker.ask_to_stop()
        end = time.monotonic() + timeout
        if self._thread.is_alive():
            self._thread.join(timeout)
        for worker in self._webhooks:
            worker.join(max(0.0, end - time.monotonic()))

    def hold(self, lease: Lease | None) -> None:
        """Send on behalf of this lease from now on; None: keep still."""
        self._lease = lease
        for worker in self._webhooks:
            worker.hold(lease is not None)

    def wake(self) -> None:
        """Something changed: do not wait for the interval."""
        self._wake.set()
        for worker in self._webhooks:
            worker.wake()

    def _run(self) -> None:
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=False) as client:
            while not self._stopping:
                self._wake.wait(INTERVAL)
                self._wake.clear()
                lease = self._lease
                if lease is None:
                    continue
                for target in self._targets:
                    self._round(client, target, lease)

    def _round(self, client: httpx.Client, target: AlertmanagerTarget, lease: Lease) -> None:
        now = self._clock.now()
        try:
            incidents = [i for i in self._store.open_incidents() if self._wanted(target.name, i)]
            told = [Notified(*row) for row in self._store.notified_alerts(target.name)]
            self._known[target.name] = incidents
            alerts, remember, forget = reconcile(incidents, told, now, INTERVAL, self._owner)
            if alerts and not self._post(client, target, alerts):
                return
            rows = [NotifiedAlert(r.labels, r.starts_at, r.last_sent, r.resolved_at) for r in remember]
            if rows or forget:
                self._store.save_notified(target.name, rows, [r.labels for r in forget], lease)
        except StoreError as error:
            # What is open must not look resolved because the database is away.
            log.warning("alerts told from memory", receiver=target.name, reason=str(error))
            alerts, _, _ = reconcile(self._known.get(target.name, []), [], now, INTERVAL, self._owner)
            if alerts and not isinstance(error, Fenced):
                self._post(client, target, alerts)
        except Exception:
            log.exception("delivery failed", receiver=target.name)

    def _post(self, client: httpx.Client, target: AlertmanagerTarget, alerts: Sequence[Mapping[str, object]]) -> bool:
        """Post to every member; true when at least one took it (they share what they know)."""
        taken = False
        for url in target.urls:
            try:
                post(client, url, [dict(a) for a in alerts])
            except DeliveryError as error:
                self._metrics.notifications_failed.labels(target.name).inc()
                log.warning("alerts not sent", receiver=target.name, error=str(error))
            else:
                taken = True
                self._metrics.notifications.labels(target.name).inc(len(alerts))
                self._metrics.notified.labels(target.name).set(self._clock.now())
        return taken
