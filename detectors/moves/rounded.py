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
_ABOUT: Final = 0.9
"""Cosine of two directions that may be one."""
_PAIRS: Final = 24
_FAR: Final = 100.0
_REACH: Final = 4.0
"""How far beyond the two others, in lengths between them, a query on their line may lie."""


def lines(x: F64, held: F64, there: Bool, unit: F64, reach: F64) -> Bool:
    """(m,) whether each of `x` (m, fields) lies on a line through two of its earlier queries `held` (m, k, fields),
    as far as they are `there` (m, k).

    Numbers are rounded to `unit` (fields,). Of the pairs seen from `x` in about one direction, in units of `reach`
    (fields,), those that are most so are looked at.
    """
    m, k = held.shape[:2]
    gap = np.clip((held - x[:, None]) / reach, -_FAR, _FAR)
    length = np.sqrt(np.einsum("ijk,ijk->ij", gap, gap))
    gap *= np.where(there & (length > 0), 1 / np.where(length > 0, length, 1.0), 0.0)[:, :, None]
    cosine = np.abs(gap @ gap.transpose(0, 2, 1)) * np.triu(np.ones((k, k)), 1)
    cosine = cosine.reshape(m, k * k)
    most = np.argpartition(-cosine, min(_PAIRS, k * k) - 1, axis=1)[:, :_PAIRS]
    row, column = np.nonzero(np.take_along_axis(cosine, most, axis=1) > _ABOUT)
    pair = most[row, column]
    found: Bool = np.zeros(m, np.bool_)
    n = np.minimum(there.sum(axis=1), k).astype(np.float64)
    pairs = np.maximum(n * (n - 1) / 2, 1.0)[row]
    found[row[on_line(x[row], held[row, pair // k], held[row, pair % k], unit, pairs)]] = True
    return found


def on_line(x: F64, a: F64, b: F64, unit: F64, pairs: F64) -> Bool:
    """(n,) whether each of `x` lies on the line through `a` and `b`, all (n, fields) and rounded to `unit`; `pairs`
    (n,) were looked at to find this one."""
    there = (np.abs(a) <= HUGE) & (np.abs(b) <= HUGE) & (np.abs(x) <= HUGE)
    along, off = np.where(there, b - a, 0.0) / unit, np.where(there, x - a, 0.0) / unit
    length = np.einsum("ij,ij->i", along, along)
    t = np.einsum("ij,ij->i", along, off) / np.where(length > 0, length, 1.0)
    slack = (0.5 * (1.0 + np.abs(t) + np.abs(1.0 - t)) + 1e-3)[:, None]
    # What float32 loses of large numbers is no more than this many units.
    lost = np.where(there, np.abs(x), 0.0) / unit * 2.0**-22
    fits = (np.abs(off - t[:, None] * along) <= slack + lost).all(axis=1)
    span = np.maximum(np.maximum(np.abs(along), np.abs(off)), np.abs(off - along))
    surprise = -np.log(np.where(there, np.minimum(1.0, (2 * slack + 1) / (span + 1)), 1.0))
    # The field that moved furthest tells where on the line the query is, so that it fits says nothing.
    told = surprise.sum(axis=1) - surprise.max(axis=1, initial=0.0)
    moved = ((along != 0) & (off != 0) & (along != off)).sum(axis=1)
    found: Bool = (
        fits & (length > 0) & (np.abs(t - 0.5) <= _REACH + 0.5) & (moved >= FIELDS) & (told > _CHANCE + np.log(pairs))
    )
    return found


def mirrored(moves: F64, apart: F64, there: Bool, unit: F64) -> Bool:
    """(m,) whether pairs of queries `moves` (m, fields) apart have the midpoint of an earlier pair: `apart`
    (m, k, fields) off, of those that are `there` (m, k). Fields that were clipped may not fit: four tenths of those
    that moved must."""
    steps = moves / unit
    fits = (apart <= unit * (1.0 + 1e-3)) & (steps > 0)[:, None]
    surprise = -np.log(np.minimum(1.0, 3.0 / (steps + 1.0)))
    told = np.where(fits, surprise[:, None], 0.0).sum(axis=2)
    enough = fits.sum(axis=2) >= np.maximum(FIELDS, 0.4 * np.count_nonzero(steps, axis=1))[:, None]
    found: Bool = (there & enough & (told > _CHANCE + math.log(apart.shape[1]))).any(axis=1)
    return found
