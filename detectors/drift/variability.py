"""Whether traffic varies so much that changes must be large to page: which means, by how much, and in which way.

A column counts as blunt where a lasting shift of its mean, twice as large as the smallest that pages when events are
independent and without season, is not found. What is allowed for in the first days only is left out: it passes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from detectors.base import F64, I64
from detectors.drift.design_effect import HORIZONS, DesignEffect
from detectors.drift.scores import FAMILIES
from detectors.drift.smallest import SHIFTS, Stakes, played

FAR: Final = 2.0
"""Times the smallest shift of independent events."""
_SHORT: Final = 4
"""Place of the horizon (16 blocks) that tells long waves from short bursts."""
_WAVES: Final = 1.5
"""At the longest horizon v is so many times that of the short one where means wander: bursts are over by then."""


class Variability(NamedTuple):
    """Shifts in σ that half of the means find within two memories, NaN where none is: `smallest` as things are,
    `independent` were events so. `design_effect` is the median over the means at the longest horizon (1,600 events)."""

    smallest: float
    independent: float
    design_effect: float
    means: int
    blunt: tuple[tuple[str, float], ...]
    """Columns that must move more than FAR times `independent`, with their design effects, most varying first; none
    while the noise is assumed."""
    slow: bool
    """Whether those wander over long stretches, as against short bursts such as sessions."""
    swing: float
    """Season (σ) that is allowed for for good: median over the means."""
    strayed: float
    """How far (σ) the blunt mean that strayed most was from the reference in the first days; 0 while they last."""


def independent(stakes: Stakes) -> float:
    """The smallest shift of a mean that half of them find where events are independent and without season."""
    calm = stakes._replace(noise=DesignEffect(stakes.target, 0.0), swing=np.zeros_like(stakes.swing))
    return smallest_shift(calm)


def variability(stakes: Stakes, least: float, lasting: F64, measured: bool, strayed: F64) -> Variability | None:
    """What variation costs: `least` is that of `independent`, `lasting` (G + P,) the swing that is allowed for after
    the first days; the noise has been `measured`, or is still assumed; `strayed` (G + P,) is how far means were from
    the reference in the first days. None where the target has no mean."""
    target, own = stakes.target, _means(stakes)
    if not len(own):
        return None
    long, short = stakes.noise.v[-1], stakes.noise.v[_SHORT]
    blunt: I64 = own[:0]
    if measured and not np.isnan(least):
        found = played(stakes._replace(swing=lasting), FAR * least, 0.0, own)
        blunt = own[np.isnan(found[own])]
    order = blunt[np.argsort(-long[blunt], kind="stable")].tolist()
    return Variability(
        smallest_shift(stakes),
        least,
        float(np.median(long[own])),
        len(own),
        tuple((target.scores[i].stream.fields[0], float(long[i])) for i in order),
        bool(len(blunt)) and float(np.median(long[blunt] / short[blunt])) > _WAVES,
        float(np.median(lasting[own])),
        float(strayed[blunt].max(initial=0.0)),
    )


def smallest_shift(stakes: Stakes) -> float:
    """Of SHIFTS: the smallest that half of the means find; NaN where they do not find the largest."""
    own = _means(stakes)
    low, high = -1, len(SHIFTS) - 1  # shifts up to `low` are found, from high + 1 on they are not
    while low < high:
        middle = (low + high + 1) // 2
        found = ~np.isnan(played(stakes, float(SHIFTS[middle]), 0.0, own)[own])
        low, high = (middle, high) if 2 * found.sum() >= len(own) else (low, middle - 1)
    return float(SHIFTS[low]) if low >= 0 else float("nan")


def _means(stakes: Stakes) -> I64:
    return np.flatnonzero(stakes.target.family == FAMILIES.index("loc"))


assert HORIZONS[_SHORT] == 16
