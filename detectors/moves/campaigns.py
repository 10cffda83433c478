"""Which clients act alike: several accounts of one attacker, told from what they share with one that is named.

A client under watch whose queries lie in the near-duplicate neighbourhoods of a campaign belongs to it. That queries
deviate from honest ones in the same direction, at the same tempo, is no proof, because attackers of one kind all do
so: it only tells that two clients are one campaign when both are named by themselves.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from detectors.base import F64, I64, Batch, Bool, Page
from detectors.client_account import NAME_BYTES
from detectors.moves.asked import Asked
from detectors.moves.direction import Direction
from detectors.moves.honest import Honest
from detectors.moves.scale import Scale
from detectors.views.projection import F32

MOST: Final = 16
"""Campaigns kept of a model."""
POINTS: Final = 256
"""Queries kept of a campaign, the latest."""
HEADS: Final = 128
_COMPARED: Final = 32
"""Of a client the last queries that are compared with them."""
ALIVE: Final = 3_600.0
"""Seconds after its last query in which a campaign can be joined."""
_LULL: Final = 64.0
"""The same for a campaign known by direction and tempo only: this many of its usual pauses, a minute at least. After
such a lull what a member asks is no longer the campaign's: the account may be an honest one that was taken over."""
_BEATS: Final = 16
LEAST: Final = 8
"""Queries from which on a client is compared."""
JOINS: Final = math.log(1e4)
"""Log likelihood ratio at which a client under watch joins a campaign."""
ALIKE: Final = math.log(100)
"""The same for a client that is named by itself."""
_SHARED: Final = (0.02, 0.3)
"""Share of queries in the neighbourhoods of another: an honest client's at least, and an accomplice's."""
_TEMPO: Final = math.log(3.0)
"""Tempos that differ by less than this factor are alike."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A client under watch as it was after the event at `row` of a batch."""

    client: str
    row: int
    time: float
    since: float
    """Event time from which on it is watched."""
    points: F32
    """(n, dimensions) its last 64 queries."""
    heads: F32
    """(m, columns) those of its last queries that were made from no other."""
    tempo: float
    """Mean log of the seconds between its queries; NaN while that is not known."""
    free: bool
    """Most of its queries were made from no other, and its data is not known to be the population's on another scale:
    their direction tells something."""


