"""How much more the counts of cells vary than those of independent events: the design effect of whole histograms.

The sum of squared deviations over all cells of a column, over what Poisson counts would have (Rao & Scott, JASA 76,
1981), of single groups, and of stretches of 4 and 16. Many cells tell much at once, so columns differ little by chance.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors.base import F64, Bool, Page
from detectors.drift.cells import KINDS, Cells

STRETCH: Final = 4
"""Groups that are learnt from at once."""
LONGEST: Final = 4
"""Stretches of the longest horizon; the others are one stretch, and one group."""
_HORIZONS: Final = 3
LAG: Final = 3
"""A stretch so old is noise; a younger one may be a change that is still being found."""
_MOST_WINDOWS: Final = 400
_PRIOR: Final = 6.0
_MARGIN: Final = 0.5
"""Cells differ within a column: this share of the excess is added."""
_CLIP: Final = 6.0


class CellNoise:
    """`v` (cells,) for bets."""

    def __init__(self, cells: Cells) -> None:
        shape = KINDS, cells.columns
        self._cells = cells
        self._total: F64 = np.zeros((_HORIZONS, *shape))
        """Of groups, stretches and the longest horizon; the first as means over a stretch."""
        self._windows: F64 = np.zeros(_HORIZONS)
        self._apart: F64 = np.zeros(len(cells.column))
        self._wanted: F64 = np.zeros(len(cells.column))
        self._held = 0
        """Stretches of the longest horizon so far; before: their deviations, and expected counts."""
        self._young: F64 = np.full((LAG, _HORIZONS, *shape), np.nan)
        """Ratios that are not old enough, by stretch; NaN where none was completed."""
        self._level: F64 = np.ones(shape)
        self.v: F64 = np.ones(len(cells.column))

    @property
    def windows(self) -> float:
        """Stretches of the longest horizon that were learnt from."""
        return float(self._windows[-1])

    def learn(self, stretch: int, apart: F64, wanted: F64, worth: F64, latched: Bool) -> None:
        """Of stretch number `stretch`: counts less expected ones (groups, cells), expected ones of all (cells,), and
        how many groups the null is worth (columns,). Columns that are `latched` (columns,) teach nothing."""
        slot = stretch % LAG
        self._take(self._young[slot], latched)
        self._young[slot] = np.nan
        whole = apart.sum(axis=0)
        self._young[slot, 0] = self._ratio(np.add.reduce(apart * apart), wanted, 1 / worth)
        self._young[slot, 1] = self._ratio(whole * whole, wanted, len(apart) / worth)
        self._apart += whole
        self._wanted += wanted
        self._held += 1
        if self._held == LONGEST:
            share = LONGEST * STRETCH / worth
            self._young[slot, 2] = self._ratio(self._apart * self._apart, self._wanted, share)
            self._drop()

    def _ratio(self, square: F64, wanted: F64, share: F64) -> F64:
        """(KINDS, columns): squared deviations (cells,) over those of Poisson counts, about a null that is `1 / share`
        (columns,) as large. A kind without cells tells nothing."""
        chance = self._cells.by_kind(wanted) * (1 + share)
        return np.where(chance > 0, self._cells.by_kind(square) / np.maximum(chance, 1e-9), self._level)

    def forget_young(self) -> None:
        """What led to an alarm or a recovery is not learnt."""
        self._young[:] = np.nan
        self._drop()

    def page(self) -> Page:
        """All state as arrays."""
        return {
            "noise_total": self._total.copy(),
            "noise_windows": self._windows.copy(),
            "noise_apart": self._apart.copy(),
            "noise_wanted": self._wanted.copy(),
            "noise_held": np.array([self._held], np.int64),
            "noise_young": self._young.copy(),
        }

    def load(self, page: Page) -> None:
        """Take the arrays of `page`, of the right shapes."""
        self._total, self._windows = page["noise_total"].astype(np.float64), page["noise_windows"].astype(np.float64)
        self._apart, self._wanted = page["noise_apart"].astype(np.float64), page["noise_wanted"].astype(np.float64)
        self._held, self._young = int(page["noise_held"][0]), page["noise_young"].astype(np.float64)
        self._refresh()

    def _drop(self) -> None:
        self._apart[:] = 0.0
        self._wanted[:] = 0.0
        self._held = 0

    def _take(self, ratios: F64, latched: Bool) -> None:
        """Ratios (horizons, kinds, columns) that are old enough."""
        complete = ~np.isnan(ratios).any(axis=(1, 2))
        if not complete.any():
            return
        seen = np.minimum(ratios[complete], _CLIP * self._level)
        self._total[complete] += np.where(latched, self._level, seen)
        self._windows[complete] += 1
        over = self._windows > _MOST_WINDOWS
        self._total[over] *= 0.5
        self._windows[over] *= 0.5
        self._refresh()

    def _refresh(self) -> None:
        """Each column is shrunk to the mean of all; the largest of the horizons holds."""
        windows = np.maximum(self._windows, 1e-9)[:, None, None]
        pool = (self._total.mean(axis=2, keepdims=True) + _PRIOR) / (windows + _PRIOR)
        level = (self._total + _PRIOR * pool) / (windows + _PRIOR)
        self._level = np.maximum(level.max(axis=0), 1.0)
        self.v = self._cells.of_kind(1 + (1 + _MARGIN) * (self._level - 1))
