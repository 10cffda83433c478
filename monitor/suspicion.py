"""What speaks against the clients of one model: evidence of all tests in one account, and whom it names.

Two stages: the tests of queries only suspect (`unusual_client`, severity info); the second stage, which sees how a
client moves from query to query, names. A client stays suspected or named until a day has passed without new
evidence; then its incidents close, and it is judged anew. Of each kind of attack it has one incident.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alerts.attribution import (
    LOOK_WORDS,
    MOVE_WORDS,
    SECOND_STAGE,
    SHARED,
    SHARED_WORDS,
    TRAINING_ROWS,
    WORDS,
    atlas_of,
    attack_of,
    attack_of_move,
)
from alerts.incidents import SUPERSEDES
from alerts.why import BLAME, QUERIES
from detectors.base import (
    F64,
    JOINS,
    Batch,
    ClientEvidence,
    Detector,
    Finding,
    Measure,
    Page,
    StateError,
    SubjectRef,
    Suspect,
    Views,
)
from detectors.client_account import ClientAccount
from detectors.moves.blame import LEAST, MOST_OF_IT
from detectors.moves.second_stage import Naming, SecondStage
from detectors.queries.query_budget import budget_cause
from monitor.printable import whereabouts

QUIET = 86_400.0
"""Seconds without new evidence after which a named client is let go."""
REPEAT = 3_600.0
"""Seconds between two findings about the same client and test."""
_DAY = 86_400.0
_MONTH = 30 * _DAY
UNUSUAL = "unusual_client"
_EASIER = math.log(100)
"""A client is named at a hundredth of the evidence ratio at which a single test suspects it."""
_MOVES = "moves."
"""Begins the names of the second stage's pages."""
_NAMED_BYTES = 1_024
"""What is kept of a client that an incident is open about, about."""
_FIRST_N30 = 1_000_000.0
"""Events a month that are assumed until a day of traffic has been seen."""


@dataclass(slots=True)
class _Named:
    """A client that an incident is open about. Times are event times in epoch seconds."""

    kind: str
    """What it was named for last."""
    last: float
    told: dict[str, float]
    """Test → when it was last reported."""
    kinds: list[str]
    """Kinds of the incidents that are open, one each."""


