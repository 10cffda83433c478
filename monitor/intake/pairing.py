"""Requests joined to responses: two records with one key become the prediction events of their rows.

Halves wait for each other, whichever is read first, in memory and in state pages, so that a restart forgets none. The
wait is bounded by bytes and by age; age is running time, made of ticks, so that neither a backlog nor a halt of the
daemon lets halves expire whose other half is still to be read. Everything that does not end in a pair is counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors.base import Page
from monitor.intake.events import Event, EventType, Half, Reason, Rejected
from monitor.intake.halves import feature_rows, prediction_column, score_column
from monitor.metrics import Metrics
from monitor.state.unit import StatePage

SUBJECT: Final = "pairing:"
"""Subjects of the state begin so; the name of the request topic follows."""
PAGE_HALVES, PAGE_BYTES = 256, 1024 * 1024
"""A page takes no more halves from here on: a commit writes only the pages that changed."""
LONGEST_STEP = 5.0
"""Seconds that one tick adds to the running time at most: a halt is no running time."""
OVERHEAD = 500
"""Bytes that a waiting half costs beside its content, about."""
OUTCOMES = ("paired", "unanswered", "unmatched", "failed", "mismatched", "duplicate", "dropped")
"""paired: became events · unanswered: requests whose response did not come in time · unmatched: responses whose
request did not · failed: responses that are errors · mismatched: pairs that do not fit together · duplicate: a second
half with a key that waits already (it is kept, and the first is paired first) · dropped: waiting halves pushed out by
newer ones."""
_VERSION = 1
DETECTOR: Final = "pairing"
"""Under this name pages are stored."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Half).decode


@dataclass(frozen=True, slots=True)
class PairingRules:
    """One pairing: its name (of the request topic) and how long and with how much memory halves wait."""

    name: str
    max_age: float = 600.0
    max_bytes: int = 64 * 1024 * 1024


Names = Callable[[str, str], tuple[Sequence[str], Sequence[str]]]
"""Declared features and classes of a model, by name and tenant."""


class _Waiting(msgspec.Struct, array_like=True, gc=False):
    number: int
    since: float
    """Running time when it came."""
    is_response: bool
    key: str
    packed: bytes
    page: int = -1


_decode_page = msgspec.msgpack.Decoder(list[_Waiting]).decode


@dataclass(slots=True)
class _Page:
    halves: dict[int, _Waiting] = field(default_factory=dict)
    bytes: int = 0


class Paired(NamedTuple):
    """Events, and the record that is their identity: the response, whichever came last."""

    events: list[Event]
    place: tuple[str, int, int]


