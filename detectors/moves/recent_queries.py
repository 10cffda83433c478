"""The model's last distinct queries, of all clients: from them the trail of a client under watch is begun."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from detectors.base import I64, Page, StateError
from detectors.moves.asked import Asked

HELD = 4_096
_PAGE = 64


class RecentQueries:
    """A ring of queries with `columns` cells each; `taken` counts all that ever went in."""

    def __init__(self, columns: int) -> None:
        self.taken = 0
        self._columns = columns
        self._rows = Asked.zeros(HELD, columns)
        self._dirty: set[int] = set()

    @property
    def bytes(self) -> int:
        """What they take in memory, full or not."""
        return sum(getattr(self._rows, f.name).nbytes for f in fields(Asked))

    def take(self, asked: Asked) -> None:
        """Take in queries; of more than 4,096 the oldest go."""
        kept = asked.rows(slice(max(0, len(asked) - HELD), None))
        at = (self.taken + len(asked) - len(kept) + np.arange(len(kept))) % HELD
        for f in fields(Asked):
            getattr(self._rows, f.name)[at] = getattr(kept, f.name)
        self.taken += len(asked)
        self._dirty.update((at // _PAGE).tolist())

    def of(self, owner: int, since: int, most: int) -> Asked:
        """The last `most` queries of one client, oldest first, of those taken as number `since` or later."""
        order = self._order(since)
        mine = order[self._rows.owner[order] == owner]
        return self._rows.rows(mine[max(0, len(mine) - most) :])

    def all(self) -> Asked:
        """Every query held, oldest first."""
        return self._rows.rows(self._order(0))

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        pages: dict[str, Page] = {}
        for k in sorted(self._dirty):
            part = self._rows.rows(slice(k * _PAGE, (k + 1) * _PAGE))
            pages[f"asked{k}"] = {f.name: getattr(part, f.name).copy() for f in fields(Asked)}
        if pages:
            pages["asked"] = {"taken": np.array([self.taken, self._columns], np.int64)}
        self._dirty.clear()
        return pages

    def restore(self, pages: dict[str, Page]) -> None:
        """Take what `dirty` gave of an equal ring. StateError when it is of other columns."""
        if "asked" not in pages:
            return
        taken, columns = pages["asked"]["taken"].tolist()
        if columns != self._columns:
            raise StateError(f"stored queries have {columns} columns, not {self._columns}")
        for k in range(-(-min(taken, HELD) // _PAGE)):
            at = slice(k * _PAGE, (k + 1) * _PAGE)
            for f in fields(Asked):
                mine, stored = getattr(self._rows, f.name), pages[f"asked{k}"][f.name]
                if stored.shape != mine[at].shape:
                    raise StateError(f"a page of stored queries has {f.name} of shape {stored.shape}")
                mine[at] = stored
        self.taken = taken

    def _order(self, since: int) -> I64:
        """Rows in the order they were taken."""
        order: I64 = np.arange(max(since, self.taken - HELD, 0), self.taken) % HELD
        return order
