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
    Measure,
    Page,
    Stream,
    Verdict,
    Views,
    register,
)
from detectors.drift.calendar import calendar
from detectors.drift.cell_noise import LAG, LONGEST, STRETCH, CellNoise
from detectors.drift.cells import GROUP, CellBets, CellOdds, Cells
from detectors.drift.effects import jensen_shannon, stability_index
from detectors.drift.explain import JS, PSI, effect_size
from detectors.drift.null import memory_of
from detectors.drift.onset import best_split
from detectors.drift.profile import profile_of
from detectors.drift.scores import FAMILIES
from detectors.drift.stored import check_pages
from detectors.drift.target import target
from detectors.drift.thinned import Thinned
from detectors.views.bins import FILLED

_LATE: Final = 4
"""Groups that wait at least before the null takes them in: a rare value doubles in its own memory otherwise."""
_KEPT: Final = 24
"""Groups kept for onsets."""
_BEFORE: Final = 16
"""Groups between two copies of the null; after an alarm it goes back to the older one."""
_PAGES: Final = 3
_ROWS_A_PAGE: Final = _KEPT // _PAGES
_LEAST_FACTOR: Final = 1.2
_HALF: Final = 0.5


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
        share = {s.column: s.share for s in self._target.scores if not s.label.startswith("pair")}
        self._share = [share[j] for j in range(len(columns))]
        self._cells = Cells(columns, self._share, self._target.rows)
        self._bets = CellBets(self._cells)
        self._memory = params.memory or memory_of(context.events_per_day)
        season = calendar(context, self._target, params.season_swing)
        swing = np.full(len(self._target.scores), params.season_swing)
        self._swing = self._of_columns(swing if season is None else season.amplitude + season.swing)
        self._begin()

    @classmethod
    def made(cls, context: Context, params: Any) -> Iterator[Detector]:
        """None for a model without numeric columns that have several values."""
        made = cls(context, params)
        if len(made._bets.weight):
            yield made

    def _begin(self) -> None:
        """The state of a detector that has seen nothing."""
        cells, columns = self._cells, self._cells.columns
        rows = self._target.effective
        self._k: F64 = cells.of_reference * rows + _HALF
        self._b: F64 = np.full(columns, rows) + _HALF
        self._noise = CellNoise(cells)
        self._thinned = Thinned(self._memory)
        self._wait_bins = np.zeros((0, columns), np.int16)
        self._wait_time: F64 = np.zeros(0)
        self._marks: F64 = np.full(3, np.nan)
        """Watermark at the closing of the group before the last, of the last, and now."""
        self._group = 0
        """Number of the next group."""
        self._first = self._learnt = 0
        """The oldest group that counts for an onset, and the next to be taken into the null."""
        self._last_alarm = -1
        self._past = np.zeros((_KEPT, cells.fine), np.uint8)
        self._times: F64 = np.zeros((_KEPT, 2))
        self._copies: F64 = np.stack([np.append(self._k, self._b)] * 2)
        self._faults: list[_Fault] = []
        self._latched: Bool = np.zeros(columns, np.bool_)
        self._story: tuple[int, int] = (0, 1)
        self._odds: CellOdds | None = None
        self._seen: _Groups | None = None
        """The groups of the batch at hand, `_done` of which were judged; evidence was given up to `_end`."""
        self._done = self._end = 0
        self._changed: set[int] = set()

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
        windows: int = self.params.noise_windows
        return GROUP * STRETCH * (windows * LONGEST + LAG) if windows else 0

    def update(self, batch: Batch, views: Views) -> Iterator[Evidence]:
        """Evidence for the groups that `batch` completes, at most a stretch at a time; then of recovery."""
        if not len(batch):
            return
        self._thinned.see(batch.one_in, self._group)
        seen = self._seen = self._cut(batch, views)
        self._done = self._end = 0
        while self._done < len(seen.row):
            if self._group % STRETCH == 0:
                self._thinned.allow()
            self._end = min(self._done + STRETCH - self._group % STRETCH, len(seen.row))
            at = slice(self._done, self._end)
            yield Evidence(
                self.name, self._judge(seen.counts[at]), seen.elapsed[at], seen.row[at], batch.start + seen.row[at]
            )
            self._settle(self._end - self._done)
            if self._group % STRETCH == 0:
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
            self._faults = [f for f in self._faults if f.key not in keys]
            self._latched[:] = False
            for fault in self._faults:
                self._latched[list(fault.columns)] = True
            self._forget_recent()

    def explain(self, streams: Sequence[int], block: int) -> Explanation:
        """Shares of the cells that moved, before and since the onset, the strongest of each column."""
        first, most = self._story
        since, until = self._times[first % _KEPT, 0].item(), self._times[(self._group - 1) % _KEPT, 1].item()
        measures, effects = [], {}
        for column in streams:
            told, effect = self._told(column, first, since, until)
            measures += told
            effects[self._target.binning.numeric[column].name] = effect
        earliest = self._times[most % _KEPT, 0].item()
        latest = self._times[first % _KEPT, 1].item()
        return Explanation(since, (min(earliest, since), max(latest, since)), tuple(measures), effects)

    # --- judging ---------------------------------------------------------------------------------------------------

    def _cut(self, batch: Batch, views: Views) -> _Groups:
        """All groups that `batch` completes."""
        bins = views.get("bins")[:, : self._cells.columns] % FILLED
        waiting = len(self._wait_time)
        bins, time = np.concatenate([self._wait_bins, bins]), np.concatenate([self._wait_time, batch.time])
        used = len(time) // GROUP * GROUP
        self._wait_bins, self._wait_time = bins[used:].copy(), time[used:].copy()
        row = np.arange(GROUP - 1, used, GROUP) - waiting
        if np.isnan(self._marks[0]):
            self._marks[:] = batch.time[0]
        marks = np.maximum.accumulate(np.maximum(batch.time, self._marks[2]))
        at = np.concatenate([self._marks[:2], marks[row]])
        self._marks[:] = *at[-2:], marks[-1]
        self._changed.add(-1)
        counts = self._cells.counts(bins[:used])
        return _Groups(counts, time[:used:GROUP], time[GROUP - 1 : used : GROUP], np.diff(at)[: len(row)], row)

    def _judge(self, fine: F64) -> F64:
        """Logs of e-values (groups, bets) of groups with counts (groups, fine); 0 while the noise is not known."""
        if self._noise.windows < self.params.noise_windows:
            return np.zeros((len(fine), len(self._bets.weight)))
        if self._odds is None:
            turn = 2 * math.pi * self._memory * self._thinned.allowed / self.context.events_per_day
            slips = self._swing * (turn / math.sqrt(1 + turn * turn))
            tilt = np.exp(slips[self._cells.column] * self._cells.slope)
            self._odds = self._bets.odds(self._k, self._b, self._noise.v, tilt)
        return self._bets.log_e(self._odds, self._cells.joined(fine), self._cells.numbers(fine))

    def _settle(self, consumed: int) -> None:
        """Keep the first `consumed` groups of those last judged; nothing when that was done already."""
        seen, first = self._seen, self._done
        if seen is None or first == self._end:
            return
        self._done = self._end = first + consumed
        slots = np.arange(self._group, self._group + consumed) % _KEPT
        self._past[slots] = seen.counts[first : self._done]
        self._times[slots, 0], self._times[slots, 1] = seen.opened[first : self._done], seen.closed[first : self._done]
        self._changed.update((slots // _ROWS_A_PAGE).tolist())
        self._group += consumed

    def _close(self) -> None:
        """Take what is old enough into the null, and what the stretch differs by into the noise, unless an incident is
        fresh."""
        self._odds = None
        if self._faults and (self._group - self._last_alarm) * GROUP < self._memory:
            self._learnt = self._group
            return
        column, learning = self._cells.column, ~self._latched
        if self._learnt <= self._group - STRETCH:
            fine = self._past[np.arange(self._group - STRETCH, self._group) % _KEPT].astype(np.float64)
            wanted = self._cells.numbers(fine)[:, column] * (self._k / self._b[column])
            apart = self._cells.joined(fine) - wanted
            self._noise.learn(self._group // STRETCH, apart, wanted.sum(axis=0), self._b / GROUP, self._latched)
        while self._group - self._learnt >= _LATE + STRETCH:
            x, n = self._summed(self._learnt, self._learnt + STRETCH)
            self._k += np.where(learning[column], x, 0.0)
            self._b += np.where(learning, n, 0.0)
            self._learnt += STRETCH
        keep = np.minimum(self._memory / self._b, 1.0)
        self._k *= keep[column]
        self._b *= keep
        if self._group % _BEFORE == 0 and not self._faults:
            self._copies[0] = self._copies[1]
            self._copies[1] = np.append(self._k, self._b)

    def _summed(self, first: int, end: int | None = None) -> tuple[F64, F64]:
        """Counts (cells,) and numbers (columns,) of groups `first` to `end` (exclusive), those that are kept."""
        end = self._group if end is None else end
        at = np.arange(max(first, self._group - _KEPT, 0), end) % _KEPT
        total: F64 = self._past[at].sum(axis=0, dtype=np.float64)
        return self._cells.joined(total), self._cells.numbers(total)

    # --- alarms ----------------------------------------------------------------------------------------------------

    def _latch(self, latch: Latch, bet: int, led: bool) -> None:
        columns = np.zeros(self._cells.columns, np.bool_)
        columns[list(latch.streams)] = True
        self._go_back(columns)
        column = latch.leading
        cell = int(self._bets.cell[bet]) if bet >= 0 else self._moved(column, max(self._group - _LATE, 0))
        self._story = self._onset(cell) if self._group else (0, 0)
        x, n = self._summed(self._story[0])
        before = self._k[cell] / self._b[column]
        since = (x[cell] + _HALF * before) / (n[column] + _HALF)
        self._faults.append(_Fault(latch.key, latch.streams, column, cell, float(before), float(since), not led))
        self._latched |= columns
        if led:
            self._last_alarm = self._group
        self._forget_recent()

    def _go_back(self, columns: Bool) -> None:
        """Of these columns to the null before the last one or two copies."""
        cells = len(self._k)
        mine = columns[self._cells.column]
        self._k[mine] = self._copies[0, :cells][mine]
        self._b[columns] = self._copies[0, cells:][columns]

    def _onset(self, cell: int) -> tuple[int, int]:
        """The first group of the change, and the earliest that it may have been."""
        oldest = max(self._first, self._group - _KEPT)
        groups = np.arange(oldest, self._group)
        if not len(groups):
            return max(self._group - 1, 0), max(self._group - 1, 0)
        fine = self._past[groups % _KEPT].astype(np.float64)
        x, n = self._cells.joined(fine)[:, cell], self._cells.numbers(fine)[:, self._cells.column[cell]]
        wanted = n * self._k[cell] / self._b[self._cells.column[cell]]
        split = best_split((x - wanted) / np.sqrt(np.maximum(wanted, 1e-3)), float(self._noise.v[cell]))
        return self._group - split.blocks, max(self._group - split.most - 1, oldest)

    def _moved(self, column: int, first: int) -> int:
        """The cell of a column that has moved most since `first`, by its likelihood ratio."""
        x, n = self._summed(first)
        own = np.flatnonzero((self._cells.column == column) & self._cells.on)
        if not len(own):
            own = np.flatnonzero(self._cells.column == column)
        wanted = np.maximum(n[column] * self._k[own] / self._b[column], 1e-9)
        seen = np.maximum(x[own], 1e-9)
        return int(own[np.argmax((seen * np.log(seen / wanted) - seen + wanted) / self._noise.v[own])])

    def _recovery(self, row: I64, start: int) -> Evidence:
        """Evidence for the recovery of every latch over the stretch, as one block."""
        x, n = self._summed(self._group - STRETCH)
        own = [f for f in self._faults if not f.follower]
        gain = np.array([[self._gain(f, x, n) for f in own]])
        return Evidence(self.name, gain, np.zeros(1), row, start + row, "recovery", tuple(f.leading for f in own))

    def _gain(self, fault: _Fault, x: F64, n: F64) -> float:
        """Evidence that the cell's share is as before the fault, not midway to what it was since."""
        before, half = fault.before, (fault.before + fault.since) / 2
        rises = fault.since >= before
        half = max(half, before * _LEAST_FACTOR) if rises else min(half, before / _LEAST_FACTOR)
        log = n[fault.leading] * (half - before) - x[fault.cell] * math.log(half / before)
        return float(log / self._noise.v[fault.cell])

    def _forget_recent(self) -> None:
        """What led to an alarm or a recovery is learnt neither as noise nor as normal."""
        self._first = self._learnt = self._group
        self._odds = None
        self._noise.forget_young()
        self._changed.add(-1)

    def _told(self, column: int, first: int, since: float, until: float) -> tuple[list[Measure], float]:
        """The measures of a column, the strongest cell first, and how large the change is."""
        named = self._target.binning.numeric[column]
        fault = next((f for f in self._faults if f.leading == column and not f.follower), None)
        cell = fault.cell if fault is not None else self._moved(column, first)
        x, n = self._summed(first)
        events = int(n[column])
        observed, expected = float(x[cell]) / max(events, 1), float(self._cells.of_reference[cell])
        inner = np.zeros(named.bins)
        groups = np.arange(max(first, self._group - _KEPT, 0), self._group)
        own = self._cells.column[: self._cells.fine] == column
        inner[: int(own.sum())] = self._past[groups % _KEPT][:, own].sum(axis=0, dtype=np.float64)
        profile = profile_of(named, self._share[column], inner) if inner.any() else None
        told = self._target.told[column].edges
        low, high = int(self._cells.first_bin[cell]), int(self._cells.last_bin[cell])
        text = f"values {_between(told, low, high)}"
        numbers = observed, expected, "share", events, since, until, named.name
        made = [Measure(self.name, f"{named.name}:histogram", *numbers, text, profile)]
        if inner.any():
            psi, js = stability_index(self._share[column], inner), jensen_shannon(self._share[column], inner)
            made.append(Measure(self.name, f"{named.name}:psi", psi, 0.0, "psi", events, since, until, named.name, PSI))
            made.append(
                Measure(self.name, f"{named.name}:js", js, 0.0, "js distance", events, since, until, named.name, JS)
            )
        return made, effect_size("share", observed, expected)

    def _of_columns(self, streams: F64) -> F64:
        """(columns,) the largest of `streams` (G + P,) that are means or spreads of each numeric column."""
        made: F64 = np.zeros(self._cells.columns)
        moments = np.isin(self._target.family, [FAMILIES.index("loc"), FAMILIES.index("scale")])
        np.maximum.at(made, self._target.column[moments], streams[moments])
        return made

    # --- state -----------------------------------------------------------------------------------------------------

    def dirty(self) -> dict[str, Page]:
        pages = {f"past{i}": self._past_page(i) for i in sorted(self._changed - {-1})}
        if self._changed:
            pages["state"] = self._page()
        self._changed.clear()
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        shapes = {name: array.shape for name, array in self._past_page(0).items()}
        check_pages(self.name, pages, {"state": self._page()}, shapes)
        self._begin()
        for i in range(_PAGES):
            page = pages.get(f"past{i}")
            if page is not None:
                rows = slice(i * _ROWS_A_PAGE, (i + 1) * _ROWS_A_PAGE)
                self._past[rows], self._times[rows] = page["counts"], page["times"]
        if "state" in pages:
            self._load(pages["state"])

    def _past_page(self, number: int) -> Page:
        rows = slice(number * _ROWS_A_PAGE, (number + 1) * _ROWS_A_PAGE)
        return {"counts": self._past[rows].copy(), "times": self._times[rows].copy()}

    def _page(self) -> Page:
        faults = json.dumps([asdict(f) for f in self._faults]).encode()
        numbers: I64 = np.array([self._group, self._first, self._learnt, self._last_alarm, *self._story], np.int64)
        return {
            **self._noise.page(),
            "k": self._k.copy(),
            "b": self._b.copy(),
            "copies": self._copies.copy(),
            "wait_bins": self._wait_bins.copy(),
            "wait_time": self._wait_time.copy(),
            "marks": self._marks.copy(),
            "thinned": self._thinned.page(),
            "numbers": numbers,
            "faults": np.frombuffer(faults, np.uint8).copy(),
        }

    def _load(self, page: Page) -> None:
        self._noise.load(page)
        self._k, self._b = page["k"].astype(np.float64), page["b"].astype(np.float64)
        self._copies = page["copies"].astype(np.float64)
        self._wait_bins, self._wait_time = page["wait_bins"].astype(np.int16), page["wait_time"].astype(np.float64)
        self._marks = page["marks"].astype(np.float64)
        self._thinned.load(page["thinned"])
        self._group, self._first, self._learnt, self._last_alarm, *story = (int(i) for i in page["numbers"])
        self._story = story[0], story[1]
        for fault in json.loads(page["faults"].tobytes()):
            self._faults.append(_Fault(**{**fault, "columns": tuple(fault["columns"])}))
            self._latched[list(fault["columns"])] = True


def _between(edges: F64, first: int, last: int) -> str:
    """Words for the values of bins `first` to `last` (inclusive) of a column with `edges`."""
    if first == 0:
        return f"up to {edges[last]:.6g}"
    if last >= len(edges):
        return f"above {edges[first - 1]:.6g}"
    low, high = float(edges[first - 1]), float(edges[last])
    if low == high or f"{low:.6g}" == f"{high:.6g}":
        return f"at {high:.6g}"
    return f"above {low:.6g} up to {high:.6g}"
