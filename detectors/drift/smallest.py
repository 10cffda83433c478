"""The smallest lasting changes that can page, at the budget and with the noise as they stand.

Changes of known size are played through the null and the bets of the change family, all streams at once, along the
path that independent noise leaves in the mean. A stream finds a change where its own capital reaches 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from detectors.base import F64, I64
from detectors.drift.bets import LEAK, ChangeBets, Line, log_e_values
from detectors.drift.design_effect import DesignEffect
from detectors.drift.null import Null
from detectors.drift.scores import BLOCK, FAMILIES, Family
from detectors.drift.target import Target

SHIFTS = np.geomspace(4.0, 0.08, 32)
"""Of sums, in σ, largest first."""
POINTS = np.geomspace(0.5, 0.002, 32)
"""Of counts, in shares of the events."""
_GROUP = 4
_HORIZON = 2.0
"""Memories of the null: a change that was not found by then has become what is usual."""
WHAT: dict[Family, str] = {
    "loc": "mean", "scale": "spread", "pair": "correlation", "cat": "frequent category", "rare": "rare category",
    "missing": "missing values", "new": "new values",
}  # fmt: skip
Unit = Literal["sd", "factor", "r", "share"]
UNIT: dict[Family, Unit] = {"loc": "sd", "scale": "factor", "pair": "r"}
"""Standard deviations, a factor on them, a correlation coefficient; shares of the events for all others."""


@dataclass(frozen=True)
class Smallest:
    """Of one family: the smallest change that half of its `streams` find, and after how many events; NaN where not
    even the largest that was tried is found."""

    what: str
    unit: Unit
    streams: int
    change: float
    events: float


class Stakes(NamedTuple):
    """What changes are played against. `injected` (streams,) is what a block pays in, in alarms; `swing` (G + P,) is
    allowed for, in σ."""

    target: Target
    bets: ChangeBets
    memory: float
    noise: DesignEffect
    swing: F64
    injected: F64


class Sensitivity(NamedTuple):
    """The smallest changes that page: as things are, and were events independent and without season. Until `assumed`
    more events were seen the noise is a stated floor; `design_effect` is how much more sums of means vary, `swing` the
    season that is allowed for, in σ."""

    found: tuple[Smallest, ...]
    calm: tuple[Smallest, ...]
    assumed: int
    design_effect: float
    swing: float


def sensitivity(stakes: Stakes, assumed: int) -> Sensitivity:
    """Play changes twice: with the noise as it stands, and without any."""
    target, swing = stakes.target, stakes.swing
    calm = stakes._replace(noise=DesignEffect(target, 0.0), swing=np.zeros_like(swing))
    of_means = target.family == FAMILIES.index("loc")
    v, left = (float(np.median(x[of_means])) if of_means.any() else 1.0 for x in (stakes.noise.pooled, swing))
    return Sensitivity(smallest_changes(stakes), smallest_changes(calm), assumed, v, left)


def smallest_changes(stakes: Stakes) -> tuple[Smallest, ...]:
    """One of each family in WHAT that the target has, in that order."""
    target, streams = stakes.target, len(stakes.target.scores)
    least, events = np.full(streams, np.nan), np.full(streams, np.nan)
    shares = np.concatenate([np.zeros(target.sums, np.bool_), np.ones(target.counts, np.bool_)])
    for shift, points in zip(SHIFTS.tolist(), POINTS.tolist(), strict=True):
        found = played(stakes, shift, points)
        on = ~np.isnan(found)
        least[on], events[on] = np.where(shares, points, shift)[on], found[on]
        if not on.any():
            break
    told = []
    for family, what in WHAT.items():
        own: I64 = np.flatnonzero(target.family == FAMILIES.index(family))
        if not len(own):
            continue
        size = least[own]
        if family == "cat":
            size = size * target.spread[own]
        elif family == "scale":
            size = np.sqrt(1 + size * target.spread[own])
        elif family == "pair":
            size = np.where(size <= 1, size, np.nan)
        change = _median(size)
        told.append(Smallest(what, UNIT.get(family, "share"), len(own), change, _median(events[own][size <= change])))
    return tuple(told)


def _median(values: F64) -> float:
    """The lower median, streams that find nothing last; NaN where most find nothing."""
    return float(np.sort(values)[(len(values) - 1) // 2]) if len(values) else float("nan")


def played(stakes: Stakes, shift: float, points: float, only: I64 | None = None) -> F64:
    """(streams,) events until each stream's capital reaches 1 after all change at once; NaN where it never does.
    `only` these G streams are asked, where not all are; none of a pair."""
    target, bets, g = stakes.target, stakes.bets, stakes.target.sums
    asked = np.arange(len(bets.stream)) if only is None else np.flatnonzero(np.isin(bets.stream, only))
    stream, leak = bets.stream[asked], bets.leak[asked]
    null = _full(target, stakes.memory)
    prices = bets.prices(stakes.noise, stakes.swing[:g], np.ones(target.counts))
    sums = BLOCK * (target.mean + shift * target.spread)[None]
    squares = BLOCK * (target.second + 2 * shift * target.spread * target.mean + (shift * target.spread) ** 2)[None]
    counts = BLOCK * np.minimum(null.k / null.b + points, 1.0)[None]
    paid = bets.weight[asked] * stakes.injected[stream]
    capital: F64 = np.zeros(len(paid))
    found = np.full(len(target.scores), np.nan)
    learning = np.ones(len(found), np.bool_)
    seen, residual = np.hstack([sums, counts]), np.empty((1, len(found)), np.float32)
    for group in range(int(_HORIZON * stakes.memory / BLOCK / _GROUP)):
        compiled = bets.odds(null, prices)
        bets.look(compiled, sums / BLOCK, counts, seen[:, :g], residual)
        line = compiled.line if only is None else _part(compiled.line, asked)
        e = leak * np.exp(log_e_values(line, seen)[0])
        if not group:  # before the change bets lose, and hold what a few blocks have paid
            quiet = leak * np.exp(np.minimum(line.base, 0.0))
            capital = paid * quiet / np.maximum(1 - quiet, 1 - LEAK)
        for block in range(1, _GROUP + 1):
            capital = np.minimum((capital + paid) * e, 1e6)
            of_stream = np.bincount(stream, capital, len(found))
            new = (of_stream >= 1) & np.isnan(found)
            found[new] = (group * _GROUP + block) * BLOCK
        if only is not None and not np.isnan(found[only]).any():
            break
        null.absorb(_GROUP, _GROUP * sums[0], _GROUP * squares[0], _GROUP * counts[0], learning)
    return found


def _part(line: Line, bets: I64) -> Line:
    """Of bets on sums, which have no cap."""
    return Line(line.source[bets], line.slope[bets], line.base[bets], len(bets))


def _full(target: Target, memory: float) -> Null:
    """A null that has seen as much as it remembers."""
    null = Null(target, memory)
    for total, mean in ((null.s1, target.mean), (null.s2, target.second)):
        total[:] = memory * mean
    null.m[:] = memory
    null.k *= memory / null.b
    null.b[:] = memory
    return null
