"""Events to blocks of 25, whatever the batches: rows that do not fill a block wait for the next batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detectors.base import F64, I64, U8, Batch, Page
from detectors.drift.calendar import Calendar
from detectors.drift.scores import BLOCK
from detectors.drift.target import Target
from detectors.numeric import valid
from detectors.views.bins import FILLED, I16


@dataclass(frozen=True, slots=True)
class Blocks:
    """Consecutive full blocks, one row each.

    `sums`, `squares` (blocks, G) and `counts` (blocks, P) as in `Target.block_sums`; `level`, `spread` (blocks, G) are
    sums and squares less the season that the reference shows; `raw_n`, `raw_sum`,
    `raw_square` (blocks, numeric columns) are valid cells, their deviations from the reference's mean and the
    squares of these; `opened`, `closed` the times of first and last event; `elapsed` the watermark time between the
    closings of the two blocks before; `row` the row of the batch that closed the block; `bins` (blocks, 25, columns).
    """

    sums: F64
    squares: F64
    counts: F64
    level: F64
    spread: F64
    raw_n: U8
    raw_sum: F64
    raw_square: F64
    opened: F64
    closed: F64
    elapsed: F64
    row: I64
    bins: U8

    def __len__(self) -> int:
        return len(self.row)

    def part(self, first: int, last: int) -> Blocks:
        """Blocks `first` to `last` (exclusive)."""
        return Blocks(
            self.sums[first:last], self.squares[first:last], self.counts[first:last],
            self.level[first:last], self.spread[first:last],
            self.raw_n[first:last], self.raw_sum[first:last], self.raw_square[first:last],
            self.opened[first:last], self.closed[first:last], self.elapsed[first:last], self.row[first:last],
            self.bins[first:last],
        )  # fmt: skip


@dataclass(slots=True)
class Totals:
    """What some blocks sum up to: sums and squares (G,), counts (P,)."""

    blocks: int
    sums: F64
    squares: F64
    counts: F64

    def add(self, other: Totals) -> None:
        """Take what other blocks sum up to."""
        self.blocks += other.blocks
        self.sums += other.sums
        self.squares += other.squares
        self.counts += other.counts


def no_totals(target: Target) -> Totals:
    """Of no block."""
    return Totals(0, np.zeros(target.sums), np.zeros(target.sums), np.zeros(target.counts))


class BlockCutter:
    """Cuts batches into blocks. Its state is the rows that wait and the watermarks at the last two closings."""

    def __init__(self, target: Target, calendar: Calendar | None = None) -> None:
        self._target = target
        self._calendar = calendar
        columns, numeric = len(target.binning.numeric) + len(target.binning.category), len(target.binning.numeric)
        self._bins: I16 = np.zeros((0, columns), np.int16)
        self._raw: F64 = np.zeros((0, numeric))
        self._valid: U8 = np.zeros((0, numeric), np.uint8)
        self._time: F64 = np.zeros(0)
        self._marks: F64 = np.full(3, np.nan)
        """Watermark at the closing of the block before the last, of the last, and now."""

    def cut(self, batch: Batch, bins: I16) -> Blocks:
        """All blocks that `batch` (not empty) completes."""
        waiting = len(self._time)
        raw, ok = self._raw_values(batch)
        bins = np.concatenate([self._bins, bins])
        raw, ok = np.concatenate([self._raw, raw]), np.concatenate([self._valid, ok])
        time = np.concatenate([self._time, batch.time])
        used = len(time) // BLOCK * BLOCK
        self._bins, self._raw = bins[used:].copy(), raw[used:].copy()
        self._valid, self._time = ok[used:].copy(), time[used:].copy()
        closed = np.arange(BLOCK - 1, used, BLOCK)
        elapsed = budget_time(self._marks, batch.time, closed - waiting)
        sums, squares, counts = self._target.block_sums(bins[:used])
        level, spread = (sums, squares)
        if self._calendar is not None:
            level, spread = self._calendar.without(time[:used], sums, squares)
        raw_n, raw_sum, raw_square = _raw_sums(raw[:used], ok[:used])
        return Blocks(
            sums, squares, counts, level, spread, raw_n, raw_sum, raw_square,
            time[closed - (BLOCK - 1)], time[closed], elapsed, closed - waiting,
            _filled_or_not(bins[:used]).reshape(-1, BLOCK, bins.shape[1]),
        )  # fmt: skip

    def page(self) -> Page:
        """All state as arrays."""
        return {
            "wait_bins": self._bins.copy(),
            "wait_raw": self._raw.copy(),
            "wait_valid": self._valid.copy(),
            "wait_time": self._time.copy(),
            "marks": self._marks.copy(),
        }

    def load(self, page: Page) -> None:
        """Take the arrays of `page`, of the right shapes."""
        self._bins, self._raw = page["wait_bins"].astype(np.int16), page["wait_raw"].astype(np.float64)
        self._valid, self._time = page["wait_valid"].astype(np.uint8), page["wait_time"].astype(np.float64)
        self._marks = page["marks"].astype(np.float64)

    def _raw_values(self, batch: Batch) -> tuple[F64, U8]:
        """Clipped values less the reference's mean; 0.0 where there is none."""
        values = np.hstack([batch.numeric.values, batch.outputs_numeric.values])
        ok = valid(values, np.hstack([batch.numeric.status, batch.outputs_numeric.status]))
        limit, mean = self._target.limit, self._target.raw_mean
        raw = np.where(ok, values, mean)  # the mean lies within the limit
        np.minimum(raw, limit, out=raw)
        np.maximum(raw, -limit, out=raw)
        raw -= mean
        return raw, ok.view(np.uint8)


def budget_time(marks: F64, time: F64, row: I64) -> F64:
    """(blocks,) the watermark's step between the closings of the two blocks before each, known before it begins. `row`
    (blocks,) are the rows, of event times `time` (n,), that close a block; `marks` (3,) is the watermark at the closing
    of the block before the last, of the last, and now: NaN at the start, brought up to date here."""
    if np.isnan(marks[0]):
        marks[:] = time[0]
    now = np.maximum.accumulate(np.maximum(time, marks[2]))
    at = np.concatenate([marks[:2], now[row]])
    marks[:] = *at[-2:], now[-1]
    return np.diff(at)[: len(row)]


def _filled_or_not(bins: I16) -> U8:
    """Bins of all cells, stand-ins like others."""
    return (bins % FILLED if (bins >= FILLED).any() else bins).astype(np.uint8)


def _raw_sums(raw: F64, ok: U8) -> tuple[U8, F64, F64]:
    """Adds event by event within each block, so that rounding is the same for any number of blocks at a time."""
    shape = (len(raw) // BLOCK, BLOCK, raw.shape[1])
    cells = raw.reshape(shape)
    counts: U8 = np.add.reduce(ok.reshape(shape), axis=1, dtype=np.uint8)
    return counts, np.add.reduce(cells, axis=1), np.add.reduce(cells * cells, axis=1)
