"""Detector `histogram_drift`: the whole histogram of every numeric column, in groups of 100 events.

`predictive_drift` watches location, scale, shape and tails. A pipeline that fills every gap with the median, a value
that gets stuck for one event in twenty, two humps where there was one: these move none of them by much, and one bin, or
a few eighths of the values, by a lot. Bets are placed on every bin and on eighths (cells.py), judged against the target
and all live traffic before, beyond the noise that whole histograms have shown (cell_noise.py). Nothing is bet before
that noise was seen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from detectors.base import (
    F64,
    I64,
    Batch,
    Bets,
    Bool,
    Context,
    Detector,
    Evidence,
    Explanation,
    Latch,
    Page,
    Stream,
    Verdict,
    Views,
    register,
)
from detectors.drift.blocks import budget_time
from detectors.drift.calendar import calendar
from detectors.drift.cell_noise import LAG, LONGEST, STRETCH, CellNoise
from detectors.drift.cell_null import CellNull
from detectors.drift.cell_past import CellPast
from detectors.drift.cells import GROUP, CellBets, CellOdds, Cells
from detectors.drift.histogram_why import Words
from detectors.drift.null import memory_of
from detectors.drift.onset import best_split
from detectors.drift.recovery import gain_of_count
from detectors.drift.scores import FAMILIES
from detectors.drift.stored import check_pages
from detectors.drift.target import target
from detectors.drift.thinned import Thinned
from detectors.views.bins import FILLED

_LATE: Final = 4
"""Groups that wait at least before the null takes them in: a rare value doubles in its own memory otherwise."""
_BEFORE: Final = 16
"""Groups between two copies of the null; after an alarm it goes back to the older one."""


@dataclass(frozen=True)
class Params:
    """Parameters of the histograms."""

    season_swing: float = 0.3
    """Daily swing in standard deviations that is not drift, where the reference does not show it. 0 declares that there
    is no season."""
    memory: float = 0.0
    """Events the null remembers; 0 takes 4,000 · √(events a day / 100,000) between 1,000 and 8,000."""
    noise_windows: int = 3
    """Stretches of 1,600 events whose noise is to be seen before anything can alarm. 0 trusts that events are
    independent."""


@dataclass(slots=True)
class _Fault:
    """A latch: its columns, the leading one, the cell that moved, its shares before and since. A `follower` belongs to
    another detector's alarm and opens with it."""

    key: str
    columns: tuple[int, ...]
    leading: int
    cell: int
    before: float
    since: float
    follower: bool


class _Groups(NamedTuple):
    """Groups of a batch: counts (groups, fine), first and last times, budget times, rows that close them, (groups,)."""

    counts: F64
    opened: F64
    closed: F64
    elapsed: F64
    row: I64


