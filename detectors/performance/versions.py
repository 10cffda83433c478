"""The model versions that are watched side by side: the four seen last, each in a slot of its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from detectors.base import I64, LabelBatch

SLOTS = 4


class VersionSlots:
    """Which version has which slot. `seen` is the running number of the last label of each."""

    def __init__(self) -> None:
        self.names: list[str | None] = [None] * SLOTS
        self.seen: list[int] = [-1] * SLOTS

    def runs(self, batch: LabelBatch) -> Iterator[tuple[I64, I64, int]]:
        """(rows, slot of each, slot newly given or -1) of consecutive stretches without a new version."""
        names = [batch.versions[v] if v >= 0 else "" for v in batch.version.tolist()]
        begin, fresh = 0, -1
        while begin < len(names):
            taken = {name: slot for slot, name in enumerate(self.names) if name is not None}
            end = begin
            slots = []
            while end < len(names) and names[end] in taken:
                slots.append(taken[names[end]])
                end += 1
            for slot in set(slots):
                self.seen[slot] = batch.start + begin + max(i for i, s in enumerate(slots) if s == slot)
            if slots or fresh >= 0:
                yield np.arange(begin, end), np.array(slots, np.int64), fresh
            begin, fresh = end, -1
            if begin < len(names):
                fresh = min(range(SLOTS), key=lambda i: (self.seen[i], i))
                self.names[fresh], self.seen[fresh] = names[begin], batch.start + begin