class Suspicion:
    """The attack account of one model. Evidence is gathered while detectors run, and judged when all have."""

    def __init__(
        self,
        detectors: Sequence[Detector],
        budget: float,
        services: Mapping[str, str],
        second: SecondStage | None = None,
    ) -> None:
        """`services` maps declared service accounts (as they stand in events) to their names.

        Without a `second` stage the tests of queries name whom they suspect.
        """
        self.account = ClientAccount(budget, [d.name for d in detectors], _FIRST_N30)
        self._atlas = {d.name: d.atlas for d in detectors}
        self._services = dict(services)
        self._second = second
        self.failures: list[str] = []
        """Errors that stopped the second stage, not yet told; the caller empties it."""
        self._named: dict[str, _Named] = {}
        self._given: list[ClientEvidence] = []
        self._events = 0
        self._first = self._last = math.nan
        self._changed = False

    @property
    def named(self) -> int:
        """Clients that incidents are open about, suspects among them."""
        return len(self._named)

    @property
    def watched(self) -> int:
        """Clients that the second stage watches."""
        return 0 if self._second is None else self._second.watched

    @property
    def second(self) -> SecondStage | None:
        """The stage that names; None where there is none, or an error stopped it."""
        return self._second

    @property
    def suspects(self) -> frozenset[str]:
        """Clients that incidents are open about."""
        return frozenset(self._named)

    @property
    def attackers(self) -> frozenset[str]:
        """Clients that incidents of attacks are open about."""
        return frozenset(client for client, named in self._named.items() if named.kind != UNUSUAL)

    @property
    def marked(self) -> frozenset[str]:
        """Suspects, and clients that the second stage watches."""
        return self.suspects if self._second is None else self.suspects | self._second.clients

    @property
    def bytes(self) -> int:
        """What is held of clients, about."""
        second = 0 if self._second is None else self._second.bytes
        return self.account.bytes + second + _NAMED_BYTES * len(self._named)

    def add(self, evidence: ClientEvidence) -> None:
        """Take the evidence of one detector on the events of the batch at hand."""
        self._given.append(evidence)

    def judge(self, batch: Batch, views: Views | None = None) -> Iterator[Finding]:
        """Findings on this batch, in the order of its events. The second stage needs the `views` of the batch."""
        given, self._given = self._given, []
        self._count(batch)
        suspects, usual = self._suspects(batch, given)
        namings = self._namings(views, given)
        findings = [self._suspected(s, batch, usual[s.test], namings) for s in suspects]
        findings += [self._attacks(naming, batch) for naming in namings.values()]
        yield from sorted((f for f in findings if f is not None), key=lambda f: f.row)

    def _suspects(self, batch: Batch, given: Sequence[ClientEvidence]) -> tuple[tuple[Suspect, ...], dict[str, float]]:
        """Who crossed the threshold of a test, and the share of an honest client's hits by test."""
        if not given:
            self.account.level = np.zeros(len(batch))
            return (), {}
        joined = ClientEvidence(
            detector="queries",
            log_e=np.concatenate([e.log_e for e in given], axis=1),
            time=batch.time,
            client=batch.client,
            clients=batch.clients,
            tests=tuple(t for e in given for t in e.tests),
            usual=tuple(u for e in given for u in e.usual),
        )
        return self.account.judge(joined), dict(zip(joined.tests, joined.usual, strict=True))

    def _namings(self, views: Views | None, given: Sequence[ClientEvidence]) -> dict[str, Naming]:
        """Whom the second stage names in this batch, by client."""
        if self._second is None or views is None:
            return {}
        evidence: dict[str, F64] = {t: e.log_e[:, k] for e in given for k, t in enumerate(e.tests)}
        least = self.account.threshold - _EASIER
        now = float(views.batch.time.max(initial=-math.inf))
        # Named within the hour: nothing new can be told, so nothing need be watched.
        attackers = {
            client
            for client, named in self._named.items()
            if named.kind != UNUSUAL and now - max(named.told.values()) < REPEAT
        }
        try:
            found = self._second.judge(
                views, evidence, self.account.level, least, attackers, self.suspects, self._services
            )
        except Exception as error:
            # Better too many names than none: from here on the tests name whom they suspect.
            self._second = None
            self.failures.append(whereabouts(error))
            return {}
        return {naming.client: naming for naming in found}

    def blamed(self, finding: Finding, batch: Batch) -> Finding:
        """A drift found in the batch judged last, with the clients named whose doing it is, if it is the doing of a
        single one, or of the suspects."""
        if self._second is None or finding.account != "drift" or finding.action != "open" or finding.row < 0:
            return finding
        features = {s.id for s in finding.subjects if s.type == "feature"}
        parts = self._second.blame(batch, finding.row, features, finding.onset)
        guilty = [(client, p) for client, p in parts[:1] if p.part >= MOST_OF_IT and p.n >= LEAST]
        if not guilty:
            guilty = [(client, p) for client, p in parts if client in self._named and p.part > 0]
            if sum(p.part for _, p in guilty) < MOST_OF_IT or sum(p.n for _, p in guilty) < LEAST:
                return finding
        now = float(batch.time[finding.row])
        told = tuple(
            Measure(
                SECOND_STAGE, f"client {client}", p.part, p.n / p.of, "share", p.of, finding.onset, now,
                statistic=BLAME,
            )
            for client, p in guilty
        )  # fmt: skip
        clients = tuple(SubjectRef("client", client) for client, _ in guilty)
        return replace(
            finding,
            subjects=(*finding.subjects, *clients),
            measures=(*finding.measures, *told),
            cause=f"moved by {guilty[0][0]}",
        )

    def advance(self, watermark: float) -> Iterator[Finding]:
        """Let go whoever has been quiet for a day."""
        for client in [c for c, named in self._named.items() if watermark - named.last > QUIET]:
            named = self._named.pop(client)
            self._changed = True
            self.account.release(client)
            if self._second is not None:
                self._second.release(client)
            for kind in named.kinds:
                yield _recovery(next(iter(named.told)), kind, client, watermark, named.last)

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        pages = self.account.dirty()
        if self._changed or pages:
            self._changed = False
            rows: list[Any] = [[c, n.kind, n.last, n.told, n.kinds] for c, n in self._named.items()]
            pages["named"] = {
                "named": np.frombuffer(json.dumps(rows).encode(), np.uint8).copy(),
                "seen": np.array([self._events, self._first, self._last]),
            }
        if self._second is not None:
            pages |= {_MOVES + name: page for name, page in self._second.dirty().items()}
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the state of an equal account. StateError when it does not fit."""
        named = pages.get("named")
        if named is None or named["seen"].shape != (3,):
            raise StateError("the page of named clients is missing or has another shape")
        own = {name: page for name, page in pages.items() if name != "named" and not name.startswith(_MOVES)}
        self.account.restore(own)
        rows = json.loads(named["named"].astype(np.uint8).tobytes())
        self._named = {client: _Named(kind, last, told, kinds) for client, kind, last, told, kinds in rows}
        events, self._first, self._last = named["seen"].tolist()
        self._events = int(events)
        self._set_threshold()
        if self._second is not None:
            moves = {n.removeprefix(_MOVES): page for n, page in pages.items() if n.startswith(_MOVES)}
            self._second.restore(moves)

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

    def _suspected(self, suspect: Suspect, batch: Batch, usual: float, namings: Mapping[str, Naming]) -> Finding | None:
        """The finding about a client that crossed the threshold, unless the same was said within the hour."""
        now = float(batch.time[suspect.row])
        kind = attack_of(suspect.test, suspect.evidence)
        if self._second is not None:
            naming = namings.get(suspect.client)
            if naming is not None and naming.row <= suspect.row:
                return None
            kind = "membership_inference" if suspect.test == TRAINING_ROWS else UNUSUAL
        detail = self._entered(suspect.client, kind, now)
        named = self._named[suspect.client]
        if now - named.told.get(suspect.test, -math.inf) < REPEAT:
            return None
        named.told[suspect.test] = now
        measures = self._measures(suspect, now, usual)
        if named.kind == UNUSUAL:
            measures += self._look(suspect, now)
        atlas = self._atlas[suspect.test] if named.kind != UNUSUAL else ()
        return self._told(suspect.client, batch, suspect.row, suspect.test, suspect.since, measures, atlas, detail)

    def _attacks(self, naming: Naming, batch: Batch) -> Finding | None:
        """The finding about a client that the second stage names, or that acts like one that is named."""
        now = float(batch.time[naming.row])
        kind, lead = self._kind(naming), self._named.get(naming.lead)
        if kind == UNUSUAL:
            return None
        detail = self._entered(naming.client, kind, now)
        if lead is not None and kind in lead.kinds and naming.client not in self._services:
            detail[JOINS] = _cause(naming.lead, kind)
        self._named[naming.client].told[SECOND_STAGE] = now
        named, since = naming.named, naming.since
        measures = [
            Measure(
                SECOND_STAGE, f"client {naming.client}", named.hits, named.usual * named.n, QUERIES, named.n, since,
                now, statistic=_words(naming),
            )
        ]  # fmt: skip
        if named.log_e > 0 and named.evidence != SHARED:
            ratio = math.exp(min(named.log_e, 700.0))
            measures.append(
                Measure(SECOND_STAGE, SECOND_STAGE, ratio, 1.0, "ratio", named.n, since, now, statistic="evidence")
            )
        atlas = atlas_of(kind)
        return self._told(naming.client, batch, naming.row, SECOND_STAGE, since, tuple(measures), atlas, detail)

    def _kind(self, naming: Naming) -> str:
        """The kind of attack that a naming speaks for; of one that only acts like another, that one's."""
        if naming.named.evidence != SHARED:
            return attack_of_move(naming.named.evidence)
        lead = self._named.get(naming.lead)
        return UNUSUAL if lead is None else lead.kind

    def _entered(self, client: str, kind: str, now: float) -> dict[str, str]:
        """Note whom and what an incident is about. An attack takes over the incident of an unusual client."""
        self._changed = True
        named = self._named.setdefault(client, _Named(kind, now, {}, []))
        named.last = max(named.last, now)
        detail: dict[str, str] = {}
        if named.kinds and (kind == UNUSUAL or self._second is None):
            return detail
        if kind not in named.kinds:
            if UNUSUAL in named.kinds:
                named.kinds.remove(UNUSUAL)
            if kind == UNUSUAL:
                detail[JOINS] = budget_cause(client)
            else:
                detail[SUPERSEDES] = f"{_cause(client, UNUSUAL)}\n{budget_cause(client)}"
            named.kinds.append(kind)
        named.kind = kind
        if kind != UNUSUAL and self._second is not None:
            self._second.release(client)
        return detail

    def _told(
        self,
        client: str,
        batch: Batch,
        row: int,
        detector: str,
        since: float,
        measures: tuple[Measure, ...],
        atlas: tuple[str, ...],
        detail: Mapping[str, str],
    ) -> Finding:
        kind = self._named[client].kind
        version = int(batch.version[row])
        return Finding(
            detector=detector,
            kind=kind,
            account="attack",
            severity="info" if client in self._services or kind == UNUSUAL else "warning",
            time=float(batch.time[row]),
            row=row,
            position=batch.start + row,
            subjects=(SubjectRef("client", client),),
            onset=since,
            measures=measures,
            cause=_cause(client, kind),
            model_version=batch.versions[version] if version >= 0 else None,
            atlas=atlas,
            detail=detail,
        )

    def _look(self, suspect: Suspect, now: float) -> tuple[Measure, ...]:
        """What the queries of an unusual client look like, as a measure."""
        look = None if self._second is None else self._second.look(suspect.client, suspect.row)
        if look is None:
            return ()
        stream, words = LOOK_WORDS[look.kind]
        return (Measure(SECOND_STAGE, stream, look.count, 0.0, QUERIES, look.n, suspect.since, now, statistic=words),)

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


def _words(naming: Naming) -> str:
    """What the queries of a named client did."""
    evidence = naming.named.evidence
    return f"{SHARED_WORDS} {naming.lead}" if evidence == SHARED else MOVE_WORDS[evidence]


def _cause(client: str, kind: str) -> str:
    return f"client:{client}:{kind}"


def _recovery(detector: str, kind: str, client: str, now: float, last: float) -> Finding:
    return Finding(
        detector=detector, kind=kind, account="attack", severity="info", time=now, row=-1, position=0, subjects=(),
        onset=last, measures=(), cause=_cause(client, kind), action="recover",
    )  # fmt: skip
