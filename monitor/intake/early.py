"""Labels that came before their prediction: a small ring of columns, the oldest gives way to the newest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from detectors.base import F64, I64, Bool, Page
from monitor.intake.pending import U64, Columns

CAPACITY = 16_384
WAIT_SECONDS = 3_600.0
"""A label waits this long for its prediction, by the time of predictions."""
_PAGE = 512
_DTYPES: dict[str, Any] = {
    "key": np.uint64,
    "time": np.float64,
    "answer": np.float64,
    "kind": np.uint8,
    "weight": np.float64,
    "clock": np.float64,
}


def too_long(since: F64, now: F64 | float) -> Bool:
    """Whether labels that came at `since` have waited too long, both by the time of predictions."""
    waited: Bool = since < now - WAIT_SECONDS
    return waited


class EarlyLabels:
    """At most CAPACITY labels in order of arrival. `lost` counts those that gave way or waited too long."""

    def __init__(self) -> None:
        self.lost = 0
        self._next = 0
        """Running number of the next label; label `i` lies in row `i % CAPACITY`."""
        self._first = 0
        self._columns: Columns = {name: np.zeros(CAPACITY, t) for name, t in _DTYPES.items()}
        self._dirty: set[int] = set()

    def __len__(self) -> int:
        return int((self._columns["key"] != 0).sum()) if self._next > self._first else 0

    def add(self, columns: Columns) -> None:
        """Take labels, oldest first."""
        n = len(columns["key"])
        self.lost += max(0, n - CAPACITY)
        columns = {name: column[-CAPACITY:] for name, column in columns.items()}
        at = np.arange(self._next, self._next + len(columns["key"])) % CAPACITY
        self.lost += int((self._columns["key"][at] != 0).sum())
        for name, column in columns.items():
            self._columns[name][at] = column
        self._next += len(at)
        self._first = max(self._first, self._next - CAPACITY)
        self._touch(at)

    def take(self, keys: U64) -> Columns:
        """Remove and return the labels of these keys, oldest first."""
        at = self._order()
        at = at[np.isin(self._columns["key"][at], keys)] if len(at) else at
        taken = {name: column[at] for name, column in self._columns.items()}
        self._remove(at)
        return taken

    def begin(self, clock: float) -> None:
        """The first prediction came: labels that came before it wait from now on."""
        at = self._order()
        at = at[self._columns["clock"][at] == 0]
        self._columns["clock"][at] = clock
        self._touch(at)

    def expire(self, clock: float) -> None:
        """Give up labels that have waited too long."""
        at = self._order()
        old = at[too_long(self._columns["clock"][at], clock)]
        self.lost += len(old)
        self._remove(old)

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call. The caller stores `head` with them."""
        pages = {f"early{i}": self._page(i) for i in sorted(self._dirty)}
        self._dirty.clear()
        return pages

    def head(self) -> I64:
        """What the pages are to be read by."""
        return np.array([self._first, self._next, self.lost], np.int64)

    def restore(self, head: I64, pages: Mapping[str, Page]) -> None:
        """Take pages that `dirty` gave. A page that is missing costs its labels."""
        self.__init__()  # type: ignore[misc]
        self._first, self._next, self.lost = head.tolist()
        for i in range(CAPACITY // _PAGE):
            page = pages.get(f"early{i}")
            if page is not None:
                for name, dtype in _DTYPES.items():
                    values = page[name].view(np.uint64) if name == "key" else page[name].astype(dtype)
                    self._columns[name][i * _PAGE : (i + 1) * _PAGE] = values

    def _order(self) -> I64:
        """Rows that hold a label, oldest first."""
        if self._first == self._next:
            return np.zeros(0, np.int64)
        at = np.arange(self._first, self._next) % CAPACITY
        live: Bool = self._columns["key"][at] != 0
        return at[live]

    def _remove(self, at: I64) -> None:
        if not len(at):
            return
        self._columns["key"][at] = 0
        self._touch(at)
        left = np.arange(self._first, self._next)
        alive = self._columns["key"][left % CAPACITY] != 0
        self._first = int(left[np.argmax(alive)]) if alive.any() else self._next

    def _touch(self, at: I64) -> None:
        self._dirty.update(np.unique(at // _PAGE).tolist())

    def _page(self, i: int) -> Page:
        page: Page = {name: column[i * _PAGE : (i + 1) * _PAGE].copy() for name, column in self._columns.items()}
        page["key"] = page["key"].view(np.int64)
        return page
