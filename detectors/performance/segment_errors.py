"""Detector `segment_error_rate`: the error rate once more for each large value of the declared segment fields.

A model that fails in one region only hides in the rate of all. Each segment has blocks, rate and bets of its own. A
version whose errors have alarmed is latched in every segment and in the whole, so that one cause is one incident.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from detectors.base import I64, Context, LabelBatch, Stream, register
from detectors.drift.segments import OF_DRIFT, SHARE, Segment, segments_of, share_of_segments
from detectors.performance.error_rate import ErrorRate, Params


@register
class SegmentErrorRate(ErrorRate):
    """Errors of each of the four model versions seen last, in one segment of the traffic."""

    name = "segment_error_rate"
    inputs = frozenset({"reference", "outputs", "labels", "segments"})
    lacking = "no segment has enough rows in the reference, or its field is no category"
    share = SHARE * (1 - OF_DRIFT)

    def __init__(self, context: Context, params: Any, segment: Segment, of: int) -> None:
        """Watch one `segment` of `of`."""
        self.segment = str(segment)
        self._told = f"{self.segment}: "
        self.name = f"{type(self).name}:{self.segment}"  # type: ignore[misc]
        self.share = share_of_segments(1 - OF_DRIFT, of)  # type: ignore[misc]
        super().__init__(context, params)

    @classmethod
    def made(cls, context: Context, params: Any) -> Iterator[SegmentErrorRate]:
        """One detector for each segment that has enough rows in the reference."""
        found = segments_of(context.reference, context.segments)
        for segment in found:
            yield cls(context, params, segment, len(found))

    def streams(self) -> Sequence[Stream]:
        return [replace(s, name=f"{self.segment} {s.name}", segment=self.segment) for s in super().streams()]

    def _own(self, batch: LabelBatch, rows: I64, slots: I64) -> tuple[I64, I64]:
        """Those of these rows whose predictions were of the segment."""
        if batch.member is None or self.segment not in batch.segments:
            return rows[:0], slots[:0]
        bit = np.uint64(batch.segments.index(self.segment))
        mine = (batch.member[rows] >> bit) & np.uint64(1) == 1
        return rows[mine], slots[mine]


__all__ = ["Params", "SegmentErrorRate"]
