"""Detector `segment_drift`: the drift detector once more for each large value of the declared segment fields.

What moves in one region only is diluted among all events. Each segment has blocks, null and bets of its own, judged
against the reference's rows of that segment; all segments together have 30 % of the drift budget. A field that has
alarmed is latched in every segment and in the whole, so that one cause is one incident.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.base import (
    I32,
    I64,
    Batch,
    Category,
    Context,
    Evidence,
    Explanation,
    Identity,
    Numeric,
    Stream,
    Views,
    register,
)
from detectors.drift.params import Params
from detectors.drift.predictive import PredictiveDrift
from detectors.reference import Reference

SHARE: Final = 0.3
"""Part of the drift budget that all segments together have."""
OF_DRIFT: Final = 0.9
"""Part of that which is for drift; the rest is for their labels."""
LEAST_ROWS: Final = 100
"""Rows of the reference that a segment must have."""
MOST: Final = 12
"""Segments watched of one field: those with most rows of the reference."""
OWN: Final = "segment"
"""Name of the segment that events carry themselves, where no input field is called so."""
_MAX_NAME = 60


class Segment(NamedTuple):
    """One value of a segment field."""

    field: str
    value: str

    def __str__(self) -> str:
        """field=value, however long or odd the value is."""
        text = "".join(c if c.isprintable() else "\ufffd" for c in self.value)
        if len(text) > _MAX_NAME or text != self.value:
            text = f"{text[:_MAX_NAME]}~{hashlib.blake2b(self.value.encode(), digest_size=4).hexdigest()}"
        return f"{self.field}={text}"


@register
class SegmentDrift(PredictiveDrift):
    """Everything the drift detector watches, in one segment of the traffic."""

    name = "segment_drift"
    kind = "feature_drift"
    inputs = frozenset({"features", "reference", "segments"})
    lacking = "no segment has enough rows in the reference, or its field is no category"
    share = SHARE * OF_DRIFT

    def __init__(self, context: Context, params: Any, segment: Segment, of: int) -> None:
        """Watch one `segment` of `of`."""
        self.segment = segment
        self.name = f"{type(self).name}:{segment}"  # type: ignore[misc]
        self.share = share_of_segments(OF_DRIFT, of)  # type: ignore[misc]
        rows = _rows(context.reference.rows, segment)
        reference = context.reference
        own = replace(reference, rows=_part(reference.rows, rows, segment.field), right=_taken(reference.right, rows))
        rate = context.events_per_day * len(rows) / len(context.reference)
        super().__init__(replace(context, reference=own, events_per_day=rate, cache={}), params)

    @classmethod
    def made(cls, context: Context, params: Any) -> Iterator[SegmentDrift]:
        """One detector for each segment that has enough rows in the reference."""
        found = segments_of(context.reference, context.segments)
        for segment in found:
            yield cls(context, params, segment, len(found))

    def streams(self) -> Sequence[Stream]:
        return [replace(s, name=f"{self.segment} {s.name}", segment=str(self.segment)) for s in super().streams()]

    def update(self, batch: Batch, views: Views) -> Iterator[Evidence]:
        """Evidence for the blocks of this segment that `batch` completes."""
        rows = _rows(batch, self.segment)
        if not len(rows):
            return
        part = _part(batch, rows, self.segment.field)
        for evidence in super().update(part, Views(part, self.context)):
            at = rows[evidence.row]
            yield replace(evidence, row=at, position=batch.start + at)

    def explain(self, streams: Sequence[int], block: int) -> Explanation:
        """As of the whole; each field is told with its segment."""
        told = super().explain(streams, block)
        return replace(
            told,
            measures=tuple(
                replace(m, stream=f"{self.segment} {m.stream}", field=f"{m.field} where {self.segment}")
                for m in told.measures
            ),
        )


def share_of_segments(part: float, of: int) -> float:
    """What each of `of` detectors gets, relative to those of the whole, where all have `part` of the segments'."""
    return part * SHARE / (1 - SHARE) / of


def segments_of(reference: Reference, fields: Sequence[str]) -> list[Segment]:
    """The segments to watch, those of each field with most rows first."""
    found = []
    for name in dict.fromkeys(fields):
        codes, words = _codes(reference.rows, name)
        count = np.bincount(codes[codes >= 0], minlength=len(words))
        order = np.argsort(-count, kind="stable")[:MOST]
        found += [Segment(name, words[i]) for i in order.tolist() if count[i] >= LEAST_ROWS]
    return found


def _codes(batch: Batch, name: str) -> tuple[I32, tuple[str, ...]]:
    """Code of the field in each row (below 0: no value) and what the codes mean. Numbers are no segments."""
    if name in batch.category.names:
        j = batch.category.names.index(name)
        return batch.category.codes[:, j], batch.category.vocabulary[j]
    if name == OWN and batch.segment is not None:
        return batch.segment, batch.segments
    return np.full(len(batch), -1, np.int32), ()


def _rows(batch: Batch, segment: Segment) -> I64:
    """Rows of the segment, ascending."""
    codes, words = _codes(batch, segment.field)
    if segment.value not in words:
        return np.zeros(0, np.int64)
    return np.flatnonzero(codes == words.index(segment.value))


def _part(batch: Batch, rows: I64, without: str) -> Batch:
    """These rows, without the field that is the same in all of them."""
    category = batch.category
    kept = [j for j, name in enumerate(category.names) if name != without]
    identity = batch.identity
    return replace(
        batch,
        time=batch.time[rows],
        identity=Identity(
            identity.topics, identity.topic[rows], identity.partition[rows], identity.offset[rows], identity.row[rows]
        ),
        client=batch.client[rows],
        version=batch.version[rows],
        numeric=_numeric(batch.numeric, rows),
        category=Category(
            tuple(category.names[j] for j in kept),
            category.codes[np.ix_(rows, np.array(kept, np.int64))],
            tuple(category.vocabulary[j] for j in kept),
        ),
        outputs_numeric=_numeric(batch.outputs_numeric, rows),
        outputs_category=replace(batch.outputs_category, codes=batch.outputs_category.codes[rows]),
        event_ids=tuple(batch.event_ids[i] for i in rows.tolist()),
        new_fields=(),
        margin=_taken(batch.margin, rows),
        segment=_taken(batch.segment, rows),
    )


def _numeric(table: Numeric, rows: I64) -> Numeric:
    return Numeric(table.names, table.values[rows], table.status[rows])


def _taken(column: npt.NDArray[Any] | None, rows: I64) -> Any:
    return None if column is None else column[rows]


__all__ = ["OWN", "Params", "Segment", "SegmentDrift", "segments_of", "share_of_segments"]
