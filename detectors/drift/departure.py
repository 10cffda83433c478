"""How far live traffic has been from the target: slow means, their range in the first days, and since when."""

from __future__ import annotations

import numpy as np

from detectors.base import F64, I64, Bool, Page

SLOW = 0.01
"""Weight of a block in the slow means: they remember some 2,500 events."""
LEAST_BLOCKS = 400
"""The first days last so many blocks at least, however little traffic they bring."""
_CALM = 0.05
"""A slow mean of independent events strays so far from the target by chance."""


class Departure:
    """State of the target family beside its capital: `range` (sums,) in σ, and a CUSUM of each bet for its onset."""

    def __init__(self, sums: int, bets: int) -> None:
        self._slow: F64 = np.zeros(sums)
        self.range: F64 = np.zeros(sums)
        """Largest slow mean of the first days."""
        self._usual: F64 = np.zeros(sums)
        self._settled = False
        self._gain: F64 = np.zeros(bets)
        self._since: F64 = np.full(bets, np.nan)
        self._calm: F64 = np.full(sums, np.nan)

    @property
    def usual(self) -> F64 | None:
        """What the first days have shown to be usual, as of the last `settle`; None while they last."""
        return self._usual if self._settled else None

    def settle(self, settled: bool) -> None:
        """Take the range as what is usual, if the first days are over."""
        self._usual, self._settled = self.range.copy(), settled

    def learn(self, blocks: int, mean: F64, learning: Bool, opened: float) -> None:
        """Take the mean departure (sums,) of `blocks` blocks that began at `opened` where `learning` (sums,); in the
        first days the range widens with it."""
        calm = np.abs(self._slow) <= (np.maximum(self._usual, _CALM) if self._settled else _CALM)
        np.copyto(self._calm, opened, where=calm & learning | np.isnan(self._calm))
        self._slow += learning * ((1 - (1 - SLOW) ** blocks) * (mean - self._slow))
        if not self._settled:
            np.maximum(self.range, np.abs(self._slow), out=self.range)

    def follow(self, log_e: F64, opened: float) -> None:
        """Take the log e (bets,) of blocks that began at `opened`."""
        np.copyto(self._since, opened, where=self._gain <= 0)
        self._gain += log_e
        np.maximum(self._gain, 0.0, out=self._gain)

    def since(self, bet: int, of_stream: I64, place: int | None) -> tuple[float, float, float]:
        """Onset, and its interval. A departure begins where the slow mean at `place` (None for a count) was as usual
        for the last time, or where `bet` began to gain; it had begun when the last bet `of_stream` (indices) did."""
        gaining = [float(self._since[i]) for i in of_stream.tolist() if self._gain[i] > 0]
        onset = float(self._since[bet])
        if place is not None:
            onset = min(onset, float(self._calm[place]))
        return onset, min([onset, *gaining]), max([onset, *gaining])

    def restart(self, bets: Bool) -> None:
        """Forget the gains of these bets."""
        self._gain[bets] = 0.0

    def page(self) -> Page:
        """All state as arrays."""
        return {
            "slow": self._slow.copy(),
            "range": self.range.copy(),
            "usual": self._usual.copy(),
            "settled": np.array([self._settled], np.uint8),
            "calm": self._calm.copy(),
            "gain": self._gain.copy(),
            "gain_since": self._since.copy(),
        }

    def load(self, page: Page) -> None:
        """Take the arrays of `page`, of the right shapes."""
        self._slow, self.range = page["slow"].astype(np.float64), page["range"].astype(np.float64)
        self._usual, self._settled = page["usual"].astype(np.float64), bool(page["settled"][0])
        self._calm = page["calm"].astype(np.float64)
        self._gain, self._since = page["gain"].astype(np.float64), page["gain_since"].astype(np.float64)
