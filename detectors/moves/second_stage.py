"""The second stage: watches the clients that the tests of queries find unusual, and says which of them attack.

A client comes under watch when the evidence of any test against it passes a hundred to one. Its trail begins with its
last queries among the model's last 4,096, so nothing is lost by watching few. Queries without such evidence wait, and
are only looked at when evidence comes again; after 16 of them the trail is let go. When there are too many trails,
those with least evidence go first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.base import F64, I32, I64, Batch, Context, Page, StateError, Views
from detectors.moves.asked import ACROSS, Asked, labels_of
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
REFILL: Final = 32
"""Earlier queries, at most, that a trail begins with."""
IDLE: Final = 16
"""Queries without evidence after which a trail is let go."""
TRAIL_BYTES: Final = 16 << 20
"""Room for all trails of a model."""
_FEWEST_HONEST: Final = 256


@dataclass(frozen=True, slots=True)
class Naming:
    """A client that attacks, since the event at `row` of the batch."""

    client: str
    row: int
    since: float
    """Event time of the query it was first watched at."""
    named: Named


@dataclass(slots=True)
class _Watched:
    trail: Trail
    slot: int
    """Number of the page it is stored in."""
    since: float = 0.0
    """Event time of the query from which on it is watched."""
    waiting: Asked | None = None
    """Its last queries, all without evidence: taken in when evidence comes again, and else never."""
    level: float = 0.0
    changed: bool = True


@dataclass(frozen=True, slots=True)
class _Turn:
    """Queries that a trail takes in: rows of the batch, -1 for such as waited; from index `first` on it is judged."""

    client: str
    asked: Asked
    rows: I64
    first: int

    def after(self, waited: Asked) -> _Turn:
        """The same, once those that waited are taken in."""
        n = len(waited)
        rows = np.concatenate([np.full(n, -1, np.int64), self.rows])
        return _Turn(self.client, Asked.joined(waited, self.asked), rows, n + self.first)


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
        self, views: Views, evidence: Mapping[str, F64], level: F64, least: float, known: Container[str]
    ) -> list[Naming]:
        """Who attacks, in the order of the events.

        `evidence` (n,) of each test of `ACROSS` on the events of the batch, `level` (n,) the strongest evidence
        against the client of each event after it, `least` the log-evidence at which a client is named. Clients that
        are `known` as attackers are not watched.
        """
        batch, queries = views.batch, views.get("queries")
        rows = np.flatnonzero(queries.distinct)
        asked = self._asked(views, queries, evidence, rows)
        self._measure(asked, bool(queries.honest.all()))
        self._looks = {}
        namings = self._judge(batch, asked, rows, level, least, known) if self._measured else []
        self._recent.take(asked)
        self._bound()
        return sorted(namings, key=lambda naming: naming.row)

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
        turns = self._turns(batch, asked, rows, level, known)
        namings = []
        if turns:
            queries = iter(queries_of(Asked.joined(*(turn.asked for turn in turns)), self._scale, self._honest))
            for turn in turns:
                its = [next(queries) for _ in range(len(turn.asked))]
                found = self._follow(turn, its, least)
                if found is not None:
                    namings.append(Naming(turn.client, found[0], self._trails[turn.client].since, found[1]))
        for name, watched in list(self._trails.items()):
            if watched.waiting is not None and len(watched.waiting) >= IDLE:
                self.release(name)
        return namings

    def _turns(self, batch: Batch, asked: Asked, rows: I64, level: F64, known: Container[str]) -> list[_Turn]:
        """What each watched client's trail takes in now: up to its last query with evidence; later ones wait."""
        turns = []
        client = batch.client[rows]
        stirred = level[rows] >= WATCHED
        for code in self._codes(batch, client[stirred]):
            name, at = batch.clients[code], np.flatnonzero(client == code)
            if name in known or not len(at):
                continue
            first = int(np.argmax(stirred[at])) if stirred[at].any() else len(at)
            if name not in self._trails:
                at, first = at[max(0, first - REFILL) :], min(first, REFILL)
                since = self._recent.taken + int(at[first]) - HELD
                self._watch(name, int(asked.owner[at[0]]), since, REFILL - first)
                self._trails[name].since = float(batch.time[rows[at[first]]])
            watched = self._trails[name]
            watched.changed = True
            watched.level = float(level[rows[at[-1]]])
            told = len(at) - int(np.argmax(stirred[at][::-1])) if first < len(at) else 0
            if told:
                turn = _Turn(name, asked.rows(at[:told]), rows[at[:told]], first)
                turns.append(turn if watched.waiting is None else turn.after(watched.waiting))
                watched.waiting = None
            if told < len(at):
                rest = asked.rows(at[told:])
                watched.waiting = rest if watched.waiting is None else Asked.joined(watched.waiting, rest)
        return turns

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

    def _follow(self, turn: _Turn, queries: list[Query], least: float) -> tuple[int, Named] | None:
        """Take a client's queries in order; row and reason at which it is named, from the first that stirred on."""
        watched = self._trails[turn.client]
        looks = self._looks[turn.client] = []
        for i, q in enumerate(queries):
            honest = bool(turn.asked.honest[i])
            watched.trail.take(q, honest)
            if honest or i < turn.first:
                continue
            looks.append((int(turn.rows[i]), look_of(watched.trail)))
            named = watched.trail.named(least)
            if named is not None:
                return int(turn.rows[i]), named
        return None

    def _bound(self) -> None:
        """Let go the trails with least evidence beyond the room there is."""
        room = max(16, TRAIL_BYTES // self._trail_bytes())
        if len(self._trails) <= room:
            return
        order = sorted(self._trails, key=lambda name: (self._trails[name].level, name))
        for name in order[: len(order) - room * 9 // 10]:
            self.release(name)

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
        for name, watched in self._trails.items():
            if watched.changed:
                watched.changed = False
                pages[f"trail{watched.slot}"] = {
                    **watched.trail.page(),
                    **({} if watched.waiting is None else watched.waiting.page("waiting_")),
                    "client": np.frombuffer(json.dumps(name).encode(), np.uint8).copy(),
                    "watched": np.array([watched.level, watched.since]),
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
        self._recent.restore({name: page for name, page in pages.items() if name.startswith("asked")})
        for name, page in sorted(pages.items()):
            if name.startswith("trail") and len(page["watched"]):
                trail = Trail(self._scale, self._honest)
                trail.restore(page)
                level, since = page["watched"].tolist()
                client = json.loads(page["client"].astype(np.uint8).tobytes())
                waiting = Asked.of_page(page, "waiting_", self._scale.cells.columns)
                slot = int(name.removeprefix("trail"))
                self._trails[client] = _Watched(trail, slot, since, waiting, level, changed=False)
