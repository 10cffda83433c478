"""Which events of a model are judged while they come too fast: a uniform sample, by where they were logged.

Whoever sends an event does not choose its offset, and the same trail gives the same sample. The events of a coarser
sample are among those of a finer one.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detectors.base import I64, Batch, Bool, Finding, Identity
from detectors.views.query_hash import mixed

_STEP = np.uint64(0x9E3779B97F4A7C15)
"""Of SplitMix64 (Steele et al. 2014): without it zero would stay zero."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of a batch, ascending: a uniform sample of one in `one_in`."""

    rows: I64
    one_in: int


class Sampling:
    """The rate in force for one model, and how many events it has cost."""

    def __init__(self) -> None:
        self.one_in = 1
        """A power of two; 1: every event is judged."""
        self.unjudged = 0

    def of(self, batch: Batch) -> Sample | None:
        """The sample of a batch that is to be judged; None: all of it."""
        if self.one_in == 1:
            return None
        rows = np.flatnonzero(is_in_sample(batch.identity, self.one_in))
        self.unjudged += len(batch) - len(rows)
        return Sample(rows, self.one_in)

    def page(self) -> I64:
        """What is stored."""
        return np.array([self.one_in, self.unjudged], np.int64)

    def restore(self, page: Any) -> None:
        """Take what `page` gave; None: nothing was stored."""
        self.one_in, self.unjudged = (1, 0) if page is None else page.tolist()


def is_in_sample(identity: Identity, one_in: int) -> Bool:
    """(n,) whether each event is in a sample of one in `one_in`, a power of two."""
    topics = np.array([zlib.crc32(name.encode()) for name in identity.topics], np.uint64)
    place = mixed((topics[identity.topic] if len(topics) else np.zeros(len(identity.offset), np.uint64)) + _STEP)
    for part in (identity.partition, identity.offset, identity.row):
        place = mixed((place ^ part.astype(np.uint64)) + _STEP)
    kept: Bool = place & np.uint64(one_in - 1) == 0
    return kept


def in_whole(finding: Finding, rows: I64, start: int) -> Finding:
    """What was found in the sample `rows` of a batch that begins at `start`, with row and position as in the batch."""
    at = finding.position - start
    position = start + int(rows[at]) if 0 <= at < len(rows) else finding.position
    return replace(finding, row=int(rows[finding.row]) if finding.row >= 0 else -1, position=position)
