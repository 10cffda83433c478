"""Posts the messages of one webhook receiver, from the outbox: at least once each, with one key, in order per incident.

Waiting belongs to the receiver: after a failure nothing is posted for a while, then one message is tried. A message
that the receiver read and refused (400, 413, 415, 422) waits by itself, so that it holds up no other incident, and is
given up when it is refused still a day after it was made.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import structlog

from alerts.render import PSEUDONYM, revealed
from alerts.sinks.alertmanager import DeliveryError
from alerts.sinks.webhook import TIMEOUT, Answer
from monitor.clock import Clock
from monitor.failpoints import failpoint
from monitor.metrics import Metrics
from monitor.state.errors import StoreError
from monitor.state.outbox import OutboxMessage
from monitor.state.store import StateStore

log = structlog.get_logger(__name__)
IDLE_SECONDS: Final = 5.0
"""Between looks at the outbox when nothing wakes the worker."""
CLAIM_SECONDS: Final = 2 * TIMEOUT
"""A claim of a dead worker runs out after this; a live one begins no POST in its second half."""
CLAIMED: Final = 20
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds before a receiver is tried again: after the first failure, and at most (unless it asks for more)."""
LONGEST_REFUSED: Final = 300.0
"""Seconds, at most, before a refused message is sent again."""
GIVE_UP_AFTER: Final = 86_400.0
"""Seconds from the making of a message, as stored, after which it is not sent again when it is refused."""
_REFUSED = frozenset({400, 413, 415, 422})
Reveal = Callable[[Iterable[str]], Mapping[str, str]]


class Sink(Protocol):
    """What takes the messages of one receiver, as `alerts.sinks.webhook.Webhook` does."""

    def post(self, key: str, body: bytes, now: float) -> Answer:
        """Hand a message over; `key` is the same when it comes again. Raises DeliveryError where nobody answers."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...


class WebhookWorker:
    """A thread for one receiver. It posts only while told that this process holds the lease."""

    def __init__(
        self,
        name: str,
        webhook: Sink,
        store: StateStore,
        metrics: Metrics,
        clock: Clock,
        reveal: Reveal | None = None,
    ) -> None:
        self.name = name
        self._webhook = webhook
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._reveal = reveal
        """Looks pseudonyms up where the receiver is shown identifiers in clear."""
        self._failures = 0
        self._closed_until = 0.0
        """Monotonic time before which nothing is posted."""
        self._refused_once: set[int] = set()
        """Numbers of messages refused since this start: one that is old by then is tried again at least once."""
        self._held = False
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"webhook {name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """End after the POST under way."""
        self._stopping = True
        self._wake.set()

    def join(self, timeout: float) -> None:
        """Wait for the end."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def hold(self, held: bool) -> None:
        """Whether this process holds the lease."""
        self._held = held
        self._wake.set()

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def round(self) -> float:
        """Post what is due. Returns the seconds to wait, 0 when there may be more."""
        left = self._closed_until - self._clock.monotonic()
        if not self._held:
            return IDLE_SECONDS
        if left > 0:
            return left
        begin = self._clock.monotonic()
        claimed = self._store.claim_outbox([self.name], CLAIM_SECONDS, 1 if self._failures else CLAIMED)
        for message in claimed:
            late = self._clock.monotonic() - begin > CLAIM_SECONDS - TIMEOUT
            if late or self._closed_until > begin or self._stopping or not self._held:
                # Given back; who comes next sends it.
                self._store.mark_failed(message, "", retry_in=0.0)
            else:
                self._send(message)
        return 0.0 if claimed else IDLE_SECONDS

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                wait = self.round()
                self._show_counts()
            except StoreError as error:
                log.warning("outbox cannot be read", receiver=self.name, reason=str(error))
                wait = IDLE_SECONDS
            except Exception:
                log.exception("delivery failed", receiver=self.name)
                wait = LONGEST_WAIT
            if wait and not self._stopping:
                self._wake.wait(wait)
        self._webhook.close()

    def _send(self, message: OutboxMessage) -> None:
        try:
            answer = self._webhook.post(message.key, self._body(message), self._clock.now())
        except DeliveryError as error:
            self._failed(message, str(error), None)
            return
        failpoint("after_post")
        # What a receiver repeats of a message in clear must not get into the database or the log.
        text = answer.text if self._reveal is None else ""
        said = f"answered {answer.status}: {text}".rstrip(": ")
        if 200 <= answer.status < 300:
            self._store.mark_delivered(message)
            self._refused_once.discard(message.number)
            self._failures = 0
            self._metrics.notifications.labels(self.name).inc()
            self._metrics.notified.labels(self.name).set(self._clock.now())
        elif answer.status == 410:
            self._failures = 0
            self._give_up(message, said)
        elif answer.status in _REFUSED:
            self._failures = 0
            self._refused(message, said)
        else:
            self._failed(message, said, answer.retry_after)
        failpoint("after_mark")

    def _failed(self, message: OutboxMessage, reason: str, asked: float | None) -> None:
        """The receiver is away: leave it alone for a while."""
        wait = min(FIRST_WAIT * 2.0 ** min(self._failures, 10), LONGEST_WAIT)
        wait = wait if asked is None else max(asked, FIRST_WAIT)
        self._failures += 1
        self._closed_until = self._clock.monotonic() + wait
        self._metrics.notifications_failed.labels(self.name).inc()
        log.warning("message not taken", receiver=self.name, key=message.key, reason=reason, again_in=wait)
        self._store.mark_failed(message, reason[:1_000], retry_in=0.0)

    def _refused(self, message: OutboxMessage, reason: str) -> None:
        """The receiver is well, and does not want this message as it is."""
        old = self._clock.now() - message.created_at > GIVE_UP_AFTER
        if old and message.number in self._refused_once:
            self._give_up(message, reason)
            return
        self._refused_once.add(message.number)
        wait = min(FIRST_WAIT * 2.0 ** min(message.attempt, 10), LONGEST_REFUSED)
        self._metrics.notifications_failed.labels(self.name).inc()
        log.warning("message refused", receiver=self.name, key=message.key, reason=reason, again_in=wait)
        self._store.mark_failed(message, reason[:1_000], retry_in=wait)

    def _give_up(self, message: OutboxMessage, reason: str) -> None:
        """It is never sent again; the outbox counts it as failed."""
        self._refused_once.discard(message.number)
        self._metrics.given_up.labels(self.name).inc()
        log.error("message given up", receiver=self.name, key=message.key, reason=reason)
        self._store.mark_failed(message, reason[:1_000], retry_in=None)

    def _show_counts(self) -> None:
        counts = self._store.outbox_counts(self.name)
        for state, count in counts._asdict().items():
            self._metrics.outbox.labels(self.name, state).set(count)

    def _body(self, message: OutboxMessage) -> bytes:
        """The bytes to sign and send: as stored, or with identifiers where this receiver is shown them."""
        if self._reveal is None:
            return message.payload.encode()
        body: dict[str, Any] = json.loads(message.payload)
        known = self._reveal(PSEUDONYM.findall(message.payload))
        body["data"] = revealed(body["data"], lambda name: known.get(name, name))
        return json.dumps(body).encode()
