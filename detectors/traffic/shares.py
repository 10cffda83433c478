"""The share of errors of a window: as a value to watch, and as what chance alone would make of it.

A series of windows that never saw an error, or whose windows grow, says by its own ranks little of what the next
window may hold. So a window is never held for more unusual than the binomial law makes it, at the share that the
history allows at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

_STEADY: Final = 10
"""Error-free requests added to each window: one error of three requests is no third."""
_MARGIN: Final = 2.5
"""Standard errors by which the usual share may be higher than it was."""
_LONGEST: Final = 4_096
"""Terms of a tail of the binomial law; the rest is nothing, or the tail is not small."""
_LEAST: Final = 1e-300
_NORMAL = NormalDist()


def share_value(errors: int, requests: int) -> float:
    """The share on the scale where chance varies it alike, 2·asin(√share). Zero without an error, however many."""
    return 2 * math.asin(math.sqrt(errors / (requests + _STEADY)))


def errors_of(value: float, requests: int) -> int:
    """The errors that `share_value` was made of."""
    return round(math.sin(value / 2) ** 2 * (requests + _STEADY))


@dataclass(slots=True)
class Usual:
    """Errors and requests of the history, older windows weighing less."""

    errors: float = 0.0
    requests: float = 0.0

    def learn(self, errors: int, requests: int, memory: int) -> None:
        """One more window of a history of `memory` windows."""
        kept = 1 - 1 / memory
        self.errors, self.requests = kept * self.errors + errors, kept * self.requests + requests

    def share_without(self, errors: int, requests: int) -> float:
        """As it was before the last `requests`, of which `errors` failed, were learnt."""
        return max(self.errors - errors, 0.0) / max(self.requests - requests, 1.0)

    def most(self, errors: int, requests: int) -> float:
        """Normal score of `errors` among `requests` by chance alone, 0 where they are no more than usual."""
        share = (self.errors + 0.5) / (self.requests + 1)
        share = min(share + _MARGIN * math.sqrt(share * (1 - share) / (self.requests + 1)), 0.999)
        if errors <= requests * share:
            return 0.0
        return max(-_NORMAL.inv_cdf(min(max(_upper_tail(errors, requests, share), _LEAST), 0.5)), 0.0)


def _upper_tail(errors: int, requests: int, share: float) -> float:
    """P(X > errors) + P(X = errors)/2 of X ~ Binomial(requests, share), errors above the mean."""
    log_first = (
        math.lgamma(requests + 1) - math.lgamma(errors + 1) - math.lgamma(requests - errors + 1)
        + errors * math.log(share) + (requests - errors) * math.log1p(-share)
    )  # fmt: skip
    last = min(requests, errors + _LONGEST)
    k = np.arange(errors, last, dtype=np.float64)
    ratios = np.cumprod((requests - k) / (k + 1) * (share / (1 - share)))
    return math.exp(min(log_first, 0.0)) * (0.5 + float(ratios.sum()))