@dataclass(frozen=True, slots=True)
class Alike:
    """What a client shares with the campaign that `lead` began: of `n` queries `hits` lie near queries of it, or they
    deviate in its direction."""

    lead: str
    how: Literal["shared", "direction"]
    log_e: float
    hits: int
    n: int
    usual: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What a member asked in the batch at hand: rows, times and points."""

    row: I64
    time: F64
    points: F32


@dataclass(slots=True)
class Campaign:
    """What is kept of one attacker: its latest queries, and how honest ones look beside them."""

    members: list[str]
    points: F32
    heads: F32
    tempo: float
    last: float
    steady: float
    """When it last asked without a lull before."""
    pace: float
    """Running mean of the log of the seconds between the queries of all members, up to then."""
    direction: Direction | None = None
    heard: list[Heard] = field(default_factory=list)

    def last_at(self, row: int) -> float:
        """When it last asked, as of this event of the batch."""
        return max([self.last, *(float(h.time[h.row <= row].max(initial=0.0)) for h in self.heard)])

    def steady_at(self, row: int) -> tuple[float, float]:
        """When it last asked without a lull before, as of this event of the batch, and its pace then."""
        steady, pace = self.steady, self.pace
        for time in np.sort(np.concatenate([[steady], *(h.time[h.row <= row] for h in self.heard)])).tolist():
            if steady < time <= steady + _lull(pace):
                gap = math.log(max(time - steady, 1e-3))
                steady, pace = time, gap if math.isnan(pace) else pace + (gap - pace) / _BEATS
        return steady, pace

    def points_at(self, row: int) -> F32:
        """Its latest queries, as of this event of the batch."""
        return np.concatenate([self.points, *(h.points[h.row <= row] for h in self.heard)])[-POINTS:]


class Campaigns:
    """The campaigns of one model. Snapshots must be given in the order of their events."""

    def __init__(self, scale: Scale, honest: Honest) -> None:
        self._scale, self._honest = scale, honest
        self._all: list[Campaign] = []
        self._changed = False

    def __len__(self) -> int:
        return len(self._all)

    @property
    def bytes(self) -> int:
        """What the campaigns take in memory, about."""
        return sum(c.points.nbytes + c.heads.nbytes + NAME_BYTES * len(c.members) for c in self._all)

    def begin(self, batch: Batch, asked: Asked, rows: I64) -> None:
        """The batch that the next snapshots are of, and its distinct queries at `rows`."""
        self._batch, self._asked, self._rows = batch, asked, rows
        for campaign in self._all:
            for member in campaign.members:
                self._hear(campaign, member, -1)

    def end(self) -> None:
        """All snapshots of the batch were given: what members asked is kept."""
        last = len(self._batch) - 1
        for campaign in self._all:
            self._changed |= any(len(h.row) for h in campaign.heard)
            campaign.points, campaign.last = campaign.points_at(last), campaign.last_at(last)
            campaign.steady, campaign.pace = campaign.steady_at(last)
            campaign.heard = []

    def alike(self, one: Snapshot, named: bool) -> Alike | None:
        """The campaign that a client acts like most, if any; of one that is `named` by itself less is asked."""
        found: list[Alike] = []
        for campaign in self._all:
            pause = one.time - campaign.last_at(one.row)
            if one.client in campaign.members or pause > ALIVE:
                continue
            shared = self._shared(one, campaign)
            if shared is not None and shared.log_e > (ALIKE if named else JOINS):
                found.append(shared)
            elif named:
                steady, pace = campaign.steady_at(one.row)
                found += self._along(one, campaign) if one.time <= steady + _lull(pace) else []
        return max(found, key=lambda alike: alike.log_e, default=None)

    def take(self, one: Snapshot, lead: str) -> None:
        """The client is named, as a member of the campaign that `lead` began, or else with one of its own."""
        self._changed = True
        own = next((c for c in self._all if one.client in c.members or (lead and c.members[0] == lead)), None)
        if own is None:
            own = Campaign([], one.points[:0], one.heads[:0], one.tempo, one.time, one.time, one.tempo)
            self._all.append(own)
        if one.client not in own.members:
            own.members.append(one.client)
            self._hear(own, one.client, one.row)
        own.points = np.concatenate([own.points, one.points])[-POINTS:]
        own.heads = np.concatenate([own.heads, one.heads])[-HEADS:]
        own.last, own.steady = max(own.last, one.time), max(own.steady, one.time)
        if math.isfinite(one.tempo):
            own.tempo = one.tempo
        self._compile(own)
        if len(self._all) > MOST:
            self._all.remove(min(self._all, key=lambda c: c.last))

    def _hear(self, campaign: Campaign, member: str, after: int) -> None:
        """What a member asks in this batch after the row `after`."""
        if member in self._batch.clients:
            asks = self._batch.client[self._rows] == self._batch.clients.index(member)
            at = np.flatnonzero(asks & (self._rows > after))
            points = self._scale.points(self._asked.cells[at]).astype(np.float32)
            campaign.heard.append(Heard(self._rows[at], self._batch.time[self._rows[at]], points))

    def _compile(self, campaign: Campaign) -> None:
        campaign.direction = Direction.of(campaign.heads, self._honest.sample, self._scale)

    def _shared(self, one: Snapshot, campaign: Campaign) -> Alike | None:
        """Queries in the near-duplicate neighbourhoods of the campaign."""
        mine, held = one.points[-_COMPARED:], campaign.points_at(one.row)
        n, hits = len(mine), int(_near(mine, held, self._scale.near).sum())
        if n < LEAST or _ratio(hits, n, _SHARED[0]) <= ALIKE:
            return None
        honest = self._scale.points(self._honest.sample).astype(np.float32)
        usual = max(_SHARED[0], 3 * float(_near(honest, held, self._scale.near).mean())) if len(honest) else 1.0
        return Alike(campaign.members[0], "shared", _ratio(hits, n, usual), hits, n, usual)

    def _along(self, one: Snapshot, campaign: Campaign) -> list[Alike]:
        """Queries that deviate in the campaign's direction, at its tempo."""
        if not one.free or len(one.heads) < LEAST or campaign.direction is None:
            return []
        if not abs(one.tempo - campaign.tempo) < _TEMPO:
            return []
        log_e = campaign.direction.along(one.heads, self._scale)
        return [Alike(campaign.members[0], "direction", log_e, 0, len(one.heads), 0.0)] if log_e > ALIKE else []

    def page(self) -> dict[str, Page]:
        """One page, when something changed since the last call."""
        if not self._changed:
            return {}
        self._changed = False
        told = [[c.members, c.tempo, c.last, c.steady, c.pace, len(c.points), len(c.heads)] for c in self._all]
        dimensions, columns = self._scale.projection.dimensions, self._scale.cells.columns
        return {
            "campaigns": {
                "told": np.frombuffer(json.dumps(told).encode(), np.uint8).copy(),
                "points": np.concatenate([np.zeros((0, dimensions), np.float32), *(c.points for c in self._all)]),
                "heads": np.concatenate([np.zeros((0, columns), np.float32), *(c.heads for c in self._all)]),
            }
        }

    def restore(self, page: Page) -> None:
        """Take what `page` gave; the honest queries must have been restored. ValueError when it does not fit."""
        self._all, points, heads = [], page["points"].astype(np.float32), page["heads"].astype(np.float32)
        if points.shape[1] != self._scale.projection.dimensions or heads.shape[1] != self._scale.cells.columns:
            raise ValueError(f"stored campaigns have {heads.shape[1]} columns, not {self._scale.cells.columns}")
        for members, tempo, last, steady, pace, n, m in json.loads(page["told"].astype(np.uint8).tobytes()):
            made = Campaign(members, points[:n], heads[:m], tempo, last, steady, pace)
            points, heads = points[n:], heads[m:]
            self._compile(made)
            self._all.append(made)


def _lull(pace: float) -> float:
    """Seconds without a query after which a campaign of this pace is over."""
    return max(60.0, _LULL * math.exp(min(pace, 10.0)))


def _ratio(hits: int, n: int, usual: float) -> float:
    """Log likelihood ratio of `hits` of `n` for an accomplice; 0 where an honest client hits as often."""
    often = _SHARED[1]
    if usual >= often:
        return 0.0
    return hits * math.log(often / usual) + (n - hits) * math.log((1 - often) / (1 - usual))


def _near(points: F32, others: F32, near: float) -> Bool:
    """Which points have another one nearer than `near`. Points are multiples of 2^-16: products are exact."""
    if not len(others):
        return np.zeros(len(points), np.bool_)
    a, b = points.astype(np.float64), others.astype(np.float64)
    apart: F64 = np.einsum("ij,ij->i", a, a)[:, None] - 2 * a @ b.T + np.einsum("ij,ij->i", b, b)[None]
    close: Bool = apart.min(axis=1) < near * near
    return close
