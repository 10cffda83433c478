"""What speaks against the clients of one model: evidence of all tests in one account, and whom it names.

A client stays named until a day has passed without new evidence; then its incident closes, and it is judged anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alerts.attribution import WORDS, attack_of
from detectors.base import Batch, ClientEvidence, Detector, Finding, Measure, Page, StateError, SubjectRef, Suspect
from detectors.client_account import ClientAccount

QUIET = 86_400.0
"""Seconds without new evidence after which a named client is let go."""
REPEAT = 3_600.0
"""Seconds between two findings about the same client and test."""
_DAY = 86_400.0
_MONTH = 30 * _DAY
_FIRST_N30 = 1_000_000.0
"""Events a month that are assumed until a day of traffic has been seen."""


@dataclass(slots=True)
class _Named:
    """A client that an incident is open about. Times are event times in epoch seconds."""

    kind: str
    last: float
    told: dict[str, float]
    """Test → when it was last reported."""


class Suspicion:
    """The attack account of one model. Evidence is gathered while detectors run, and judged when all have."""

    def __init__(self, detectors: Sequence[Detector], budget: float, services: Mapping[str, str]) -> None:
        """`services` maps declared service accounts (as they stand in events) to their names."""
        self.account = ClientAccount(budget, [d.name for d in detectors], _FIRST_N30)
        self._atlas = {d.name: d.atlas for d in detectors}
        self._services = dict(services)
        self._named: dict[str, _Named] = {}
        self._given: list[ClientEvidence] = []
        self._events = 0
        self._first = self._last = math.nan
        self._changed = False

    @property
    def named(self) -> int:
        """Clients that incidents are open about."""
        return len(self._named)

    def add(self, evidence: ClientEvidence) -> None:
        """Take the evidence of one detector on the events of the batch at hand."""
        self._given.append(evidence)

    def judge(self, batch: Batch) -> Iterator[Finding]:
        """Findings on this batch, in the order of its events."""
        given, self._given = self._given, []
        self._count(batch)
        if not given:
            return
        joined = ClientEvidence(
            detector="queries",
            log_e=np.concatenate([e.log_e for e in given], axis=1),
            time=batch.time,
            client=batch.client,
            clients=batch.clients,
            tests=tuple(t for e in given for t in e.tests),
            usual=tuple(u for e in given for u in e.usual),
        )
        usual = dict(zip(joined.tests, joined.usual, strict=True))
        for suspect in self.account.judge(joined):
            finding = self._finding(suspect, batch, usual[suspect.test])
            if finding is not None:
                yield finding

    def advance(self, watermark: float) -> Iterator[Finding]:
        """Let go whoever has been quiet for a day."""
        for client in [c for c, named in self._named.items() if watermark - named.last > QUIET]:
            named = self._named.pop(client)
            self._changed = True
            self.account.release(client)
            yield Finding(
                detector=next(iter(named.told)),
                kind=named.kind,
                account="attack",
                severity="info",
                time=watermark,
                row=-1,
                position=0,
                subjects=(),
                onset=named.last,
                measures=(),
                cause=_cause(client),
                action="recover",
            )

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        pages = self.account.dirty()
        if self._changed or pages:
            self._changed = False
            rows: list[Any] = [[c, n.kind, n.last, n.told] for c, n in self._named.items()]
            pages["named"] = {
                "named": np.frombuffer(json.dumps(rows).encode(), np.uint8).copy(),
                "seen": np.array([self._events, self._first, self._last]),
            }
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the state of an equal account. StateError when it does not fit."""
        named = pages.get("named")
        if named is None or named["seen"].shape != (3,):
            raise StateError("the page of named clients is missing or has another shape")
        self.account.restore({name: page for name, page in pages.items() if name != "named"})
        rows = json.loads(named["named"].astype(np.uint8).tobytes())
        self._named = {client: _Named(kind, last, told) for client, kind, last, told in rows}
        events, self._first, self._last = named["seen"].tolist()
        self._events = int(events)
        self._set_threshold()

    def _count(self, batch: Batch) -> None:
        """Keep the monthly volume, on which the threshold depends. It is moved between batches only."""
        self._set_threshold()
        if len(batch):
            self._events += len(batch)
            self._changed = True
            now = float(np.median(batch.time))
            if math.isnan(self._first):
                self._first = self._last = now
            # One event of a wrong time must not move the volume for good: time goes on a day a batch, at most.
            self._last = max(self._last, min(now, self._last + _DAY))

    def _set_threshold(self) -> None:
        span = self._last - self._first
        if span >= _DAY:
            self.account.n30 = self._events / span * _MONTH

    def _finding(self, suspect: Suspect, batch: Batch, usual: float) -> Finding | None:
        """The finding about a client that crossed the threshold, unless the same was said within the hour."""
        now = float(batch.time[suspect.row])
        named = self._named.get(suspect.client)
        self._changed = True
        if named is None:
            named = self._named[suspect.client] = _Named(attack_of(suspect.test, suspect.evidence), now, {})
        named.last = max(named.last, now)
        if now - named.told.get(suspect.test, -math.inf) < REPEAT:
            return None
        named.told[suspect.test] = now
        version = int(batch.version[suspect.row])
        return Finding(
            detector=suspect.test,
            kind=named.kind,
            account="attack",
            severity="info" if suspect.client in self._services else "warning",
            time=now,
            row=suspect.row,
            position=batch.start + suspect.row,
            subjects=(SubjectRef("client", suspect.client),),
            onset=suspect.since,
            measures=self._measures(suspect, now, usual),
            cause=_cause(suspect.client),
            model_version=batch.versions[version] if version >= 0 else None,
            atlas=self._atlas[suspect.test],
        )

    def _measures(self, suspect: Suspect, now: float, usual: float) -> tuple[Measure, ...]:
        share = Measure(
            suspect.test, f"client {suspect.client}", suspect.hits / max(suspect.n, 1), usual, "share", suspect.n,
            suspect.since, now, statistic=WORDS.get(suspect.test, suspect.test),
        )  # fmt: skip
        ratio = math.exp(min(suspect.evidence[suspect.test], 700.0))
        evidence = Measure(
            suspect.test, suspect.test, ratio, 1.0, "ratio", suspect.n, suspect.since, now, statistic="evidence"
        )
        return share, evidence


def _cause(client: str) -> str:
    return f"client:{client}"
