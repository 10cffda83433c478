"""Where a change began: the split of the last blocks with the largest likelihood ratio."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detectors.base import F64


class Split(NamedTuple):
    """The change began with the first of the last `blocks` blocks; since then residuals have mean `shift`."""

    blocks: int
    shift: float


def best_split(path: F64) -> Split:
    """Split a path of residuals (oldest first) where (sum after it)² / (blocks after it) is largest."""
    if not len(path):
        return Split(0, 0.0)
    after = np.cumsum(path[::-1])
    gain = after**2 / np.arange(1, len(path) + 1)
    blocks = int(np.argmax(gain)) + 1
    return Split(blocks, float(after[blocks - 1]) / blocks)
