"""Since when a stream has kept to one side: onsets that lie further back than residuals are kept."""

from __future__ import annotations

import numpy as np

from detectors.base import F64, Bool, Page

_HALF_STEP = 0.5
"""CUSUM against half a standard error a block: a run lasts while a block is on average further out."""


class Runs:
    """A CUSUM of each stream in both directions, and when it left zero."""

    def __init__(self, streams: int) -> None:
        self._gain: F64 = np.zeros((2, streams))
        self._since: F64 = np.full((2, streams), np.nan)

    def follow(self, residual: F64, blocks: int, opened: float) -> None:
        """Take the sum (streams,) of the residuals of `blocks` blocks that began at `opened`."""
        gain = self._gain
        np.copyto(self._since, opened, where=gain <= 0)
        gain -= _HALF_STEP * blocks
        gain[0] += residual
        gain[1] -= residual
        np.maximum(gain, 0.0, out=gain)

    def since(self, stream: int, shift: float) -> float | None:
        """When the run of a stream in the direction of `shift` began; None where there is none."""
        side = 0 if shift >= 0 else 1
        return float(self._since[side, stream]) if self._gain[side, stream] > 0 else None

    def restart(self, streams: Bool) -> None:
        """Forget the runs of these streams."""
        self._gain[:, streams] = 0.0

    def page(self) -> Page:
        """All state as arrays."""
        return {"run_gain": self._gain.copy(), "run_since": self._since.copy()}

    def load(self, page: Page) -> None:
        """Take the arrays of `page`, of the right shapes."""
        self._gain, self._since = page["run_gain"].astype(np.float64), page["run_since"].astype(np.float64)
