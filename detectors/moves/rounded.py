"""Lines and mirrored pairs between queries whose numbers were rounded on their way.

An interface that takes whole numbers, or a few decimals, bends an attacker's lines and moves its midpoints: exact
geometry no longer sees them. Here a field fits when it is off by no more than rounding explains, and three queries are
on a line when as many fields fitting by chance is less likely than one in a thousand, for all pairs looked at together.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from detectors.base import F64, Bool
from detectors.moves.asked import HUGE

FIELDS: Final = 3
"""Numbers that must move between any two of three queries on a line."""
_CHANCE: Final = math.log(1_000)
_ABOUT: Final = 0.8
"""Cosine of two directions that may be one."""
_PAIRS: Final = 48
_LOOKED_AT: Final = 276
"""Pairs among 24 queries."""
_FAR: Final = 100.0
_REACH: Final = 4.0
"""How far beyond the two others, in lengths between them, a query on their line may lie."""


def on_some_line(x: F64, held: F64, unit: F64, reach: F64) -> bool:
    """Whether `x` (fields,) lies on a line through two of the queries `held` (n, fields): of the pairs seen from it in
    about one direction, in units of `reach` (fields,), those that are most so are looked at."""
    gap = np.clip((held - x) / reach, -_FAR, _FAR)
    length = np.sqrt(np.einsum("ij,ij->i", gap, gap))
    gap = gap / np.where(length > 0, length, 1.0)[:, None]
    cosine = np.triu(np.abs(gap @ gap.T), 1).ravel()
    pairs = np.flatnonzero(cosine > _ABOUT)
    if not len(pairs):
        return False
    pairs = pairs[np.argsort(-cosine[pairs], kind="stable")[:_PAIRS]]
    return bool(on_line(x, held[pairs // len(held)], held[pairs % len(held)], unit).any())


def on_line(x: F64, a: F64, b: F64, unit: F64) -> Bool:
    """(pairs,) whether `x` (fields,) lies on the line through `a` and `b` (pairs, fields), all rounded to `unit`."""
    with np.errstate(over="ignore", invalid="ignore"):
        along, off = (b - a) / unit, (x - a) / unit
        length = np.einsum("ij,ij->i", along, along)
        t = np.einsum("ij,ij->i", along, off) / np.where(length > 0, length, 1.0)
        slack = (0.5 * (1.0 + np.abs(t) + np.abs(1.0 - t)) + 1e-3)[:, None]
        # What float32 loses of large numbers is no more than this many units.
        lost = np.abs(x) / unit * 2.0**-22
        fits = np.abs(off - t[:, None] * along) <= slack + lost
        there = (np.abs(a) <= HUGE) & (np.abs(b) <= HUGE) & (np.abs(x) <= HUGE)
    moved = (along != 0) & (off != 0) & (along != off)
    span = np.maximum(np.maximum(np.abs(along), np.abs(off)), np.abs(off - along))
    told = _told(span, slack, there)
    usual = (length > 0) & (np.abs(t - 0.5) <= _REACH + 0.5) & ((moved & there).sum(axis=1) >= FIELDS)
    found: Bool = usual & (fits | ~there).all(axis=1) & (told > _CHANCE + math.log(_LOOKED_AT))
    return found


def mirrored(move: F64, apart: F64, unit: F64) -> bool:
    """Whether a pair of queries `move` (fields,) apart has one of the midpoints of earlier ones: `apart` (k, fields)
    off. Fields that were clipped may not fit: four tenths of those that moved must."""
    steps = np.abs(move) / unit
    moved = steps > 0
    if not moved.any() or not len(apart):
        return False
    fits = (np.abs(apart) / unit <= 1.0 + 1e-3) & moved
    chance = np.minimum(1.0, 3.0 / (steps + 1.0))
    told = np.where(fits, -np.log(chance), 0.0).sum(axis=1)
    enough = fits.sum(axis=1) >= np.maximum(FIELDS, 0.4 * np.count_nonzero(moved))
    return bool((enough & (told > _CHANCE + math.log(len(apart)))).any())


def _told(span: F64, slack: F64, there: Bool) -> F64:
    """How unlikely it is that every field fits by chance. The field that moved furthest tells where on the line the
    query is, so it says nothing."""
    chance = np.where(there, np.minimum(1.0, (2 * slack + 1) / (span + 1)), 1.0)
    surprise = -np.log(chance)
    told: F64 = surprise.sum(axis=1) - surprise.max(axis=1, initial=0.0)
    return told
