"""How an attacker moves inside a thread: flips, lines, mirrored pairs, steps that follow success, sweeps.

Log-likelihood ratios of an attacker's rate against the honest one, as CUSUMs floored at 0. Honest rates are measured
on the model's own clean traffic and never taken below what was seen elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from detectors.base import F64, Page

FLIP, LINE, MIRROR, PROBE, TWIN = range(5)
DEFAULT_RATES: Final[F64] = np.array([[0.12, 0.40], [0.005, 0.15], [0.06, 0.30], [0.05, 0.40], [0.02, 0.45]])
"""(5, 2) honest and attacker's share of flips, lines, mirrored pairs, probes and twins among a client's queries."""
_MARGIN_OF_RATE: Final = 3.0
_MOST_HONEST: Final = 0.5
_LEAST_SEEN: Final = 30


def rates(hits: F64, seen: F64) -> F64:
    """(5, 2) rates for a model on whose clean traffic `hits` (5,) of `seen` (5,) queries moved so."""
    known = np.where(seen >= _LEAST_SEEN, _MARGIN_OF_RATE * (hits + 0.5) / (seen + 1), 0.0)
    honest = np.maximum(DEFAULT_RATES[:, 0], known)
    attack = np.minimum(0.95, np.maximum(DEFAULT_RATES[:, 1], 3 * honest))
    out: F64 = np.stack([np.minimum(honest, _MOST_HONEST), attack], axis=1)
    return out


@dataclass(slots=True)
class Steps:
    """What was seen of one client's moves so far."""

    sums: F64 = field(default_factory=lambda: np.zeros(5))
    """CUSUMs of flips, lines, mirrored pairs, probes and twins."""
    hits: F64 = field(default_factory=lambda: np.zeros(5))
    seen: F64 = field(default_factory=lambda: np.zeros(5))
    """Over how many queries each sum has been above 0, and how many of them moved so."""
    followed: F64 = field(default_factory=lambda: np.zeros((2, 2)))
    """Counts by (the last query was an improvement, this one was made from it)."""
    likelihood: float = 0.0
    """Log likelihood of these counts as they were predicted one by one (Krichevsky & Trofimov 1981)."""

    def move(self, which: int, yes: bool, rate: F64) -> None:
        """One query that did or did not move so; `rate` (2,): honest and attacker's."""
        honest, attack = rate.tolist()
        told = math.log(attack / honest) if yes else math.log((1 - attack) / (1 - honest))
        self.sums[which] = max(0.0, self.sums[which] + told)
        self.seen[which] = self.seen[which] + 1 if self.sums[which] > 0 else 0.0
        self.hits[which] = self.hits[which] + yes if self.sums[which] > 0 else 0.0

    def follow(self, improved: bool, follows: bool) -> None:
        """One query that was or was not made from the last one, which was or was not an improvement."""
        row = self.followed[int(improved)]
        self.likelihood += math.log((row[int(follows)] + 0.5) / (row.sum() + 1))
        row[int(follows)] += 1

    def following(self) -> float:
        """Log evidence that the client goes on from what succeeded: two rates against the best single one.

        Universal inference (Wasserman, Ramdas & Balakrishnan 2020), one-sided.
        """
        (no0, no1), (yes0, yes1) = self.followed.tolist()
        stayed, went = no0 + yes0, no1 + yes1
        if (yes1 + 0.5) / (yes0 + yes1 + 1) <= (no1 + 0.5) / (no0 + no1 + 1):
            return 0.0
        n = stayed + went
        null = sum(k * math.log(k / n) for k in (stayed, went) if k)
        return float(self.likelihood - null)

    def page(self) -> Page:
        """Everything, as arrays."""
        return {
            "moves": np.stack([self.sums, self.hits, self.seen]),
            "followed": np.append(self.followed.ravel(), self.likelihood),
        }

    def restore(self, page: Page) -> None:
        """Take what `page` gave."""
        self.sums, self.hits, self.seen = page["moves"].astype(np.float64).copy()
        self.followed = page["followed"][:4].astype(np.float64).reshape(2, 2)
        self.likelihood = float(page["followed"][4])
