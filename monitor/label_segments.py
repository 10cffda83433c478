"""Which declared segments a prediction is of, as a code that waits with it for its label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from detectors.base import U64, Page
from detectors.drift.segments import OWN, Segment
from monitor.intake.columns import category_text, features_of
from monitor.intake.events import Event
from monitor.intake.pending import U16
from monitor.state.codec import array_text, text_array

MOST: Final = 64
"""Segments of a model whose errors are told apart: the first that were declared."""
MOST_SETS: Final = 65_000
"""Sets of segments that are told apart; a prediction of a further one counts for the whole only."""


class LabelSegments:
    """A prediction has a code for the set of segments it is of, 0 for none. Bit k of a set belongs to `names[k]`. Bits
    and codes are kept for good: predictions wait for months."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._sets: list[int] = [0]
        """By code."""
        self._codes: dict[int, int] = {0: 0}
        self._bits: dict[str, dict[str, int]] = {}
        """Field → value → its bit."""
        self._watched: tuple[Segment, ...] = ()
        self._changed = False

    def watch(self, segments: Sequence[Segment], logged: Mapping[str, str] | None = None) -> None:
        """These are watched from now on; `logged` has the names of fields that events do not name as they are shown."""
        self._watched = tuple(segments)
        for name in map(str, segments):
            if name not in self.names and len(self.names) < MOST:
                self.names.append(name)
                self._changed = True
        bit = {name: k for k, name in enumerate(self.names)}
        self._bits = {}
        for segment in segments:
            if str(segment) in bit:
                field = (logged or {}).get(segment.field, segment.field)
                self._bits.setdefault(field, {})[segment.value] = 1 << bit[str(segment)]

    def of(self, events: Sequence[Event]) -> U16:
        """(n,) codes of predictions."""
        made = [0] * len(events)
        for field, bits in self._bits.items():
            values = [category_text(features_of(e).get(field)) for e in events]
            if field == OWN:
                values = [e.segment if v is None else v for v, e in zip(values, events, strict=True)]
            made = [m if v is None else m | bits.get(v, 0) for m, v in zip(made, values, strict=True)]
        return np.array([self._code(one) for one in made], np.uint16)

    def bits(self, codes: U16) -> U64:
        """(n,) sets as bits."""
        return np.array(self._sets, np.uint64)[np.minimum(codes, len(self._sets) - 1)]

    def dirty(self) -> dict[str, Page]:
        """The page of names and sets, where they changed."""
        if not self._changed:
            return {}
        self._changed = False
        sets = np.array(self._sets, np.uint64).view(np.int64)
        return {"segments": {"names": text_array(self.names), "sets": sets}}

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take stored names and sets; what is watched and is not among them comes after."""
        if "segments" in pages:
            self.names = array_text(pages["segments"]["names"])
            self._sets = pages["segments"]["sets"].view(np.uint64).tolist()
            self._codes = {bits: code for code, bits in enumerate(self._sets)}
            self.watch(self._watched)

    def _code(self, bits: int) -> int:
        code = self._codes.get(bits)
        if code is None:
            if len(self._sets) >= MOST_SETS:
                return 0
            code = self._codes[bits] = len(self._sets)
            self._sets.append(bits)
            self._changed = True
        return code


__all__ = ["MOST", "LabelSegments"]
