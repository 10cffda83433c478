"""Predictions that wait for their labels: columns in segments, found by a hash of their id.

Rows are appended to segments of 512 and leave from the front, so a commit writes the newest segment and the marks of
those that got labels. When the store is full the sample is halved: the oldest segments are thinned, what stays is
appended again, and of new predictions only those in the sample are taken. A key is in the sample of rate 2^-k when its
k highest bits are zero, so every sample is part of the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import F64, I64, U8, Bool, Page

U16 = npt.NDArray[np.uint16]
U64 = npt.NDArray[np.uint64]
Columns = dict[str, npt.NDArray[Any]]

SEGMENT = 512
_GROUP = 8
"""Segments whose marks share a page."""
ROW_BYTES = 54
"""Memory of one row: 38 in columns, 10 to 20 in the hash table."""
DTYPES: dict[str, Any] = {
    "key": np.uint64,
    "time": np.float64,
    "answer": np.float64,
    "score": np.float32,
    "weight": np.float32,
    "version": np.int16,
    "kind": np.uint8,
    "segments": np.uint16,
}
"""Columns of a row. `key` 0 is no row."""
MAX_RATE = 32
_FEWEST_SEGMENTS = 4
_EMPTY = np.int32(-1)


class Pending:
    """At most `max_rows` predictions. Keys are 64-bit hashes, never 0; a key is in at most once.

    A row has a `mark`: 0 while it has no label. `rate` k says that new predictions are sampled with 2^-k.
    """

    def __init__(self, max_rows: int) -> None:
        self.limit = max(_FEWEST_SEGMENTS, max_rows // SEGMENT)
        """Segments at most."""
        self.ring = _ring(self.limit)
        """Names of pages repeat after this many segments."""
        self.rate = 0
        self.rows = 0
        self.expired = 0
        """Rows that left without a label since the start."""
        self._begin()

    def _begin(self) -> None:
        self._first = self._next = 0
        """Serial numbers of the oldest segment, and of the one after the newest."""
        self._slots = _FEWEST_SEGMENTS
        self._columns: Columns = {name: np.zeros(self._slots * SEGMENT, t) for name, t in DTYPES.items()}
        self._marks: U8 = np.zeros(self._slots * SEGMENT, np.uint8)
        self._of_segment = np.zeros((3, self._slots), np.int64)
        """Rows ever appended, rate, rows with a label, by slot."""
        self._newest: F64 = np.zeros(self._slots)
        self._table: npt.NDArray[np.int32] = np.full(4 * self._slots * SEGMENT, _EMPTY, np.int32)
        self._used = 0
        self._dirty: set[int] = set()
        self._dirty_marks: set[int] = set()

    # --- rows --------------------------------------------------------------------------------------------------------

    def in_sample(self, keys: U64) -> Bool:
        """Which keys the present sample takes."""
        return _in_sample(keys, self.rate)

    def find(self, keys: U64) -> I64:
        """Position of each key, -1 where there is none. Positions hold until the next `append`."""
        found: I64 = np.full(len(keys), -1, np.int64)
        mask = np.uint64(len(self._table) - 1)
        slot = keys & mask
        left = np.arange(len(keys))
        stored = self._columns["key"]
        while len(left):
            at = self._table[slot].astype(np.int64)
            taken = at >= 0
            hit = taken & (stored[at] == keys[left])
            found[left[hit]] = at[hit]
            on = taken & ~hit
            left, slot = left[on], (slot[on] + np.uint64(1)) & mask
        return found

    def append(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take rows whose keys are new; those outside the sample are passed over, also if it is halved meanwhile."""
        done, rows = 0, len(columns["key"])
        while done < rows:
            part = {name: column[done : done + SEGMENT] for name, column in columns.items()}
            done += SEGMENT
            self._make_room(len(part["key"]))
            keep = self.in_sample(part["key"])
            self._put({name: column[keep] for name, column in part.items()}, np.zeros(int(keep.sum()), np.uint8))

    def column(self, name: str, at: I64) -> npt.NDArray[Any]:
        """One column at positions."""
        values: npt.NDArray[Any] = self._columns[name][at]
        return values

    def marks(self, at: I64) -> U8:
        """Marks at positions."""
        return self._marks[at]

    def weights(self, at: I64) -> F64:
        """1 / the rate at which each position was sampled."""
        weights: F64 = np.ldexp(1.0, self._of_segment[1][at // SEGMENT])
        return weights

    def mark(self, at: I64, marks: U8) -> None:
        """Mark positions, each named once."""
        new = self._marks[at] == 0
        self._marks[at] = marks
        np.add.at(self._of_segment[2], at[new] // SEGMENT, 1)
        for slot in np.unique(at // SEGMENT).tolist():
            self._dirty_marks.add(self._serial(slot) // _GROUP)

    def expire(self, before: float) -> None:
        """Drop segments whose every row is older; take more of new predictions again when there is much room."""
        while self._first < self._next and self._newest[self._first % self._slots] < before:
            slot = self._first % self._slots
            live = self._columns["key"][_rows(slot)] != 0
            self.expired += int((live & (self._marks[_rows(slot)] == 0)).sum())
            self._drop_first()
        if self.rate and self.rows < self.limit * SEGMENT // 4:
            self.rate -= 1

    def coverage(self, before: float) -> tuple[int, int]:
        """Rows in segments that are wholly older, and how many of them have a label."""
        slots = np.arange(self._first, self._next) % self._slots
        old = slots[self._newest[slots] < before]
        return int(self._of_segment[0][old].sum()), int(self._of_segment[2][old].sum())

    # --- room --------------------------------------------------------------------------------------------------------

    def _make_room(self, rows: int) -> None:
        """So that two segments may be begun: one for what is left of the old rows, one for the new."""
        while self._next - self._first > self.limit - 2:
            rate = int(self._of_segment[1][self._first % self._slots])
            if rate >= MAX_RATE:  # ids made so that all fall into the sample
                self._drop_first()
                continue
            if rate >= self.rate:
                self.rate = rate + int(rate == self.rate)
            slot = self._first % self._slots
            keys = self._columns["key"][_rows(slot)]
            keep = (keys != 0) & self.in_sample(keys)
            rest = {name: column[_rows(slot)][keep] for name, column in self._columns.items()}
            marks = self._marks[_rows(slot)][keep]
            self._drop_first()
            self._put(rest, marks)

    def _drop_first(self) -> None:
        slot = self._first % self._slots
        keys = self._columns["key"][_rows(slot)]
        self.rows -= int((keys != 0).sum())
        keys[:] = 0
        self._dirty.discard(self._first)
        self._first += 1

    def _put(self, columns: Columns, marks: U8) -> None:
        """Append rows to the newest segment and, when it is full, to a new one."""
        done, rows = 0, len(marks)
        while done < rows:
            slot, filled = self._open_segment()
            n = min(rows - done, SEGMENT - filled)
            at = np.arange(slot * SEGMENT + filled, slot * SEGMENT + filled + n)
            for name, column in columns.items():
                self._columns[name][at] = column[done : done + n]
            self._marks[at] = 0
            self._of_segment[0, slot] += n
            self._newest[slot] = max(self._newest[slot], columns["time"][done : done + n].max())
            self._dirty.add(self._next - 1)
            self.rows += n
            self._index(at)
            marked = marks[done : done + n] != 0
            self.mark(at[marked], marks[done : done + n][marked])
            done += n

    def _open_segment(self) -> tuple[int, int]:
        """Slot of the newest segment and its rows; begins another when it is full or of another rate."""
        if self._next > self._first:
            slot = (self._next - 1) % self._slots
            filled, rate, _ = self._of_segment[:, slot].tolist()
            if filled < SEGMENT and rate == self.rate:
                return slot, filled
        if self._next - self._first == self._slots:
            self._resize(2 * self._slots)
        slot = self._next % self._slots
        self._next += 1
        self._clear(slot)
        self._of_segment[:, slot] = 0, self.rate, 0
        self._dirty_marks.add((self._next - 1) // _GROUP)  # a page of that name may be stored from long ago
        return slot, 0

    def _clear(self, slot: int) -> None:
        self._columns["key"][_rows(slot)] = 0
        self._marks[_rows(slot)] = 0
        self._newest[slot] = -np.inf

    def _serial(self, slot: int) -> int:
        return self._first + (slot - self._first) % self._slots

    # --- hash table --------------------------------------------------------------------------------------------------

    def _index(self, at: I64) -> None:
        """Enter positions. Entries of rows that are gone stay: their key is 0 or another one, so they are passed."""
        if 2 * (self._used + len(at)) > len(self._table):
            self._rebuild()
            return
        self._used += len(at)
        mask = np.uint64(len(self._table) - 1)
        slot = self._columns["key"][at] & mask
        left = at.astype(np.int32)
        while len(left):
            free = self._table[slot] == _EMPTY
            self._table[slot[free]] = left[free]
            lost = self._table[slot] != left
            left, slot = left[lost], (slot[lost] + np.uint64(1)) & mask

    def _rebuild(self) -> None:
        live = np.flatnonzero(self._columns["key"])
        size = 1 << (5 * max(len(live), SEGMENT) // 2).bit_length()
        self._table = np.full(size, _EMPTY, np.int32)
        self._used = 0
        for begin in range(0, len(live), 65_536):
            self._index(live[begin : begin + 65_536])

    def _resize(self, slots: int) -> None:
        """More slots: every segment moves to the slot of its serial number."""
        serials = np.arange(self._first, self._next)
        old = (serials[:, None] % self._slots * SEGMENT + np.arange(SEGMENT)).ravel()
        new = (serials[:, None] % slots * SEGMENT + np.arange(SEGMENT)).ravel()
        for name in DTYPES:
            self._columns[name] = _moved(self._columns[name], old, new, slots * SEGMENT)
        self._marks = _moved(self._marks, old, new, slots * SEGMENT)
        by_slot = np.zeros((3, slots), np.int64)
        by_slot[:, serials % slots] = self._of_segment[:, serials % self._slots]
        newest = np.full(slots, -np.inf)
        newest[serials % slots] = self._newest[serials % self._slots]
        self._of_segment, self._newest, self._slots = by_slot, newest, slots
        self._rebuild()

    # --- pages -------------------------------------------------------------------------------------------------------

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call. The caller stores `head` with them."""
        pages = {f"seg{serial % self.ring}": self._segment_page(serial) for serial in sorted(self._dirty)}
        groups = self.ring // _GROUP
        for group in sorted(self._dirty_marks):
            if (group + 1) * _GROUP > self._first:
                pages[f"marks{group % groups}"] = self._marks_page(group)
        self._dirty.clear()
        self._dirty_marks.clear()
        return pages

    def head(self) -> I64:
        """What the pages are to be read by."""
        return np.array([self._first, self._next, self.rate, self.ring, self.expired], np.int64)

    def restore(self, head: I64, pages: Mapping[str, Page]) -> None:
        """Take pages of an equal store, or of one with another limit. A page that is missing costs its rows."""
        first, last, self.rate, ring, self.expired = head.tolist()
        self._begin()
        self._first = self._next = first
        slots = max(_FEWEST_SEGMENTS, 1 << max(last - first - 1, 0).bit_length())
        if slots != self._slots:
            self._resize(slots)
        self.rows = 0
        for serial in range(first, last):
            slot = serial % slots
            self._clear(slot)
            self._of_segment[:, slot] = 0
            self._next = serial + 1
            page = pages.get(f"seg{serial % ring}")
            if page is not None and int(page["segment"][0]) == serial:
                self._load(slot, page, pages.get(f"marks{serial // _GROUP % (ring // _GROUP)}"), serial)
        self.ring = max(ring, self.ring)
        self._rebuild()
        self._dirty = set(range(first, last)) if self.ring != ring else set()
        self._dirty_marks = {serial // _GROUP for serial in self._dirty}

    def _load(self, slot: int, page: Page, marks: Page | None, serial: int) -> None:
        n = len(page["key"])
        at = np.arange(slot * SEGMENT, slot * SEGMENT + n)
        for name, dtype in DTYPES.items():
            stored = page.get(name, np.zeros(n, np.int64))  # older pages have no segments
            self._columns[name][at] = stored.view(np.uint64) if name == "key" else stored.astype(dtype)
        if marks is not None and int(marks["group"][0]) == serial // _GROUP:
            begin = serial % _GROUP * SEGMENT
            self._marks[at] = _unpacked(marks["marks"])[begin : begin + n]
        self._of_segment[:, slot] = n, int(page["segment"][1]), int((self._marks[at] != 0).sum())
        self._newest[slot] = self._columns["time"][at].max(initial=-np.inf)
        self.rows += n

    def _segment_page(self, serial: int) -> Page:
        slot = serial % self._slots
        filled, rate, _ = self._of_segment[:, slot].tolist()
        rows = slice(slot * SEGMENT, slot * SEGMENT + filled)
        page: Page = {name: column[rows].copy() for name, column in self._columns.items()}
        page["key"] = page["key"].view(np.int64)
        page["segment"] = np.array([serial, rate], np.int64)
        return page

    def _marks_page(self, group: int) -> Page:
        marks = np.zeros(_GROUP * SEGMENT, np.uint8)
        for i in range(_GROUP):
            serial = group * _GROUP + i
            if self._first <= serial < self._next:
                marks[i * SEGMENT : (i + 1) * SEGMENT] = self._marks[_rows(serial % self._slots)]
        return {"group": np.array([group], np.int64), "marks": _packed(marks)}


def _ring(limit: int) -> int:
    """Page names for `limit` segments that begin anywhere in a group of marks."""
    return (limit // _GROUP + 2) * _GROUP


def _rows(slot: int) -> slice:
    return slice(slot * SEGMENT, (slot + 1) * SEGMENT)


def _in_sample(keys: U64, rate: int) -> Bool:
    if rate == 0:
        return np.ones(len(keys), np.bool_)
    sampled: Bool = keys >> np.uint64(64 - rate) == 0
    return sampled


def _moved(column: npt.NDArray[Any], old: I64, new: I64, size: int) -> npt.NDArray[Any]:
    made = np.zeros(size, column.dtype)
    made[new] = column[old]
    return made


def _packed(marks: U8) -> U8:
    """Marks of two bits, four a byte."""
    four = marks.reshape(-1, 4)
    return (four[:, 0] | four[:, 1] << 2 | four[:, 2] << 4 | four[:, 3] << 6).astype(np.uint8)


def _unpacked(packed: U8) -> U8:
    return np.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], axis=1).ravel().astype(np.uint8)
