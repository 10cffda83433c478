"""A second opinion on errors that never pages: river's ADWIN (Bifet & Gavaldà 2007) on the same 0/1 errors.

It sees zeros and ones only: one NaN would blind it for good. Its bytes are never stored, because corrupt ones raise
what `except Exception` does not catch; the values it saw are stored, and it is fed them again. So that they stay few,
it begins anew with the newer half whenever they reach the bound, restart or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from detectors.base import F64, Page

BOUND = 8_192
"""Values it is fed again at most."""


class SecondOpinion:
    """`detections` of a rise so far; `width` is the number of errors it takes to be of one law (0: it is broken)."""

    def __init__(self) -> None:
        self.detections = 0
        self._values: list[int] = []
        self._adwin: Any = None
        self._broken = False

    @property
    def width(self) -> int:
        return 0 if self._adwin is None else int(self._adwin.width)

    def update(self, wrong: F64) -> None:
        """Take errors; whatever is not 1 counts as 0."""
        for value in (wrong == 1.0).astype(np.int64).tolist():
            if len(self._values) >= BOUND:
                self._values = self._values[BOUND // 2 :]
                self._begin(self._values)
            self._values.append(value)
            self.detections += self._feed(value)

    def page(self) -> Page:
        """All state as arrays."""
        return {
            "adwin_values": np.array(self._values, np.uint8),
            "adwin_detections": np.array([self.detections], np.int64),
        }

    def load(self, page: Page) -> None:
        """Take the arrays of `page`."""
        self.detections = int(page["adwin_detections"][0])
        self._values = (page["adwin_values"] != 0).astype(np.int64).tolist()
        self._begin(self._values)

    def _begin(self, values: Iterable[int]) -> None:
        self._adwin, self._broken = None, False
        for value in values:
            self._feed(value)

    def _feed(self, value: int) -> bool:
        """Whether this value shows a rise. A panic in the library ends the second opinion, nothing else."""
        if self._broken:
            return False
        try:
            if self._adwin is None:
                from river.drift import ADWIN  # a second and 100 MB: only where it is asked for

                make: Any = ADWIN
                self._adwin = make()
            before = float(self._adwin.estimation)
            self._adwin.update(float(value))
            return bool(self._adwin.drift_detected) and float(self._adwin.estimation) > before
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException:  # a panic of compiled code is no Exception
            self._adwin, self._broken = None, True
            return False