@register
class HistogramDrift(Detector):
    """Shares of all bins of every numeric column."""

    name = "histogram_drift"
    kind = "feature_drift"
    raises = ("feature_drift", "prediction_drift")
    scope = "feature"
    inputs = frozenset({"features", "reference"})
    lacking = "no numeric field has several values in the reference"
    state_version = 1
    views = ("bins",)
    stride = GROUP
    account = "drift"
    share = 0.05
    Params = Params

    def __init__(self, context: Context, params: Any) -> None:
        super().__init__(context, params)
        self._target = target(context)
        columns = self._target.binning.numeric
        share = {s.column: s.share for s in self._target.scores if s.family != "pair"}
        self._cells = Cells(columns, [share[j] for j in range(len(columns))], self._target.rows)
        self._words = Words(context, self._target, self._cells)
        self._bets = CellBets(self._cells)
        self._memory = params.memory or memory_of(context.events_per_day)
        season = calendar(context, self._target, params.season_swing)
        swing = np.full(len(self._target.scores), params.season_swing)
        self._swing = self._of_columns(swing if season is None else season.amplitude + season.swing)
        self._begin()

    @classmethod
    def made(cls, context: Context, params: Any) -> Iterator[Detector]:
        """None for a model without numeric columns that have several values."""
        if target(context).binning.numeric and len((made := cls(context, params))._bets.weight):
            yield made

    def _begin(self) -> None:
        """The state of a detector that has seen nothing."""
        columns = self._cells.columns
        self._null = CellNull(self._cells, self._target, self._memory)
        self._past = CellPast(self._cells)
        self._noise = CellNoise(self._cells)
        self._thinned = Thinned(self._memory, GROUP)
        self._wait_bins = np.zeros((0, columns), np.int16)
        self._wait_time: F64 = np.zeros(0)
        self._marks: F64 = np.full(3, np.nan)
        """Watermark at the closing of the group before the last, of the last, and now."""
        self._first = self._learnt = 0
        """The oldest group that counts for an onset, and the next to be taken into the null."""
        self._last_alarm = -1
        self._faults: list[_Fault] = []
        self._latched: Bool = np.zeros(columns, np.bool_)
        self._story: tuple[int, int] = (0, 1)
        """First group of the last alarm's change, and the earliest that it may have been."""
        self._odds: CellOdds | None = None
        self._seen: _Groups | None = None
        """The groups of the batch at hand, `_done` of which were judged; evidence was given up to `_end`."""
        self._done = self._end = 0
        self._changed = False

    def streams(self) -> Sequence[Stream]:
        """One a numeric column."""
        return tuple(
            Stream(f"{c.name}:histogram", "prediction_drift" if c.output else "feature_drift", "histogram", (c.name,))
            for c in self._target.binning.numeric
        )

    def bets(self) -> Bets:
        return Bets(self._bets.stream, self._bets.weight, self._bets.leak)

    @property
    def waits_for(self) -> int:
        left = int(self.params.noise_windows) - self._noise.windows
        held = self._noise.windows > 0
        return math.ceil(GROUP * STRETCH * (left * LONGEST + (0 if held else LAG))) if left > 0 else 0

    def update(self, batch: Batch, views: Views) -> Iterator[Evidence]:
        """Evidence for the groups that `batch` completes, at most a stretch at a time; then of recovery."""
        if not len(batch):
            return
        self._thinned.see(batch.one_in, self._past.next)
        seen = self._seen = self._cut(batch, views)
        self._done = self._end = 0
        while self._done < len(seen.row):
            if self._past.next % STRETCH == 0:
                self._thinned.allow()
            self._end = min(self._done + STRETCH - self._past.next % STRETCH, len(seen.row))
            at = slice(self._done, self._end)
            yield Evidence(
                self.name, self._judge(seen.counts[at]), seen.elapsed[at], seen.row[at], batch.start + seen.row[at]
            )
            self._settle(self._end - self._done)
            if self._past.next % STRETCH == 0:
                if any(not f.follower for f in self._faults):
                    yield self._recovery(seen.row[self._done - 1 : self._done], batch.start)
                self._close()
        self._seen = None

    def react(self, verdict: Verdict) -> None:
        """On an alarm go back to the null before it, and learn nothing of what is latched until it has recovered."""
        if verdict.detector == self.name:
            self._settle(verdict.consumed)
        if verdict.alarm is not None:
            led = verdict.alarm.detector == self.name
            for latch in verdict.latched:
                if latch.detector == self.name:
                    self._latch(latch, verdict.alarm.leading_bet if led else -1, led)
        keys = {latch.key for latch in verdict.recovered}
        if any(f.key in keys for f in self._faults):
            before = self._latched.copy()
            self._faults = [f for f in self._faults if f.key not in keys]
            self._latched[:] = False
            for fault in self._faults:
                self._latched[list(fault.columns)] = True
            self._null.begin_anew(before & ~self._latched)
            self._forget_recent()

    def explain(self, streams: Sequence[int], block: int) -> Explanation:
        """Shares of the cells that moved, before and since the onset, the strongest of each column."""
        first, earliest = self._story
        measures, effects = [], {}
        for column in streams:
            led = next((f.cell for f in self._faults if f.leading == column and not f.follower), None)
            cell = self._moved(column, first) if led is None else led
            told, effect = self._words.told(self.name, cell, self._past, first)
            measures += told
            effects[self._target.binning.numeric[column].name] = effect
        since, latest = self._past.times(first)
        interval = min(self._past.times(earliest)[0], since), max(latest, since)
        return Explanation(since, interval, tuple(measures), effects)

    # --- judging ---------------------------------------------------------------------------------------------------

    def _cut(self, batch: Batch, views: Views) -> _Groups:
        """All groups that `batch` completes."""
        bins = views.get("bins")[:, : self._cells.columns] % FILLED
        waiting = len(self._wait_time)
        bins, time = np.concatenate([self._wait_bins, bins]), np.concatenate([self._wait_time, batch.time])
        used = len(time) // GROUP * GROUP
        self._wait_bins, self._wait_time = bins[used:].copy(), time[used:].copy()
        row = np.arange(GROUP - 1, used, GROUP) - waiting
        elapsed = budget_time(self._marks, batch.time, row)
        self._changed = True
        counts = self._cells.counts(bins[:used])
        return _Groups(counts, time[:used:GROUP], time[GROUP - 1 : used : GROUP], elapsed, row)

    def _judge(self, fine: F64) -> F64:
        """Logs of e-values (groups, bets) of groups with counts (groups, fine); 0 while the noise is not known."""
        if self._noise.windows < self.params.noise_windows:
            return np.zeros((len(fine), len(self._bets.weight)))
        if self._odds is None:
            turn = 2 * math.pi * self._memory * self._thinned.allowed / self.context.events_per_day
            slips = self._swing * (turn / math.sqrt(1 + turn * turn))
            tilt = np.exp(slips[self._cells.column] * self._cells.slope)
            self._odds = self._bets.odds(self._null.k, self._null.b, self._noise.v, tilt)
        return self._bets.log_e(self._odds, self._cells.joined(fine), self._cells.numbers(fine))

    def _settle(self, consumed: int) -> None:
        """Keep the first `consumed` groups of those last judged; nothing when that was done already."""
        seen, first = self._seen, self._done
        if seen is None or first == self._end:
            return
        self._done = self._end = first + consumed
        at = slice(first, self._done)
        self._past.add(seen.counts[at], seen.opened[at], seen.closed[at])

    def _close(self) -> None:
        """Take what is old enough into the null, and what the stretch differs by into the noise, unless an incident is
        fresh."""
        self._odds = None
        now = self._past.next
        if self._faults and self._last_alarm >= 0 and (now - self._last_alarm) * GROUP < self._memory:
            self._learnt = now
            return
        if self._learnt <= now - STRETCH:
            fine = self._past.fine(now - STRETCH)
            wanted = self._cells.numbers(fine)[:, self._cells.column] * self._null.share
            apart = self._cells.joined(fine) - wanted
            self._noise.learn(now // STRETCH, apart, wanted.sum(axis=0), self._null.b / GROUP, self._latched)
        while now - self._learnt >= _LATE + STRETCH:
            self._null.absorb(*self._past.summed(self._learnt, self._learnt + STRETCH), ~self._latched)
            self._learnt += STRETCH
        self._null.forget()
        if now % _BEFORE == 0 and not self._faults:
            self._null.copy()

    # --- alarms ----------------------------------------------------------------------------------------------------

    def _latch(self, latch: Latch, bet: int, led: bool) -> None:
        columns = np.zeros(self._cells.columns, np.bool_)
        columns[list(latch.streams)] = True
        self._null.go_back(columns)
        column, now = latch.leading, self._past.next
        cell = int(self._bets.cell[bet]) if bet >= 0 else self._moved(column, max(now - _LATE, 0))
        self._story = self._onset(cell) if now else (0, 0)
        x, n = self._past.summed(self._story[0])
        before = float(self._null.share[cell])
        since = (float(x[cell]) + before / 2) / (float(n[column]) + 0.5)
        self._faults.append(_Fault(latch.key, latch.streams, column, cell, before, since, not led))
        self._latched |= columns
        if led:
            self._last_alarm = now
        self._forget_recent()

    def _onset(self, cell: int) -> tuple[int, int]:
        """The first group of the change, and the earliest that it may have been."""
        oldest, now = max(self._first, self._past.oldest), self._past.next
        fine = self._past.fine(oldest)
        if not len(fine):
            return max(now - 1, 0), max(now - 1, 0)
        x, n = self._cells.joined(fine)[:, cell], self._cells.numbers(fine)[:, self._cells.column[cell]]
        wanted = n * self._null.share[cell]
        split = best_split((x - wanted) / np.sqrt(np.maximum(wanted, 1e-3)), float(self._noise.v[cell]))
        return now - split.blocks, max(now - split.most - 1, oldest)

    def _moved(self, column: int, first: int) -> int:
        """The cell of a column that has moved most since `first`, by its likelihood ratio."""
        x, n = self._past.summed(first)
        own = np.flatnonzero((self._cells.column == column) & self._cells.on)
        if not len(own):
            own = np.flatnonzero(self._cells.column == column)
        wanted = np.maximum(n[column] * self._null.share[own], 1e-9)
        seen = np.maximum(x[own], 1e-9)
        return int(own[np.argmax((seen * np.log(seen / wanted) - seen + wanted) / self._noise.v[own])])

    def _recovery(self, row: I64, start: int) -> Evidence:
        """Evidence for the recovery of every latch over the stretch, as one block."""
        x, n = self._past.summed(self._past.next - STRETCH)
        own = [f for f in self._faults if not f.follower]
        gain = np.array([[self._gain(f, x, n) for f in own]])
        return Evidence(self.name, gain, np.zeros(1), row, start + row, "recovery", tuple(f.leading for f in own))

    def _gain(self, fault: _Fault, x: F64, n: F64) -> float:
        """Evidence that the cell's share is as before the fault, not midway to what it was since."""
        numbers = float(n[fault.leading])
        log = gain_of_count(float(x[fault.cell]), fault.since, fault.before, numbers)
        return log / float(self._noise.v[fault.cell])

    def _forget_recent(self) -> None:
        """What led to an alarm or a recovery is learnt neither as noise nor as normal."""
        self._first = self._learnt = self._past.next
        self._odds = None
        self._noise.forget_young()
        self._changed = True

    def _of_columns(self, streams: F64) -> F64:
        """(columns,) the largest of `streams` (G + P,) that are means or spreads of each numeric column."""
        made: F64 = np.zeros(self._cells.columns)
        moments = np.isin(self._target.family, [FAMILIES.index("loc"), FAMILIES.index("scale")])
        np.maximum.at(made, self._target.column[moments], streams[moments])
        return made

    # --- state -----------------------------------------------------------------------------------------------------

    def dirty(self) -> dict[str, Page]:
        pages = self._past.dirty()
        if self._changed:
            self._changed = False
            pages["state"] = self._page()
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        check_pages(self.name, pages, {"state": self._page()}, self._past.shapes())
        self._begin()
        state = pages.get("state")
        if state is not None:
            self._past.load(pages, state["numbers"][0])
            self._load(state)

    def _page(self) -> Page:
        faults = json.dumps([asdict(f) for f in self._faults]).encode()
        numbers = [self._past.next, self._first, self._learnt, self._last_alarm, *self._story]
        return {
            **self._noise.page(),
            **self._null.page(),
            "wait_bins": self._wait_bins.copy(),
            "wait_time": self._wait_time.copy(),
            "marks": self._marks.copy(),
            "thinned": self._thinned.page(),
            "numbers": np.array(numbers, np.int64),
            "faults": np.frombuffer(faults, np.uint8).copy(),
        }

    def _load(self, page: Page) -> None:
        self._noise.load(page)
        self._null.load(page)
        self._wait_bins, self._wait_time = page["wait_bins"].astype(np.int16), page["wait_time"].astype(np.float64)
        self._marks = page["marks"].astype(np.float64)
        self._thinned.load(page["thinned"])
        _, self._first, self._learnt, self._last_alarm, first, earliest = (int(i) for i in page["numbers"])
        self._story = first, earliest
        for fault in json.loads(page["faults"].tobytes()):
            self._faults.append(_Fault(**{**fault, "columns": tuple(fault["columns"])}))
            self._latched[list(fault["columns"])] = True
