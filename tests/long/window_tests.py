"""What a window test of the same budget needs, to compare delays with: `python -m tests.long.window_tests`.

Sums over the last w events, looked at every 25, two-sided, over 20 columns whose law is known exactly; for each kind of
change the window that is best for its size, and the whole budget on that kind: no test that must choose a window, learn
the law and share its budget between kinds is faster. Thresholds are set on simulated streams, one false alarm in 3M
events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from detectors.base import F64

BLOCK: Final = 25
COLUMNS: Final = 20
BUDGET: Final = 3_000_000
WINDOWS: Final = (50, 100, 150, 200, 300, 400, 600, 800, 1_200, 1_600)
CALIBRATED: Final = 40
"""Stretches of one budget each that thresholds are set on."""
DELAYS: Final = 400
_AFTER: Final = 8_000
_RARE: Final = 0.0460
"""Share of the category that becomes more in `test_drift_budget`."""
Draw = Callable[[np.random.Generator, tuple[int, ...]], F64]


def normal(shift: float) -> Draw:
    """Sums of a block of standard normal values that have moved."""
    return lambda rng, size: np.asarray(5 * rng.standard_normal(size) + shift * BLOCK, np.float64)


def squares(scale: float) -> Draw:
    """Sums of squares of a block of normal values."""
    return lambda rng, size: np.asarray(scale**2 * rng.chisquare(BLOCK, size), np.float64)


def counts(share: float) -> Draw:
    """Events of a block with a property."""
    return lambda rng, size: rng.binomial(BLOCK, share, size).astype(np.float64)


KINDS: Final[dict[str, tuple[Draw, Draw]]] = {
    "mean.25": (normal(0), normal(0.25)),
    "mean.5": (normal(0), normal(0.5)),
    "scale1.5": (squares(1), squares(1.5)),
    "cat10pp": (counts(_RARE), counts(_RARE + 0.1)),
    "missing5": (counts(0.01), counts(0.06)),
}
"""Draws without the change, and with it."""


def windows(sums: F64, blocks: int) -> F64:
    """Sums over the last `blocks` blocks, along the first axis."""
    total = np.cumsum(sums, axis=0)
    out: F64 = total[blocks:] - total[:-blocks]
    return out


def threshold(draw: Draw, blocks: int, centre: float, rng: np.random.Generator) -> float:
    """Distance from the centre that is passed once in a budget: in a stretch of one, with probability 1 − 1/e."""
    most = [
        float(np.abs(windows(draw(rng, (BUDGET // BLOCK, COLUMNS)), blocks) - centre * blocks).max())
        for _ in range(CALIBRATED)
    ]
    return float(np.quantile(most, np.exp(-1)))


def mean_delay(kind: str, blocks: int, rng: np.random.Generator) -> float:
    """Events from a change to the alarm, on the average; what is not found in 8,000 events counts as 8,000."""
    before, after = KINDS[kind]
    centre = float(before(rng, (400_000,)).mean())
    least = threshold(before, blocks, centre, rng)
    sums = np.concatenate([before(rng, (blocks, DELAYS)), after(rng, (_AFTER // BLOCK, DELAYS))])
    passed = np.abs(windows(sums, blocks) - centre * blocks) > least
    first = np.where(passed.any(axis=0), passed.argmax(axis=0) + 1, _AFTER // BLOCK)
    return float(first.mean()) * BLOCK + BLOCK / 2  # the change falls anywhere in a block


def main() -> None:
    """One row for each kind of change: the best window and its delay."""
    for kind in KINDS:
        rng = np.random.default_rng(1)
        delay, window = min((mean_delay(kind, w // BLOCK, rng), w) for w in WINDOWS)
        print(f"| {kind} | {window:,} | {delay:.0f} |", flush=True)


if __name__ == "__main__":
    main()
