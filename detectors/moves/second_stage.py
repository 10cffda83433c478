"""The second stage: watches the clients that the tests of queries find unusual, and says which of them attack.

A client comes under watch when the evidence of any test against it passes a hundred to one. Its trail begins with its
last queries among the model's last 4,096, so nothing is lost by watching few. Queries without such evidence wait, and
are only looked at when evidence comes again; after 16 of them the trail is let go. When there are too many trails,
those with least evidence go first.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from detectors.base import F64, I64, Batch, Context, Page, StateError, Views
from detectors.moves.asked import ACROSS, Asked, labels_of
from detectors.moves.blame import Part, parts
from detectors.moves.campaigns import LEAST, Campaigns, Snapshot
from detectors.moves.honest import Honest, queries_of
from detectors.moves.looks import Look, look_of
from detectors.moves.recent_queries import HELD, RecentQueries
from detectors.moves.relations import Query
from detectors.moves.scale import Scale
from detectors.moves.trail import Named
from detectors.moves.watch_list import Turn, WatchList
from detectors.queries.outlier_queries import DISTANCE
from detectors.queries.query_log import Queries, hash_name
from detectors.views.dependence import tree_of
from detectors.views.projection import projection_for

_FEWEST_HONEST: Final = 256
_COMPARED: Final = 8
"""A client under watch is compared with the campaigns at every eighth query, or soon after."""


@dataclass(frozen=True, slots=True)
class Naming:
    """A client that attacks, since the event at `row` of the batch."""

    client: str
    row: int
    since: float
    """Event time of the query it was first watched at."""
    named: Named
    lead: str = ""
    """The client that began the campaign it belongs to, if that is another one."""


class SecondStage:
    """Trails of the watched clients of one model, and the recent queries they begin with."""

    def __init__(self, context: Context) -> None:
        self._scale = Scale(context.reference, projection_for(context), tree_of(context))
        self._version = context.reference.version
        self._begin()

    def _begin(self) -> None:
        self._recent = RecentQueries(self._scale.cells.columns)
        self._honest = Honest(self._scale.cells.columns)
        self._measured = self._changed = False
        self._list = WatchList(self._scale, self._honest, self._recent)
        self._campaigns = Campaigns(self._scale, self._honest)
        self._rows: I64 = np.zeros(0, np.int64)
        """Of the batch judged last: which of its events were distinct queries."""
        self._snapshots: list[Snapshot] = []
        """Of the clients under watch, as they were in the batch at hand."""
        self._looks: dict[str, list[tuple[int, Look]]] = {}
        """Of the batch judged last: rows of each watched client, and what it looked like there."""

    @property
    def watched(self) -> int:
        """Clients under watch."""
        return len(self._list)

    @property
    def clients(self) -> frozenset[str]:
        """Who is watched."""
        return self._list.clients

    def look(self, client: str, row: int) -> Look | None:
        """What a client's queries looked like up to `row` of the batch judged last; None if it was not watched."""
        looks = self._looks.get(client, ())
        return next((look for at, look in reversed(looks) if at <= row), None)

    def blame(self, batch: Batch, row: int, fields: Collection[str], onset: float) -> list[tuple[str, Part]]:
        """Clients whose queries changed these input fields (outputs: the predicted class), largest part first.

        Of the distinct queries up to `row` of the batch judged last; only clients of that batch can be named.
        """
        asked = self._recent.all()
        asked = asked.rows(slice(0, len(asked) - int((self._rows > row).sum())))
        columns = [j for j, name in enumerate(self._scale.cells.names) if name in fields]
        values, categories = asked.cells[:, columns], sum(j >= self._scale.numbers for j in columns)
        if not columns:
            values, categories = asked.label[:, None].astype(np.float32), 1
        name_of = {hash_name(name): name for name in batch.clients}
        found = parts(asked.owner, values, asked.time >= onset, categories)
        return [(name_of[p.owner], p) for p in found if p.owner in name_of]

    def release(self, client: str) -> None:
        """Watch this client no longer: it is named, or forgotten."""
        self._list.release(client)

    def judge(
        self,
        views: Views,
        evidence: Mapping[str, F64],
        level: F64,
        least: float,
        known: Container[str],
        suspects: Container[str] = (),
        services: Container[str] = (),
    ) -> list[Naming]:
        """Who attacks, in the order of the events.

        `evidence` (n,) of each test of `ACROSS` on the events of the batch, `level` (n,) the strongest evidence
        against the client of each event after it, `least` the log-evidence at which a client is named. Clients that
        are `known` as attackers are not watched; those that are `suspects` are whatever the evidence: it begins anew
        when one is suspected. Declared `services` join no campaign.
        """
        batch, queries = views.batch, views.get("queries")
        rows = self._rows = np.flatnonzero(queries.distinct)
        asked = self._asked(views, queries, evidence, rows)
        self._measure(asked, bool(queries.honest.all()))
        self._looks, self._snapshots = {}, []
        namings: list[Naming] = []
        if self._measured:
            turns = self._list.turns(batch, asked, rows, level, known, suspects)
            namings = self._judge(turns, least)
        namings = self._linked(batch, asked, rows, sorted(namings, key=lambda naming: naming.row), services)
        self._recent.take(asked)
        self._list.bound()
        return namings

    def _linked(
        self, batch: Batch, asked: Asked, rows: I64, namings: list[Naming], services: Container[str]
    ) -> list[Naming]:
        """The namings, and the clients under watch that act like a campaign, in the order of the events."""
        if not namings and not len(self._campaigns):
            return []
        self._campaigns.begin(batch, asked, rows)
        named, done, out = {n.client: n for n in namings}, set[str](), list[Naming]()
        for one in sorted(self._snapshots, key=lambda s: (s.row, s.client)):
            naming = named.get(one.client)
            if one.client in done or (naming is not None and one.row > naming.row):
                continue
            its_own = naming is not None and one.row == naming.row
            alike = None if one.client in services else self._campaigns.alike(one, its_own)
            if its_own and naming is not None:
                found = replace(naming, lead="" if alike is None else alike.lead)
            elif alike is not None:
                why = Named(alike.how, alike.log_e, alike.hits, alike.n, alike.usual)
                found = Naming(one.client, one.row, one.since, why, alike.lead)
            else:
                continue
            done.add(one.client)
            self._campaigns.take(one, found.lead)
            out.append(found)
        self._campaigns.end()
        return out

    def _asked(self, views: Views, queries: Queries, evidence: Mapping[str, F64], rows: I64) -> Asked:
        batch = views.batch
        names = np.array([hash_name(name) for name in batch.clients], np.int64)
        log_e = np.zeros((len(rows), len(ACROSS)), np.float32)
        for k, test in enumerate(ACROSS):
            if test in evidence:
                log_e[:, k] = evidence[test][rows]
        # Close to a query of its own is how a client's moves look; only close to another's is evidence by itself.
        near = ACROSS.index("near_duplicate_queries")
        log_e[:, near] = np.where(queries.other[rows], log_e[:, near], 0.0)
        value = np.stack([views.get(DISTANCE)[rows], views.get("dependence")[rows]], axis=1).astype(np.float32)
        missing = np.full(len(rows), np.nan)
        margin = (missing if batch.margin is None else batch.margin[rows]).astype(np.float32)
        return Asked(
            names[batch.client[rows]], self._scale.cells.of(batch, rows), labels_of(batch, rows), margin, log_e,
            value, (queries.honest if queries.trusted is None else queries.honest & queries.trusted)[rows],
            batch.time[rows],
        )  # fmt: skip

    def _measure(self, asked: Asked, calibrating: bool) -> None:
        """Learn what is honest when the calibration is over, from the queries held and those of this batch."""
        if self._measured or calibrating:
            return
        held = Asked.joined(self._recent.all(), asked)
        honest = held.rows(np.flatnonzero(held.honest)[-HELD:])
        if len(honest) < _FEWEST_HONEST:
            honest = held.rows(slice(-HELD, None))
        if len(honest) >= _FEWEST_HONEST:
            self._honest.measure(honest, self._scale)
            self._measured = self._changed = True

    def _judge(self, turns: list[Turn], least: float) -> list[Naming]:
        """Let the trails take their turns; who is named."""
        if not turns:
            return []
        namings: dict[str, Naming] = {}
        taken = [turn.asked for turn in turns]
        queries = iter(queries_of(Asked.joined(*taken), self._scale, self._honest))
        for turn, its in zip(turns, taken, strict=True):
            mine = [next(queries) for _ in range(len(its))]
            if turn.client not in namings:
                found = self._follow(turn, its, mine, least)
                if found is not None:
                    namings[turn.client] = Naming(turn.client, found[0], turn.watched.since, found[1])
        return list(namings.values())

    def _follow(self, turn: Turn, asked: Asked, queries: list[Query], least: float) -> tuple[int, Named] | None:
        """Take a client's queries in order; row and reason at which it is named."""
        watched, trail = turn.watched, turn.watched.trail
        looks = self._looks.setdefault(turn.client, [])
        honest = asked.honest.tolist()
        for calm, time, row in zip(trail.take(queries, honest), asked.time.tolist(), turn.rows, strict=True):
            watched.beat(time)
            if calm or row < 0:
                continue
            looks.append((row, look_of(trail)))
            named = trail.named(least)
            if named is not None or (trail.asked >= LEAST and trail.asked - watched.compared >= _COMPARED):
                self._snapshots.append(watched.snapshot(turn.client, row))
            if named is not None:
                return row, named
        return None

    @property
    def bytes(self) -> int:
        """What trails, recent queries and campaigns take in memory, about."""
        return self.trail_bytes + self._recent.bytes + self._campaigns.bytes

    @property
    def trail_bytes(self) -> int:
        """What the trails take of it."""
        return self._list.bytes

    def shrink(self, most: int, kept: Container[str]) -> None:
        """Let go the trails with least evidence beyond `most` bytes, but none of a client that is to be `kept`."""
        self._list.shrink(most, kept)

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        pages = self._recent.dirty()
        if self._changed:
            self._changed = False
            version = np.frombuffer(self._version.encode(), np.uint8).copy()
            pages["honest"] = {**self._honest.page(), "version": version}
        return pages | self._campaigns.page() | self._list.dirty()

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the state of an equal stage. StateError, and a new start, when it does not fit."""
        self._begin()
        try:
            self._restore(dict(pages))
        except (KeyError, ValueError, IndexError) as error:
            self._begin()
            self._list.forget(pages)
            raise StateError(f"the trails of watched clients start anew: {error}") from error

    def _restore(self, pages: dict[str, Page]) -> None:
        honest = pages.get("honest")
        if honest is not None:
            if honest["version"].astype(np.uint8).tobytes().decode() != self._version:
                raise StateError("the reference changed")
            self._honest.restore(honest)
            self._measured = True
        if "campaigns" in pages:
            self._campaigns.restore(pages["campaigns"])
        self._recent.restore({name: page for name, page in pages.items() if name.startswith("asked")})
        self._list.restore(pages)
