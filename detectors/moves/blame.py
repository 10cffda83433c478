"""Whose queries moved the data: if all clients change it is a drift, if one does it is that client.

The distance between the queries since the onset and those before is taken where their distribution functions are
furthest apart, or over the categories that have become more. There it is a sum over clients, of their share of the
queries times how far their own lie from before, so that each client's part of the change is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.base import F64, I64, Bool
from detectors.views.projection import F32

LEAST_BEFORE: Final = 100
LEAST: Final = 8
"""Queries before the onset, and of a client since, without which nobody is blamed."""
MOST_OF_IT: Final = 0.8


@dataclass(frozen=True, slots=True)
class Part:
    """What one client has to do with a change: its part of it, and its `n` queries since the onset among `of`."""

    owner: int
    part: float
    n: int
    of: int


def parts(owner: I64, values: F32, later: Bool, categories: int) -> list[Part]:
    """Each client's part of the change of some columns, largest first; nothing where there is too little to tell.

    `owner` (n,), `values` (n, columns), of which the last `categories` are codes; `later` (n,): since the onset.
    """
    n = int(later.sum())
    if n < LEAST or len(later) - n < LEAST_BEFORE or not values.shape[1]:
        return []
    owners, code = np.unique(owner[later], return_inverse=True)
    total = np.zeros(len(owners))
    for j in range(values.shape[1]):
        total += _parts(code, values[later, j], values[~later, j], j >= values.shape[1] - categories)
    whole = total.sum()
    if whole <= 0:
        return []
    count = np.bincount(code, minlength=len(owners))
    found = zip(owners.tolist(), (total / whole).tolist(), count.tolist(), strict=True)
    made = [Part(who, part, its, n) for who, part, its in found]
    return sorted(made, key=lambda p: (-p.part, p.owner))


def _parts(code: I64, values: F32, before: F32, category: bool) -> F64:
    """(clients,) parts that sum to the distance of one column; those who move against the change have negative ones."""
    if category:
        words, word = np.unique(np.concatenate([values, before]), return_inverse=True)
        now = np.bincount(word[: len(values)], minlength=len(words)) / len(values)
        was = np.bincount(word[len(values) :], minlength=len(words)) / len(before)
        rising = now > was
        inside, usual = rising[word[: len(values)]], was[rising].sum()
    else:
        points = np.unique(values)
        now = np.searchsorted(np.sort(values), points, side="right") / len(values)
        was = np.searchsorted(np.sort(before), points, side="right") / len(before)
        at = int(np.argmax(np.abs(now - was)))
        inside, usual = values <= points[at], was[at]
    towards = np.sign(float(inside.mean()) - usual)
    part: F64 = np.bincount(code, weights=towards * (inside - usual)) / len(values)
    return part
