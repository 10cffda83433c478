"""How far live traffic has been from the target: slow means, their range in the first days, and since when."""

from __future__ import annotations

import numpy as np

from detectors.base import F64, I64, Bool, Page

SLOW = 0.01
"""Weight of a block in the slow means: they remember some 2,500 events."""
LEAST_BLOCKS = 400
"""The first days last so many blocks at least, however little traffic they bring."""


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

    @property
    def usual(self) -> F64 | None:
        """What the first days have shown to be usual, as of the last `settle`; None while they last."""
        return self._usual if self._settled else None

    def settle(self, settled: bool) -> None:
        """Take the range as what is usual, if the first days are over."""
        self._usual, self._settled = self.range.copy(), settled

    def learn(self, blocks: int, mean: F64, learning: Bool) -> None:
        """Take the mean departure (sums,) of `blocks` blocks where `learning` (sums,); in the first days the range
        widens with it."""
        self._slow += np.where(learning, min(1.0, SLOW * blocks) * (mean - self._slow), 0.0)
        if not self._settled:
            np.maximum(self.range, np.abs(self._slow), out=self.range)

    def follow(self, log_e: F64, opened: float) -> None:
        """Take the log e (bets,) of blocks that began at `opened`."""
        idle = self._gain <= 0
        self._since[idle] = opened
        self._gain += log_e
        np.maximum(self._gain, 0.0, out=self._gain)

    def since(self, bet: int, of_stream: I64) -> tuple[float, float, float]:
        """Since when `bet` gains, and the first and last such time among the gaining bets `of_stream` (indices)."""
        gaining = [float(self._since[i]) for i in of_stream.tolist() if self._gain[i] > 0]
        onset = float(self._since[bet])
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
            "gain": self._gain.copy(),
            "gain_since": self._since.copy(),
        }

    def load(self, page: Page) -> None:
        """Take the arrays of `page`, of the right shapes."""
        self._slow, self.range = page["slow"].astype(np.float64), page["range"].astype(np.float64)
        self._usual, self._settled = page["usual"].astype(np.float64), bool(page["settled"][0])
        self._gain, self._since = page["gain"].astype(np.float64), page["gain_since"].astype(np.float64)
