"""The second stage: watches the clients that the tests of queries find unusual, and says which of them attack.

A client comes under watch when the evidence of any test against it passes a hundred to one. Its trail begins with its
last queries among the model's last 4,096, so nothing is lost by watching few. A trail is let go after 16 queries
without such evidence, and when there are too many, those with least evidence go first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from detectors.base import F64, I32, I64, Batch, Bool, Context, Page, StateError, Views
from detectors.moves.asked import ACROSS, Asked, labels_of
from detectors.moves.campaigns import LEAST, Campaigns, Snapshot
from detectors.moves.honest import Honest, queries_of
from detectors.moves.looks import Look, look_of
from detectors.moves.recent_queries import HELD, RecentQueries
from detectors.moves.scale import Scale
from detectors.moves.trail import Named, Trail
from detectors.moves.window import Query
from detectors.queries.outlier_queries import DISTANCE
from detectors.queries.query_log import Queries, hash_name
from detectors.views.dependence import tree_of
from detectors.views.projection import projection_for

WATCHED: Final = math.log(100)
"""Log-evidence of one test from which on a client is watched."""
REFILL: Final = 64
"""Earlier queries, at most, that a trail begins with."""
IDLE: Final = 16
"""Queries without evidence after which a trail is let go."""
TRAIL_BYTES: Final = 16 << 20
"""Room for all trails of a model."""
_FEWEST_TRAILS: Final = 16
_FEWEST_HONEST: Final = 256
_BEATS: Final = 16
_COMPARED: Final = 8
"""A client under watch is compared with the campaigns at every eighth query."""


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


@dataclass(slots=True)
class _Watched:
    trail: Trail
    slot: int
    """Number of the page it is stored in."""
    since: float = 0.0
    """Event time of the query from which on it is watched."""
    idle: int = 0
    level: float = 0.0
    changed: bool = True
    last: float = math.nan
    """Event time of its last query."""
    tempo: float = math.nan
    """Running mean of the log of the seconds between its queries."""

    def snapshot(self, client: str, row: int) -> Snapshot:
        """What it is compared with campaigns by."""
        points, heads, free = self.trail.outline()
        return Snapshot(client, row, self.last, self.since, points, heads, self.tempo, free)

    def beat(self, time: float) -> None:
        """A query at this time."""
        gap = math.log(max(time - self.last, 1e-3)) if time >= self.last else math.nan
        self.last = time
        if not math.isnan(gap):
            self.tempo = gap if math.isnan(self.tempo) else self.tempo + (gap - self.tempo) / _BEATS


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
        self._trails: dict[str, _Watched] = {}
        self._campaigns = Campaigns(self._scale, self._honest)
        self._snapshots: list[Snapshot] = []
        """Of the clients under watch, as they were in the batch at hand."""
        self._gone: set[int] = set()
        self._looks: dict[str, list[tuple[int, Look]]] = {}
        """Of the batch judged last: rows of each watched client, and what it looked like there."""

    @property
    def watched(self) -> int:
        """Clients under watch."""
        return len(self._trails)

    def look(self, client: str, row: int) -> Look | None:
        """What a client's queries looked like up to `row` of the batch judged last; None if it was not watched."""
        looks = self._looks.get(client, ())
        return next((look for at, look in reversed(looks) if at <= row), None)

    def release(self, client: str) -> None:
        """Watch this client no longer: it is named, or forgotten."""
        watched = self._trails.pop(client, None)
        if watched is not None:
            self._gone.add(watched.slot)

    def judge(
        self,
        views: Views,
        evidence: Mapping[str, F64],
        level: F64,
        least: float,
        known: Container[str],
        services: Container[str] = (),
    ) -> list[Naming]:
        """Who attacks, in the order of the events.

        `evidence` (n,) of each test of `ACROSS` on the events of the batch, `level` (n,) the strongest evidence
        against the client of each event after it, `least` the log-evidence at which a client is named. Clients that
        are `known` as attackers are not watched; declared `services` join no campaign.
        """
        batch, queries = views.batch, views.get("queries")
        rows = np.flatnonzero(queries.distinct)
        asked = self._asked(views, queries, evidence, rows)
        self._measure(asked, bool(queries.honest.all()))
        self._looks, self._snapshots = {}, []
        namings = self._judge(batch, asked, rows, level, least, known) if self._measured else []
        namings = self._linked(batch, asked, rows, sorted(namings, key=lambda naming: naming.row), services)
        self._recent.take(asked)
        self._bound()
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
            value, queries.honest[rows],
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

    def _judge(
        self, batch: Batch, asked: Asked, rows: I64, level: F64, least: float, known: Container[str]
    ) -> list[Naming]:
        namings: list[Naming] = []
        client = batch.client[rows]
        stirred = level[rows] >= WATCHED
        turns = []
        for code in self._codes(batch, client[stirred]):
            name, at, first = batch.clients[code], np.flatnonzero(client == code), 0
            if name in known or not len(at):
                continue
            if name not in self._trails:
                first = int(np.argmax(stirred[at]))
                at, first = at[max(0, first - REFILL) :], min(first, REFILL)
                since = self._recent.taken + int(at[first]) - HELD
                self._watch(name, int(asked.owner[at[0]]), since, REFILL - first)
                self._trails[name].since = float(batch.time[rows[at[first]]])
            turns.append((name, at, first))
        if not turns:
            return namings
        all_rows = np.concatenate([at for _, at, _ in turns])
        queries = iter(queries_of(asked.rows(all_rows), self._scale, self._honest))
        for name, at, first in turns:
            its = [next(queries) for _ in at]
            found = self._follow(name, its, asked.honest[at], rows[at], level[rows[at]], first, least, batch.time)
            if found is not None:
                begun = self._trails[name].since
                namings.append(Naming(name, int(rows[at[found[0]]]), begun, found[1]))
        return namings

    def _codes(self, batch: Batch, stirred: I32) -> list[int]:
        """Numbers of the clients in the batch that are watched or must be from now on."""
        watched = [code for code, name in enumerate(batch.clients) if name in self._trails]
        codes: list[int] = np.union1d(np.array(watched, np.int64), stirred).tolist()
        return codes

    def _watch(self, client: str, owner: int, since: int, most: int) -> None:
        """Begin a trail with the client's queries among the last 4,096 before the one that stirred."""
        trail = Trail(self._scale, self._honest)
        earlier = self._recent.of(owner, max(since, 0), most)
        for i, q in enumerate(queries_of(earlier, self._scale, self._honest)):
            trail.take(q, bool(earlier.honest[i]))
        taken = {watched.slot for watched in self._trails.values()}
        slot = next(k for k in range(len(taken) + 1) if k not in taken)
        self._trails[client] = _Watched(trail, slot)

    def _follow(
        self,
        client: str,
        queries: list[Query],
        calibrating: Bool,
        rows: I64,
        level: F64,
        first: int,
        least: float,
        time: F64,
    ) -> tuple[int, Named] | None:
        """Take a client's queries in order; index and reason at which it is named, from index `first` on."""
        watched = self._trails[client]
        watched.changed = True
        looks = self._looks[client] = []
        for i, q in enumerate(queries):
            honest = bool(calibrating[i])
            watched.trail.take(q, honest)
            watched.level = float(level[i])
            watched.idle = 0 if watched.level >= WATCHED else watched.idle + 1
            if honest or i < first:
                continue
            watched.beat(float(time[rows[i]]))
            looks.append((int(rows[i]), look_of(watched.trail)))
            named = watched.trail.named(least)
            if named is not None or (watched.trail.asked >= LEAST and watched.trail.asked % _COMPARED == 0):
                self._snapshots.append(watched.snapshot(client, int(rows[i])))
            if named is not None:
                return i, named
            if watched.idle >= IDLE:
                self.release(client)
                return None
        return None

    @property
    def bytes(self) -> int:
        """What trails, recent queries and campaigns take in memory, about."""
        return self.trail_bytes + self._recent.bytes + self._campaigns.bytes

    @property
    def trail_bytes(self) -> int:
        """What the trails take of it."""
        return len(self._trails) * self._trail_bytes()

    @property
    def clients(self) -> frozenset[str]:
        """Who is watched."""
        return frozenset(self._trails)

    def shrink(self, most: int, kept: Container[str]) -> None:
        """Let go the trails with least evidence beyond `most` bytes, but none of a client that is to be `kept`."""
        order = [name for name in self._by_evidence() if name not in kept]
        for name in order[: max(0, len(self._trails) - max(_FEWEST_TRAILS, most // self._trail_bytes()))]:
            self.release(name)

    def _bound(self) -> None:
        """Let go the trails with least evidence beyond the room there is."""
        room = max(_FEWEST_TRAILS, TRAIL_BYTES // self._trail_bytes())
        if len(self._trails) > room:
            for name in self._by_evidence()[: len(self._trails) - room * 9 // 10]:
                self.release(name)

    def _by_evidence(self) -> list[str]:
        """Watched clients, least evidence first."""
        return sorted(self._trails, key=lambda name: (self._trails[name].level, name))

    def _trail_bytes(self) -> int:
        columns, dimensions = self._scale.cells.columns, self._scale.projection.dimensions
        return 1_024 * columns + 2_048 * dimensions + 8_192

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        pages = self._recent.dirty()
        if self._changed:
            self._changed = False
            version = np.frombuffer(self._version.encode(), np.uint8).copy()
            pages["honest"] = {**self._honest.page(), "version": version}
        for slot in sorted(self._gone - {watched.slot for watched in self._trails.values()}):
            pages[f"trail{slot}"] = {"watched": np.zeros(0)}
        self._gone.clear()
        pages |= self._campaigns.page()
        for name, watched in self._trails.items():
            if watched.changed:
                watched.changed = False
                pages[f"trail{watched.slot}"] = {
                    **watched.trail.page(),
                    "client": np.frombuffer(json.dumps(name).encode(), np.uint8).copy(),
                    "watched": np.array([watched.idle, watched.level, watched.since, watched.last, watched.tempo]),
                }
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the state of an equal stage. StateError, and a new start, when it does not fit."""
        self._begin()
        try:
            self._restore(dict(pages))
        except (KeyError, ValueError, IndexError) as error:
            self._begin()
            self._gone = {int(name.removeprefix("trail")) for name in pages if name.startswith("trail")}
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
        for name, page in sorted(pages.items()):
            if name.startswith("trail") and len(page["watched"]):
                trail = Trail(self._scale, self._honest)
                trail.restore(page)
                idle, level, since, last, tempo = page["watched"].tolist()
                client = json.loads(page["client"].astype(np.uint8).tobytes())
                self._trails[client] = _Watched(
                    trail, int(name.removeprefix("trail")), since, int(idle), level, False, last, tempo
                )
