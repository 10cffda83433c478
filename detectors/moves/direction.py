"""In which direction queries deviate from honest ones: what accounts of one attacker have in common.

A query is described by the rank of each number in the reference and by how well each pair of dependent fields belongs
together. The direction weighs what is surely different in an attacker's queries; p-values of a query along it are those
among honest queries, so an honest client has none that add up, whatever the direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.base import F64
from detectors.moves.scale import Scale
from detectors.views.projection import F32

_SURELY: Final = 4.0
"""Standard errors by which a mean must be off to count."""
_COSINE: Final = 0.7
"""Directions at a smaller cosine than this are different ones."""
_FAR: Final = 4.0
"""Standard deviations at which a single value is cut off: few queries must tell the direction."""
_BET: Final = 0.3
_FEWEST: Final = 8


@dataclass(frozen=True, slots=True)
class Direction:
    """A direction among the descriptions of queries, and where honest ones lie along it."""

    mean: F64
    sd: F64
    shift: F64
    """(k,) mean deviation in honest standard deviations."""
    weight: F64
    """(k,) the same where it is sure, else 0."""
    honest: F64
    """Honest queries along it, ascending."""

    @staticmethod
    def of(heads: F32, honest: F32, scale: Scale) -> Direction | None:
        """Of an attacker's queries, none of which was made from another; None when nothing is sure."""
        if len(heads) < _FEWEST or len(honest) < _FEWEST:
            return None
        usual = described(honest, scale)
        mean, sd = usual.mean(axis=0), usual.std(axis=0) + 1e-3
        shift = _standard(heads, mean, sd, scale).mean(axis=0)
        weight = np.where(np.abs(shift) > _SURELY / math.sqrt(len(heads)), shift, 0.0)
        if not weight.any():
            return None
        along = np.sort(np.einsum("ij,j->i", _standard(honest, mean, sd, scale), weight))
        return Direction(mean, sd, shift, weight, along)

    def along(self, heads: F32, scale: Scale) -> float:
        """Log evidence that queries deviate in this direction; 0 when they deviate in another one."""
        z = _standard(heads, self.mean, self.sd, scale)
        shift = z.mean(axis=0)
        sure = (self.weight != 0) | (np.abs(shift) > _SURELY / math.sqrt(len(heads)))
        a, b = self.shift[sure], shift[sure]
        if float(a @ b) < _COSINE * math.sqrt(float(a @ a) * float(b @ b)):
            return 0.0
        value = np.einsum("ij,j->i", z, self.weight)
        n = len(self.honest)
        p = (n - np.searchsorted(self.honest, value, side="left") + 1) / (n + 1)
        steps = math.log(_BET) + (_BET - 1) * np.log(p)
        sums = np.cumsum(steps[::-1])
        return max(0.0, float(sums.max()))


def _standard(cells: F32, mean: F64, sd: F64, scale: Scale) -> F64:
    z: F64 = np.clip((described(cells, scale) - mean) / sd, -_FAR, _FAR)
    return z


def described(cells: F32, scale: Scale) -> F64:
    """(n, numbers + edges) rank of each number about the middle, and how well dependent fields belong together."""
    return np.concatenate([scale.ranks(cells), scale.belonging(cells)], axis=1)
