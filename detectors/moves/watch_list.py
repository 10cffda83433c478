"""The clients under watch: who comes under it and who leaves it, and which of their queries are looked at when.

What a trail takes in depends on the order of its client's queries alone, not on how they were cut into batches.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from detectors.base import F64, I64, Batch, Bool, Page
from detectors.moves.asked import Asked
from detectors.moves.campaigns import Snapshot
from detectors.moves.honest import Honest
from detectors.moves.recent_queries import HELD, RecentQueries
from detectors.moves.scale import Scale
from detectors.moves.trail import Trail

WATCHED: Final = math.log(100)
"""Log-evidence of one test from which on a client is watched."""
REFILL: Final = 32
"""Earlier queries, at most, that a trail begins with."""
IDLE: Final = 16
"""Queries without evidence after which a trail is let go."""
TRAIL_BYTES: Final = 16 << 20
"""Room for all trails of a model."""
_FEWEST_TRAILS: Final = 16
_BEATS: Final = 6


@dataclass(slots=True)
class Watched:
    """One client under watch."""

    trail: Trail
    slot: int
    """Number of the page it is stored in."""
    since: float = 0.0
    """Event time of the query from which on it is watched."""
    level: float = 0.0
    """Log-evidence against it after its last query."""
    last: float = math.nan
    """Event time of the last query taken in."""
    tempo: float = math.nan
    """Running mean of the log of the seconds between its queries."""
    compared: int = 0
    """Queries taken in when it was last compared with the campaigns."""
    waiting: Asked | None = None
    """Its last queries, all without evidence: taken in when evidence comes again, and else never."""
    changed: bool = True

    @property
    def quiet(self) -> int:
        """Queries that wait."""
        return 0 if self.waiting is None else len(self.waiting)

    def wait(self, asked: Asked) -> None:
        """Queries without evidence."""
        self.waiting = asked if self.waiting is None else Asked.joined(self.waiting, asked)

    def beat(self, time: float) -> None:
        """A query at this time."""
        gap = math.log(max(time - self.last, 1e-3)) if time >= self.last else math.nan
        self.last = time
        if not math.isnan(gap):
            self.tempo = gap if math.isnan(self.tempo) else self.tempo + (gap - self.tempo) / _BEATS

    def snapshot(self, client: str, row: int) -> Snapshot:
        """What it is compared with campaigns by."""
        self.compared = self.trail.asked
        points, heads, free = self.trail.outline()
        return Snapshot(client, row, self.last, self.since, points, heads, self.tempo, free)


@dataclass(slots=True)
class Turn:
    """Queries that a trail takes in now, and after which of them its client is judged."""

    client: str
    watched: Watched
    _asked: list[Asked] = field(default_factory=list)
    _rows: list[I64] = field(default_factory=list)

    def take(self, asked: Asked, row: int = -1) -> None:
        """Some queries; after the last of them, at this row of the batch, the client is judged."""
        rows = np.full(len(asked), -1, np.int64)
        rows[-1:] = row
        self._asked.append(asked)
        self._rows.append(rows)

    @property
    def asked(self) -> Asked:
        """All of them."""
        return Asked.joined(*self._asked)

    @property
    def rows(self) -> list[int]:
        """Of each query the row of the batch at which the client is judged, -1 where it is not."""
        rows: list[int] = np.concatenate(self._rows).tolist()
        return rows


class WatchList:
    """The clients of one model that are under watch."""

    def __init__(self, scale: Scale, honest: Honest, recent: RecentQueries) -> None:
        self._scale, self._honest, self._recent = scale, honest, recent
        self._all: dict[str, Watched] = {}
        self._gone: set[int] = set()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def clients(self) -> frozenset[str]:
        """Who is watched."""
        return frozenset(self._all)

    @property
    def bytes(self) -> int:
        """What the trails take in memory, about."""
        return len(self._all) * self._trail_bytes()

    def release(self, client: str) -> None:
        """Watch this client no longer: it is named, or quiet, or forgotten."""
        watched = self._all.pop(client, None)
        if watched is not None:
            self._gone.add(watched.slot)

    def turns(
        self,
        batch: Batch,
        asked: Asked,
        rows: I64,
        level: F64,
        known: Container[str],
        suspects: Container[str] = (),
    ) -> list[Turn]:
        """What trails take in of a batch, whose distinct queries are `asked` at `rows`; `level` (n,) of all events.

        A trail takes in its queries up to the last one with evidence; later ones wait. `known` clients are not watched,
        and all queries of `suspects` are taken in.
        """
        client, level = batch.client[rows], level[rows]
        suspected = np.array([name in suspects for name in batch.clients], np.bool_)
        stirred = (level >= WATCHED) | suspected[client]
        watched = [code for code, name in enumerate(batch.clients) if name in self._all]
        turns = []
        for code in np.union1d(np.array(watched, np.int64), client[stirred]).tolist():
            name, at = batch.clients[code], np.flatnonzero(client == code)
            if name not in known and len(at):
                turns += self._turns_of(name, asked.rows(at), rows[at], stirred[at], at)
                if name in self._all:
                    self._all[name].level = float(level[at[-1]])
        return turns

    def _turns_of(self, name: str, asked: Asked, rows: I64, stirred: Bool, at: I64) -> list[Turn]:
        """Those of one client; `at` are the places of its queries among all of the batch."""
        turns: list[Turn] = []
        begin, n = 0, len(asked)
        for stir in (*np.flatnonzero(stirred).tolist(), n):
            watched = self._all.get(name)
            if watched is not None and watched.quiet + stir - begin >= IDLE:
                self.release(name)
                watched = None
            if stir == n:
                if watched is not None and begin < n:
                    watched.wait(asked.rows(slice(begin, n)))
                    watched.changed = True
                return turns
            if watched is None:
                begin = max(0, stir - REFILL)
                since = self._recent.taken + int(at[stir]) - HELD
                earlier = self._recent.of(int(asked.owner[stir]), max(since, 0), REFILL - (stir - begin))
                watched = self._watch(name, float(asked.time[stir]))
                watched.waiting = earlier if len(earlier) else None
            if not turns or turns[-1].watched is not watched:
                turns.append(Turn(name, watched))
            if watched.waiting is not None:
                turns[-1].take(watched.waiting)
                watched.waiting = None
            turns[-1].take(asked.rows(slice(begin, stir + 1)), int(rows[stir]))
            watched.changed = True
            begin = stir + 1
        return turns

    def _watch(self, client: str, since: float) -> Watched:
        """An empty trail."""
        taken = {watched.slot for watched in self._all.values()}
        slot = next(k for k in range(len(taken) + 1) if k not in taken)
        watched = self._all[client] = Watched(Trail(self._scale, self._honest), slot, since)
        return watched

    def bound(self) -> None:
        """Let go the trails with least evidence beyond the room there is."""
        room = max(_FEWEST_TRAILS, TRAIL_BYTES // self._trail_bytes())
        if len(self._all) > room:
            for name in self._by_evidence()[: len(self._all) - room * 9 // 10]:
                self.release(name)

    def shrink(self, most: int, kept: Container[str]) -> None:
        """Let go the trails with least evidence beyond `most` bytes, but none of a client that is to be `kept`."""
        order = [name for name in self._by_evidence() if name not in kept]
        for name in order[: max(0, len(self._all) - max(_FEWEST_TRAILS, most // self._trail_bytes()))]:
            self.release(name)

    def _by_evidence(self) -> list[str]:
        """Watched clients, least evidence first."""
        return sorted(self._all, key=lambda name: (self._all[name].level, name))

    def _trail_bytes(self) -> int:
        columns, dimensions = self._scale.cells.columns, self._scale.projection.dimensions
        return 1_024 * columns + 2_048 * dimensions + 8_192

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        pages: dict[str, Page] = {}
        for slot in sorted(self._gone - {watched.slot for watched in self._all.values()}):
            pages[f"trail{slot}"] = {"watched": np.zeros(0)}
        self._gone.clear()
        for name, watched in self._all.items():
            if watched.changed:
                watched.changed = False
                pages[f"trail{watched.slot}"] = {
                    **watched.trail.page(),
                    **({} if watched.waiting is None else watched.waiting.page("waiting_")),
                    "client": np.frombuffer(json.dumps(name).encode(), np.uint8).copy(),
                    "watched": np.array(
                        [watched.since, watched.level, watched.last, watched.tempo, float(watched.compared)]
                    ),
                }
        return pages

    def restore(self, pages: dict[str, Page]) -> None:
        """Take what `dirty` gave of an equal list; honest and recent queries must have been restored."""
        for name, page in sorted(pages.items()):
            if name.startswith("trail") and len(page["watched"]):
                trail = Trail(self._scale, self._honest)
                trail.restore(page)
                since, level, last, tempo, compared = page["watched"].tolist()
                client = json.loads(page["client"].astype(np.uint8).tobytes())
                waiting = Asked.of_page(page, "waiting_", self._scale.cells.columns)
                slot = int(name.removeprefix("trail"))
                self._all[client] = Watched(trail, slot, since, level, last, tempo, int(compared), waiting, False)

    def forget(self, pages: Iterable[str]) -> None:
        """Stored pages of trails that could not be read: they are deleted with the next ones."""
        self._gone = {int(name.removeprefix("trail")) for name in pages if name.startswith("trail")}
