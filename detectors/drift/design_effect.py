"""The design effect: by how much the variance of block sums exceeds that of independent events, at every horizon.

Events of one session resemble each other; bets pay for that through a penalty multiplied by v. v at horizon h blocks
is the variance of sums of h residuals over h, pooled over the streams of a kind (trimmed mean, chi²-corrected), each
stream shrunk to its pool. A short stretch cannot show long bursts, since its own mean swallows them, so a stated floor
holds until enough blocks were seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from detectors.base import F64, I64, Bool, Page
from detectors.drift.scores import FAMILIES, Family
from detectors.drift.target import Target
from detectors.numeric import trimmed_chi2_means

HORIZONS = 2 ** np.arange(7)
"""In blocks."""
_HORIZONS: list[int] = HORIZONS.tolist()
FLOOR = np.array([1.3, 1.6, 2.2, 3.0, 4.0, 4.5, 4.5])
"""Least v of location at each horizon at the start; falls with the square of what is left of FLOOR_BLOCKS."""
FLOOR_BLOCKS = 160
EXCESS: dict[Family, float] = {
    "loc": 1.0, "scale": 0.5, "shape": 0.3, "cat": 0.6, "pair": 0.35, "tail": 0.45, "rare": 0.45, "new": 0.45,
    "missing": 0.45, "range": 0.3, "type": 0.45,
}  # fmt: skip
"""Share of the floor's excess over 1 that each family gets."""
_FIRST = 1.2
"""v of one block before anything is measured; from horizon to horizon v − 1 at most doubles, up to _TOP."""
_TOP = 4.0
_PRIOR_WINDOWS = 4.0
_SHRINK_WINDOWS, _MOST_SHRINK_WINDOWS = 20.0, 300.0
_LEAST_STREAMS = 5
_STANDS_OUT = 2.5
"""Standard errors."""
_MARGIN = 0.7
"""Streams of one kind differ: each is shrunk to its pool plus this share of the pool's excess."""
_COUNT_EXCESS = 0.45
_MAX_WINDOWS = 400
_CLIP = 12.0


