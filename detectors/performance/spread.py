"""By how much the variance of sums of errors exceeds that of independent ones, at horizons of 1 to 64 blocks.

Errors come in runs: one session, one bad hour. Log e-values are divided by this factor. A stated floor holds until
enough blocks were seen, because a short stretch cannot show long runs.
"""

from __future__ import annotations

import numpy as np

from detectors.base import F64, Page

HORIZONS = 2 ** np.arange(7)
"""In blocks."""
_FLOOR = np.array([1.15, 1.3, 1.6, 2.0, 2.5, 2.75, 2.75])
"""At the start; its excess over 1 falls with the square of what is left of _FLOOR_BLOCKS."""
_FLOOR_BLOCKS = 160
_FIRST = 1.1
_TOP = 4.0
_SHRINK = 20.0
"""Windows that the factor expected from the horizon below is worth."""
_CLIP = 12.0
_MAX_WINDOWS = 400


class Spread:
    """The factor of every horizon and stream, `v` (horizons, streams)."""

    def __init__(self, streams: int) -> None:
        levels = len(HORIZONS)
        self._total: F64 = np.zeros((levels, streams))
        self._part: F64 = np.zeros((levels, streams))
        self._windows: F64 = np.zeros((levels, streams))
        self._blocks: F64 = np.zeros(streams)
        self.v: F64 = np.tile(_FLOOR[:, None], (1, streams))

    def learn(self, stream: int, residual: float) -> None:
        """Take the standardised residual of one block."""
        self._blocks[stream] += 1
        self._part[:, stream] += residual
        for level, horizon in enumerate(HORIZONS.tolist()):
            if self._blocks[stream] % horizon:
                break
            square = float(self._part[level, stream]) ** 2 / horizon
            self._total[level, stream] += min(square, _CLIP * float(self.v[level, stream]))
            self._part[level, stream] = 0.0
            self._windows[level, stream] += 1
            if self._windows[level, stream] > _MAX_WINDOWS:
                self._total[level, stream] *= 0.5
                self._windows[level, stream] *= 0.5
        self._refresh(stream)

    def forget(self, stream: int) -> None:
        """Begin a stream anew."""
        for array in (self._total, self._part, self._windows):
            array[:, stream] = 0.0
        self._blocks[stream] = 0.0
        self.v[:, stream] = _FLOOR

    def page(self) -> Page:
        """All state as arrays."""
        names = ("total", "part", "windows", "blocks", "v")
        arrays = (self._total, self._part, self._windows, self._blocks, self.v)
        return {f"spread_{name}": array.copy() for name, array in zip(names, arrays, strict=True)}

    def load(self, page: Page) -> None:
        """Take the arrays of `page`, of the right shapes."""
        self._total, self._part, self._windows, self._blocks, self.v = (
            page[f"spread_{name}"].astype(np.float64) for name in ("total", "part", "windows", "blocks", "v")
        )

    def _refresh(self, stream: int) -> None:
        expected, least = _FIRST, 1.0
        left = max(0.0, 1 - float(self._blocks[stream]) / _FLOOR_BLOCKS) ** 2
        for level in range(len(HORIZONS)):
            windows = float(self._windows[level, stream])
            seen = (float(self._total[level, stream]) + _SHRINK * expected) / (windows + _SHRINK)
            least = max(least, seen, 1 + (float(_FLOOR[level]) - 1) * left)
            self.v[level, stream] = least
            # what the horizon shows beyond its own chance doubles at the next one at most
            chance = float(np.sqrt(2 / (windows + _SHRINK)))
            expected = min(1 + 2 * max(seen - 1 - chance, 0.02), _TOP)
