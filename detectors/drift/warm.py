"""A reference in time order teaches the noise too: each of its blocks is held against those before it."""

from __future__ import annotations

import numpy as np

from detectors.drift.calendar import Calendar
from detectors.drift.design_effect import DesignEffect
from detectors.drift.scores import BLOCK
from detectors.drift.target import Target
from detectors.reference import Reference

_MIN_VARIANCE = 1e-4


def learn_ordered(reference: Reference, target: Target, noise: DesignEffect, calendar: Calendar | None) -> None:
    """Teach `noise` the residuals of the reference's blocks, less their season. Only for `reference.ordered`."""
    used = len(reference) // BLOCK * BLOCK
    sums, squares, counts = target.block_sums(target.binning.index(reference.rows)[:used])
    if calendar is not None:
        sums, squares = calendar.without(reference.rows.time[:used], sums, squares)
    m = float(BLOCK)
    s1, s2, k = m * target.mean, m * target.second, m * target.count / target.rows
    latched = np.zeros(len(target.scores), np.bool_)
    for i in range(len(sums)):
        mean = s1 / m
        spread = np.sqrt(np.maximum(s2 / m - mean * mean, _MIN_VARIANCE))
        z = (sums[i] / BLOCK - mean) / (spread * np.sqrt(1 / BLOCK + 1 / m))
        expected = BLOCK * k / m
        zp = (counts[i] - expected) / np.sqrt(expected + BLOCK * expected / m + 1e-3)
        noise.learn(np.concatenate([np.clip(z, -8, 8), np.clip(zp, -6, 6)])[None], latched)
        noise.warmed += 1
        m, s1, s2, k = m + BLOCK, s1 + sums[i], s2 + squares[i], k + counts[i]
        if i % 4 == 3:
            noise.refresh(0, BLOCK * k / m)