class Pairing:
    """Halves of one pair of topics. One thread owns it."""

    def __init__(self, rules: PairingRules, metrics: Metrics, names: Names) -> None:
        self.rules = rules
        self.subject = SUBJECT + rules.name
        self.counts = dict.fromkeys(OUTCOMES, 0)
        self.bytes = 0
        self._metrics = metrics
        self._names = names
        self._next = 0
        self._running = 0.0
        self._last_tick = 0.0
        self._waiting: dict[int, _Waiting] = {}
        """By number, oldest first."""
        self._by_key: dict[str, deque[int]] = {}
        self._pages: dict[int, _Page] = {}
        self._filling = 0
        self._dirty: set[int] = set()

    def pair(self, half: Half) -> Paired:
        """The events that `half` completes; none where it is the first of its pair.

        Raises Rejected where the two do not fit together: then both are used up.
        """
        other = self._other(half)
        if other is None:
            self._keep(half)
            return Paired([], half.place)
        request, response = (other, half) if half.is_response else (half, other)
        if response.failed:
            self._count("failed")
            return Paired([], response.place)
        try:
            events = self._events(request, response)
        except Rejected:
            self._count("mismatched")
            raise
        self._count("paired")
        return Paired(events, response.place)

    def tick(self, at: float) -> None:
        """Let time pass: halves that waited too long go."""
        if self._last_tick:
            self._running += min(max(at - self._last_tick, 0.0), LONGEST_STEP)
        self._last_tick = at
        while self._waiting:
            oldest = next(iter(self._waiting.values()))
            if self._running - oldest.since <= self.rules.max_age:
                break
            self._count("unmatched" if oldest.is_response else "unanswered")
            self._drop(oldest)
        responses = sum(w.is_response for w in self._waiting.values())
        waiting, name = self._metrics.pairing_waiting, self.rules.name
        waiting.labels(name, "request").set(len(self._waiting) - responses)
        waiting.labels(name, "response").set(responses)
        self._metrics.pairing_bytes.labels(name).set(self.bytes)

    def dirty(self) -> list[StatePage]:
        """Pages changed since the last call, the counts among them."""
        counts = np.array([self._next, *self.counts.values()], np.int64)
        clock = np.array([self._running, self._last_tick])
        pages = [self._page("counts", {"counts": counts, "clock": clock})]
        for number in sorted(self._dirty):
            page = self._pages.get(number)
            packed = _encode(list(page.halves.values()) if page else [])
            pages.append(self._page(f"{number:06d}", {"halves": np.frombuffer(packed, np.uint8).copy()}))
        self._dirty.clear()
        return pages

    def restore(self, pages: Iterable[StatePage]) -> None:
        """Take stored pages. ValueError: they are of another version."""
        found: list[_Waiting] = []
        for page in pages:
            if page.version != _VERSION:
                raise ValueError(f"stored state has version {page.version}, this build reads version {_VERSION}")
            if page.page == "counts":
                self._next, *counts = page.arrays["counts"].tolist()
                self.counts = dict(zip(OUTCOMES, counts, strict=True))
                self._running, self._last_tick = page.arrays["clock"].tolist()
            else:
                found += _decode_page(page.arrays["halves"].tobytes())
        for waiting in sorted(found, key=lambda w: w.number):
            self._next = max(self._next, waiting.number + 1)
            self._running = max(self._running, waiting.since)  # where the page with the clock was not to be read
            self._file(waiting)

    # --- inside --------------------------------------------------------------------------------------------------

    def _other(self, half: Half) -> Half | None:
        """The oldest waiting half that `half` completes, taken out."""
        queue = self._by_key.get(half.key)
        if queue is None:
            return None
        waiting = self._waiting[queue[0]]
        if waiting.is_response == half.is_response:
            self._count("duplicate")
            return None
        self._drop(waiting)
        return _decode(waiting.packed)

    def _keep(self, half: Half) -> None:
        waiting = _Waiting(self._next, self._running, half.is_response, half.key, _encode(half), self._free_page())
        self._next += 1
        self._file(waiting)
        self._dirty.add(waiting.page)
        while self.bytes > self.rules.max_bytes:
            self._count("dropped")
            self._drop(next(iter(self._waiting.values())))

    def _file(self, waiting: _Waiting) -> None:
        self._waiting[waiting.number] = waiting
        self._by_key.setdefault(waiting.key, deque()).append(waiting.number)
        page = self._pages.setdefault(waiting.page, _Page())
        page.halves[waiting.number] = waiting
        page.bytes += len(waiting.packed)
        self.bytes += _size(waiting)

    def _drop(self, waiting: _Waiting) -> None:
        del self._waiting[waiting.number]
        queue = self._by_key[waiting.key]
        queue.popleft()  # of one key the oldest goes first, by pair, by age and by bytes
        if not queue:
            del self._by_key[waiting.key]
        page = self._pages[waiting.page]
        del page.halves[waiting.number]
        page.bytes -= len(waiting.packed)
        if not page.halves:
            del self._pages[waiting.page]
        self._dirty.add(waiting.page)
        self.bytes -= _size(waiting)

    def _free_page(self) -> int:
        """The page that takes the next half: the one being filled, else the lowest that holds nothing."""
        page = self._pages.get(self._filling)
        if page is not None and (len(page.halves) >= PAGE_HALVES or page.bytes >= PAGE_BYTES):
            self._filling = next(n for n in range(len(self._pages) + 1) if n not in self._pages)
        return self._filling

    def _events(self, request: Half, response: Half) -> list[Event]:
        model = response.model or request.model
        if model is None:
            raise Rejected(Reason.NO_SUBJECT, "neither request nor response names a model")
        if request.rows != response.rows:
            raise Rejected(Reason.BAD_FIELD, f"the request has {request.rows} rows, the response {response.rows}")
        tenant = response.tenant or request.tenant
        features, classes = self._names(model, tenant)
        predictions = prediction_column(response, classes)
        scores = score_column(response, classes)
        passed = (response.time - request.time) * 1_000
        single = request.rows == 1
        return [
            Event(
                EventType.PREDICTION,
                response.time,
                row=i,
                event_id=response.key if single else f"{response.key}/{i}",
                request_id=response.key,
                model=model,
                tenant=tenant,
                model_version=response.model_version or request.model_version,
                client=request.client or response.client,
                features=row,
                prediction=predictions[i] if predictions is not None else None,
                scores=scores[i] if scores is not None else None,
                latency_ms=passed if passed >= 0 else None,
            )
            for i, row in enumerate(feature_rows(request, features))
        ]

    def _count(self, outcome: str) -> None:
        self.counts[outcome] += 1
        self._metrics.pairing.labels(self.rules.name, outcome).inc()

    def _page(self, name: str, arrays: Page) -> StatePage:
        return StatePage(self.subject, DETECTOR, "", name, _VERSION, arrays)


def _size(waiting: _Waiting) -> int:
    return len(waiting.packed) + len(waiting.key) + OVERHEAD


def split_stored(pages: Iterable[StatePage]) -> tuple[dict[str, list[StatePage]], list[StatePage]]:
    """Pages of pairings by name, and all others."""
    own: dict[str, list[StatePage]] = {}
    others: list[StatePage] = []
    for page in pages:
        if page.subject.startswith(SUBJECT):
            own.setdefault(page.subject.removeprefix(SUBJECT), []).append(page)
        else:
            others.append(page)
    return own, others
