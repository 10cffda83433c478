"""What a sample of the events does to the drift detector: its null lags further behind the season of the day.

The null remembers a number of events. Where one event in k is judged they span k times as long, and a daily swing moves
k times as far from what is remembered. So the swing that is allowed for grows with k, at once, and stays until the
null has forgotten the thin stretch.
"""

from __future__ import annotations

import math

import numpy as np

from detectors.base import I64
from detectors.drift.scores import BLOCK

_FORGOTTEN = 3.0
"""Memories after which a twentieth of a stretch is left in the null."""


class Thinned:
    """By how much (`factor`) the events that the null remembers are thinner than all, and up to which block; `allowed`
    is the factor by which blocks are judged."""

    def __init__(self, memory: float, block: int = BLOCK) -> None:
        self.factor = self.allowed = 1
        self._until = 0
        self._hold = math.ceil(_FORGOTTEN * memory / block)

    def see(self, one_in: int, block: int) -> bool:
        """Events of which one in `one_in` is judged come before `block` closes; whether the factor has changed."""
        before = self.factor
        if one_in >= self.factor:
            self.factor = one_in
            self._until = block + self._hold if one_in > 1 else 0
        elif block >= self._until:
            self.factor = one_in
            self._until = block + self._hold
        return self.factor != before

    def allow(self) -> None:
        """From here on blocks are judged by the factor."""
        self.allowed = self.factor

    def page(self) -> I64:
        """What is stored."""
        return np.array([self.factor, self.allowed, self._until], np.int64)

    def load(self, page: I64) -> None:
        """Take what `page` gave."""
        self.factor, self.allowed, self._until = (int(x) for x in page)
