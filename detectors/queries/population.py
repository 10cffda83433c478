"""Whether all clients have become unusual at once: then the traffic has drifted, and no single client is to blame.

Of every client of the calibration the level of its latest p-value is kept. Where far more of them than chance allows
are at a level, a client's own p-value is not believed to be smaller than the share of the others there. Accounts that
are not of the calibration do not count: a hundred new ones that act alike must not excuse each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from detectors.base import F64, I32, I64, U8, Bool, Page, StateError

LEVELS: Final = np.array([0.3, 0.1, 0.03, 0.01, 0.003])
_RISING: Final = LEVELS[::-1].copy()


class Population:
    """Latest levels of the calibrated clients. Level k: the p-value is at most `LEVELS[k - 1]`, and no smaller one."""

    def __init__(self, clients: Sequence[str] = ()) -> None:
        self._index = {name: i for i, name in enumerate(clients)}
        self._level: U8 = np.zeros(len(self._index), np.uint8)
        self._known: U8 = np.zeros(len(self._index), np.uint8)
        self._changed = bool(clients)

    def excused(self, client: I32, clients: Sequence[str], p: F64, drifted: bool) -> F64:
        """(n,) p-values, larger where the others are as unusual; `client` and `p` (n,) in the order of the events.

        `drifted`: the model's data is known to have moved, so less is taken as chance. (To ask nothing of chance was
        tried: floods of attackers move the data too, and 2 of 47 campaigns then escaped.)
        """
        if not self._index:
            return p
        table = np.array([self._index.get(name, -1) for name in clients], np.int64)
        index: I64 = np.where(client >= 0, table[client], -1)
        level = len(LEVELS) - np.searchsorted(_RISING, p)
        member = np.flatnonzero(index >= 0)
        before, known = self._before(index, level, member)
        at = np.arange(len(LEVELS))[:, None]
        reached = (before > at) & (known > 0)
        change, new = np.zeros((len(LEVELS), len(p)), np.int32), np.zeros(len(p), np.int32)
        change[:, member] = (level[member] > at).astype(np.int32) - reached[:, member]
        new[member] = 1 - known[member]
        held = (self._level > at).sum(axis=1)[:, None]
        count = held + np.cumsum(change, axis=1) - change - reached
        others = int(self._known.sum()) + np.cumsum(new) - new - known
        self._level[index[member]] = level[member]
        self._known[index[member]] = 1
        self._changed |= bool(len(member))
        return np.maximum(p, _share(count, others, level > at, drifted))

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        if not self._changed:
            return {}
        self._changed = False
        return {"population": {"level": self._level.copy(), "known": self._known.copy()}}

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the levels of a population of the same clients."""
        page = pages.get("population")
        if page is None or page["level"].shape != self._level.shape or page["known"].shape != self._known.shape:
            raise StateError(f"stored levels of clients are not those of {len(self._level)} clients")
        self._level, self._known = page["level"].astype(np.uint8), page["known"].astype(np.uint8)
        self._changed = False

    def _before(self, index: I64, level: I64, member: I64) -> tuple[I64, I64]:
        """Level of the same client before each event, and whether it had one; zeros for clients not watched."""
        before, known = np.zeros(len(index), np.int64), np.zeros(len(index), np.int64)
        order = member[np.argsort(index[member], kind="stable")]
        if not len(order):
            return before, known
        first = np.concatenate([[True], index[order][1:] != index[order][:-1]])
        before[order] = np.concatenate([[0], level[order][:-1]])
        known[order] = 1
        before[order[first]] = self._level[index[order[first]]]
        known[order[first]] = self._known[index[order[first]]]
        return before, known


def _share(count: I64, others: I64, now: Bool, drifted: bool) -> F64:
    """(n,) the largest share of others at a level this event has reached, where that is more than chance allows.

    `count` and `now`: (levels, n).
    """
    m, levels = np.maximum(others, 1), LEVELS[:, None]
    spread = np.sqrt(m * (levels * (1 - levels)))
    usual = m * levels + (spread if drifted else 3 * spread + 1)
    share: F64 = np.where(now & (count > usual), count / m, 0.0).max(axis=0)
    return share