class DesignEffect:
    """`v` (horizons, streams) for penalties; `pooled` (streams,) at the longest horizon, for the null's own size."""

    def __init__(self, target: Target, floor: float) -> None:
        streams, levels = len(target.scores), len(HORIZONS)
        self._sums, self._strictness = target.sums, floor
        self._excess = np.array([EXCESS[FAMILIES[i]] for i in target.family.tolist()])
        self._kinds: list[I64] = [np.flatnonzero(target.family == i) for i in np.unique(target.family).tolist()]
        self._kind_of = np.unique(target.family, return_inverse=True)[1]
        self._is_kind = (self._kind_of[:, None] == np.arange(len(self._kinds))).astype(np.float64)
        self._total: F64 = np.zeros((levels, streams))
        self._part: F64 = np.zeros((levels, streams))
        self._windows: F64 = np.zeros(levels)
        self._phase = 0
        self.warmed = 0
        """Blocks of an ordered reference learnt from before the first live one."""
        self.v: F64 = np.ones((levels, streams))
        self.pooled: F64 = np.ones(streams)

    def learn(self, residuals: F64, latched: Bool) -> None:
        """Take the residuals (blocks, streams) of blocks that are old enough not to be a change still being found."""
        begun = self._phase
        self._phase += len(residuals)
        silent = latched if latched.any() else None
        totals: F64 = residuals
        for level, horizon in enumerate(_HORIZONS):
            if level:
                totals = self._pairs(level, totals, begun // (horizon // 2) % 2 == 1)
            if not len(totals):
                break
            v = self.v[level]
            variance = np.minimum(totals * totals / horizon, _CLIP * v)
            if silent is not None:
                variance[:, silent] = v[silent]
            if self._windows[level] + len(variance) <= _MAX_WINDOWS:
                self._total[level] += np.add.reduce(variance)
                self._windows[level] += len(variance)
                continue
            for one in variance:
                self._total[level] += one
                self._windows[level] += 1
                if self._windows[level] > _MAX_WINDOWS:
                    self._total[level] *= 0.5
                    self._windows[level] *= 0.5

    def _pairs(self, level: int, totals: F64, waiting: bool) -> F64:
        """Windows of this level that `totals` (windows, streams) of the level below complete. One may be `waiting` for
        its second half, and the last may have to wait."""
        part, made = self._part[level], []
        if waiting and len(totals):
            made.append(part + totals[0])
            totals = totals[1:]
            part[:] = 0
        whole = len(totals) // 2 * 2
        if whole < len(totals):
            part[:] = totals[-1]
        pairs: F64 = totals[0:whole:2] + totals[1:whole:2]
        return np.vstack([*made, pairs]) if made else pairs

    def drop_open_windows(self) -> None:
        """Forget half-filled windows: what comes next does not follow what came before."""
        self._part[:] = 0
        self._phase = 0

    def refresh(self, blocks: int, expected: F64) -> None:
        """Recompute `v` and `pooled` after `blocks` live blocks. `expected` (P,) counts a block say which P streams
        are frequent enough to tell."""
        telling = np.concatenate([np.ones(self._sums, np.bool_), expected > 0.15])
        pool, worth = self._pools(telling)
        to = pool + _MARGIN * _SHRINK_WINDOWS / worth * np.maximum(pool - 1, 0)
        lead = pool[:, self._kinds[0][:1]]
        to[:, self._sums :] = np.maximum(to[:, self._sums :], 1 + _COUNT_EXCESS * (lead - 1))
        v = (self._total + worth * to) / (self._windows[:, None] + worth)
        left = max(0.0, 1 - (blocks + self.warmed) / FLOOR_BLOCKS) ** 2
        least = 1 + np.outer(FLOOR - 1, self._excess) * self._strictness * left
        self.v = np.maximum(ascending(v, self._windows + _PRIOR_WINDOWS), least)
        self.pooled = np.maximum(np.maximum.accumulate(pool, axis=0), least)[-1]

    def page(self) -> Page:
        """All state as arrays."""
        return {
            "total": self._total.copy(),
            "part": self._part.copy(),
            "windows": self._windows.copy(),
            "v": self.v.copy(),
            "pooled": self.pooled.copy(),
            "phase": np.array([self._phase, self.warmed], np.int64),
        }

    def load(self, page: Page) -> None:
        """Take the arrays of `page`, of the right shapes."""
        self._total, self._part = page["total"].astype(np.float64), page["part"].astype(np.float64)
        self._windows = page["windows"].astype(np.float64)
        self.v, self.pooled = page["v"].astype(np.float64), page["pooled"].astype(np.float64)
        self._phase, self.warmed = (int(x) for x in page["phase"])

    def _pools(self, telling: Bool) -> tuple[F64, F64]:
        """(horizons, streams) each: v of the kind of each stream, and how many windows of its own that is worth."""
        pool = np.empty_like(self._total)
        lead: list[float] = []
        for own in self._kinds:
            of_kind = self._pool(len(own), own[telling[own]], lead)
            lead = lead or of_kind
            pool[:, own] = np.array(of_kind)[:, None]
        return pool, self._worth(telling, pool)

    def _worth(self, telling: Bool, pool: F64) -> F64:
        """(horizons, streams): streams of a kind that differ no more than chance lets them are shrunk more; one that
        stands out is not, and none of a kind of which few can tell."""
        chance = 2 / np.maximum(self._windows, 1.0)[:, None]
        beyond = self._total / np.maximum(self._windows, 1.0)[:, None] / pool - 1
        told = self._is_kind[telling].sum(axis=0)
        spread = (beyond * beyond)[:, telling] @ self._is_kind[telling] / np.maximum(told, 1.0)
        more = np.clip(2 / np.maximum(spread - chance, 1e-6), _SHRINK_WINDOWS, _MOST_SHRINK_WINDOWS)
        more[:, told < _LEAST_STREAMS] = _SHRINK_WINDOWS
        alike = telling & (beyond < _STANDS_OUT * np.sqrt(chance))
        return np.where(alike, more[:, self._kind_of], _SHRINK_WINDOWS)

    def _pool(self, streams: int, telling: I64, lead: Sequence[float]) -> list[float]:
        """v of one kind at each horizon, from its `telling` streams; `lead` is that of the first kind."""
        kept = max(1, math.ceil(0.9 * len(telling)))
        trimmed = np.sort(self._total[:, telling], axis=1)[:, :kept].sum(axis=1).tolist()
        pool: list[float] = []
        seen = math.inf
        for level, windows in enumerate(self._windows.tolist()):
            prior = _FIRST
            if level:
                prior = 1 + 2 * max(pool[-1] - 1 - math.sqrt(2 / (seen + _PRIOR_WINDOWS) / streams), 0.02)
            prior, seen = min(prior, _TOP), windows
            if windows < 1 or (not lead and not len(telling)):
                pool.append(prior)
            elif len(telling) < 2 and lead:  # too rare to tell: half of what location shows
                pool.append(1 + 0.5 * (lead[level] - 1))
            else:
                correction = trimmed_chi2_means(_MAX_WINDOWS + 1)[int(windows) - 1] if kept < len(telling) else 1.0
                mean = trimmed[level] / windows / kept / correction
                pool.append((windows * mean + _PRIOR_WINDOWS * prior) / (windows + _PRIOR_WINDOWS))
        return pool


def ascending(v: F64, weight: F64) -> F64:
    """(horizons, streams): the closest to `v` that ascends with the horizon, by least squares with `weight`
    (horizons,). A running maximum would be biased by the noise of each."""
    levels = len(v)
    total, weights = np.cumsum(v * weight[:, None], axis=0), np.cumsum(weight)
    made = np.full_like(v, -np.inf)
    for first in range(levels):
        before = total[first - 1] if first else 0.0
        known = weights[first - 1] if first else 0.0
        mean = (total[first:] - before) / (weights[first:] - known)[:, None]
        least = np.minimum.accumulate(mean[::-1], axis=0)[::-1]
        made[first:] = np.maximum(made[first:], least)
    return made
