"""The blocks of one batch as bets look at them: what does not depend on the null is worked out once for all of them."""

from __future__ import annotations

import numpy as np

from detectors.base import F64
from detectors.drift.blocks import Blocks, Totals
from detectors.drift.history import History, clipped
from detectors.drift.scores import BLOCK
from detectors.drift.target import Target
from detectors.drift.target_bets import TargetBets


class Seen:
    """`x` (blocks, G + P + departures): z, to be filled in, counts, and departures from the target. `residual`
    (blocks, G + P), to be filled in, in the precision of the history, so that nothing depends on where batches end."""

    def __init__(self, blocks: Blocks, target: Target, target_bets: TargetBets) -> None:
        g, streams = target.sums, len(target.scores)
        self.blocks = blocks
        self.level: F64 = blocks.level / BLOCK
        """(blocks, G) mean scores."""
        self.x = np.empty((len(blocks), streams + len(target_bets.sums)))
        self.z = self.x[:, :g]
        self.counts = self.x[:, g:streams]
        self.counts[:] = blocks.counts
        self.x[:, streams:] = target_bets.look(blocks.level)
        self.residual = np.empty((len(blocks), streams), np.float32)
        self._kept = 0

    def add_to(self, totals: Totals, first: int, last: int) -> None:
        """Add what blocks `first` to `last` (exclusive) sum up to."""
        totals.blocks += last - first
        totals.sums += np.add.reduce(self.blocks.level[first:last])
        totals.squares += np.add.reduce(self.blocks.spread[first:last])
        totals.counts += np.add.reduce(self.counts[first:last])

    def waiting(self, upto: int) -> int:
        """Blocks before `upto` that are not in the history yet."""
        return upto - self._kept

    def last(self, blocks: int, history: History, upto: int, number: int) -> tuple[float, F64]:
        """When the `blocks` blocks before `upto` began, and the sum (streams,) of their residuals."""
        total: F64
        if upto >= blocks:
            total = np.add.reduce(clipped(self.residual[upto - blocks : upto]))
            return float(self.blocks.opened[upto - blocks]), total
        self.keep(history, upto, number)
        total = np.add.reduce(history.residuals(number - blocks, number))
        return history.times(number - blocks)[0], total

    def keep(self, history: History, upto: int, number: int) -> None:
        """Put blocks up to `upto` (exclusive), the next of which has `number`, into the history, unless they are
        there."""
        if upto > self._kept:
            part = self.blocks.part(self._kept, upto)
            history.add(number - (upto - self._kept), part, self.residual[self._kept : upto])
            self._kept = upto
