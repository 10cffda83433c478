"""Detector `error_rate`: the share of wrong predictions, as labels tell it, against what it was so far.

Blocks of 25 joined labels of one model version. Each is judged against the rate of earlier blocks plus a tolerance for
what is not known of it: a mixture of Bernoulli likelihood ratios for raised odds, each a supermartingale for every
rate up to the raised one. Recent blocks join the rate late, so that a slow rise is not learnt while it is being found.
A model that predicts numbers errs where it is further off than three in four of its first 200 labelled predictions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detectors.base import (
    F64,
    Batch,
    Bets,
    Context,
    Detector,
    Evidence,
    Explanation,
    LabelBatch,
    Latch,
    Measure,
    Page,
    StateError,
    Stream,
    Verdict,
    Views,
    register,
)
from detectors.drift.onset import best_split
from detectors.performance.second_opinion import SecondOpinion
from detectors.performance.spread import Spread
from detectors.performance.versions import SLOTS, VersionSlots

BLOCK = 25
ODDS = np.array([1.3, 1.6, 2.2, 3.5, 8.0])
"""Factors on the odds of an error that are bet on."""
_LEVEL = np.array([6, 6, 5, 4, 2])
"""A small factor is a slow bet: its spread is taken over 2^level blocks."""
_MIX = np.array([0.2, 0.3, 0.25, 0.15, 0.1])
_LEAK = 0.99
_HISTORY = 96
_LATE = 60
"""Blocks after which a block joins the rate."""
_NOISE_LATE = 40
_LEAST = 100.0
"""Labels before anything is bet."""
_FIRST = 200
_EXCEEDED = 0.75
_MAX_ERROR = 1e12
_MAX_LOG_E = 30.0
_GONE = 100.0
"""Evidence for recovery when a version gives its slot to another: its incident ends with it."""


@dataclass(frozen=True)
class Params:
    """Parameters of the error rate."""

    memory: float = 30_000.0
    """Labels of a version that its rate remembers."""
    tolerance: float = 2.5
    """Standard errors by which the rate so far may be too low."""
    smallest_rise: float = 0.0
    """A rise of the rate that is not worth an alarm, as a share (0.01 is one point)."""
    adwin: bool = False
    """Also feed river's ADWIN, as a second opinion in the metrics; it costs 100 MB of memory."""


@dataclass(slots=True)
class _Fault:
    """A latch: its slot, rate before it and since its onset. A `follower` opens with another detector's latch."""

    key: str
    slot: int
    before: float
    since: float
    follower: bool


@dataclass(frozen=True, slots=True)
class _Block:
    row: int
    slot: int
    wrong: float
    total: float
    opened: float
    closed: float


@register
class ErrorRate(Detector):
    """Errors of each of the four model versions seen last."""

    name = "error_rate"
    kind = "performance_drop"
    raises = ("performance_drop", "concept_drift")
    scope = "model"
    inputs = frozenset({"reference", "outputs", "labels"})
    state_version = 1
    account = "drift"
    share = 0.1
    Params = Params

    def __init__(self, context: Context, params: Any) -> None:
        super().__init__(context, params)
        self._begin()

    def _begin(self) -> None:
        self._versions = VersionSlots()
        self._spread = Spread(SLOTS)
        self._wrong: F64 = np.zeros(SLOTS)
        """Errors in the null, and labels it has seen, by slot."""
        self._labels: F64 = np.zeros(SLOTS)
        self._open: F64 = np.zeros((SLOTS, 4))
        """Of the open block: labels, errors, sum of distances, time of its first label."""
        self._blocks = np.zeros(SLOTS, np.int64)
        self._from = np.zeros((3, SLOTS), np.int64)
        """By slot the first block that counts for an onset, the next for the rate, the next for the noise."""
        self._past: F64 = np.zeros((SLOTS, _HISTORY, 7))
        """Of each block: errors, distances, first and last time, residual, errors and labels of the null then."""
        self._marks: F64 = np.full(2, np.nan)
        self._first: list[float] = []
        self._limit = math.nan
        self._faults: list[_Fault] = []
        self._story: dict[int, tuple[int, int]] = {}
        """First block and onset of the alarm about to be explained, by slot."""
        self._second = SecondOpinion() if self.params.adwin else None
        self._numeric = False
        self._changed = False

    def streams(self) -> Sequence[Stream]:
        return tuple(Stream(f"error rate {i}", self.kind, "error_rate", ()) for i in range(SLOTS))

    def bets(self) -> Bets:
        stream = np.repeat(np.arange(SLOTS), len(ODDS))
        return Bets(stream, np.tile(_MIX, SLOTS) / SLOTS, np.full(len(stream), _LEAK))

    def update(self, batch: Batch, views: Views) -> Iterator[Evidence]:
        """Predictions tell nothing before their label."""
        return iter(())

    def update_labels(self, batch: LabelBatch) -> Iterator[Evidence]:
        """Evidence of each block that `batch` completes, one at a time, and of recovery while a slot is latched."""
        if not len(batch):
            return
        self._changed, self._numeric = True, batch.numeric
        for rows, slots, fresh in self._versions.runs(batch):
            if fresh >= 0:
                gone = [f for f in self._faults if f.slot == fresh and not f.follower]
                if gone:
                    yield self._recovery({f.key: _GONE for f in gone}, batch, int(rows[0]))
                self._forget(fresh)
            for block in self._cut(batch, rows, slots):
                at, position = np.array([block.row]), batch.position[block.row : block.row + 1]
                elapsed = self._elapsed(float(batch.clock[block.row]))
                log_e, residual = self._judge(block)
                self._write(block, residual)
                yield Evidence(self.name, log_e, elapsed, at, position)
                self._learn(block.slot)
                gains = {f.key: self._gain(f, block) for f in self._faults if f.slot == block.slot and not f.follower}
                if gains:
                    yield self._recovery(gains, batch, block.row)

    def react(self, verdict: Verdict) -> None:
        """On an alarm go back to the rate before it, and learn nothing of that version until it has recovered."""
        if verdict.alarm is not None:
            led = verdict.alarm.detector == self.name
            for latch in verdict.latched:
                if latch.detector == self.name:
                    self._latched(latch, led, tell=verdict.detector == self.name)
        keys = {latch.key for latch in verdict.recovered}
        for fault in self._faults:
            if fault.key in keys:
                self._restart_history(fault.slot)
        self._faults = [f for f in self._faults if f.key not in keys]

    def explain(self, streams: Sequence[int], block: int) -> Explanation:
        """Errors since the onset, expected ones from the rate before it."""
        measures, spans = [], []
        for slot in (i for i in streams if self._blocks[i] > self._from[0, i] or i in self._story):
            told = self._story.pop(slot) if slot in self._story else (int(self._from[0, slot]), self._onset(slot))
            first, onset = told
            past = self._path(slot, onset)
            n = len(past) * BLOCK
            before = self._rate_at(slot, onset)
            since, until = float(past[0, 2]), float(past[-1, 3])
            spans.append((float(self._path(slot, max(onset - 2, first))[0, 2]), since, until))
            what = f"errors above {self._limit:.6g}" if self._numeric else "wrong predictions"
            version = self._versions.names[slot]
            stream = f"{what} of version {version}" if version else what
            observed = float(past[:, 0].sum()) / n
            measures.append(
                Measure(self.name, stream, observed, before, "share", n, since, until, statistic="error_rate")
            )
        earliest, onset_time, until = spans[0] if spans else (float(self._marks[1]),) * 3
        return Explanation(onset_time, (earliest, min(until, onset_time + (until - onset_time) / 2)), tuple(measures))

    def figures(self) -> Mapping[str, float]:
        """What ADWIN says, where it is asked."""
        if self._second is None:
            return {}
        return {"adwin_width": self._second.width, "adwin_detections": self._second.detections}

    # --- blocks ------------------------------------------------------------------------------------------------------

    def _cut(self, batch: LabelBatch, rows: Any, slots: Any) -> list[_Block]:
        """The blocks that these rows complete, in the order of their last rows."""
        blocks = []
        distance = np.minimum(np.nan_to_num(batch.error[rows], nan=0.0, posinf=_MAX_ERROR), _MAX_ERROR)
        wrong = self._wrong_rows(distance) if batch.numeric else distance
        if self._second is not None:
            self._second.update(wrong[wrong >= 0])
        for slot in np.unique(slots).tolist():
            for i in np.flatnonzero((slots == slot) & (wrong >= 0)).tolist():
                held = self._open[slot]
                time = float(batch.time[rows[i]])
                if held[0] == 0:
                    held[3] = time
                held[:3] += 1, wrong[i], distance[i]
                if held[0] == BLOCK:
                    opened = float(held[3])
                    blocks.append(_Block(int(rows[i]), slot, float(held[1]), float(held[2]), opened, time))
                    held[:] = 0
        return sorted(blocks, key=lambda b: b.row)

    def _wrong_rows(self, distance: F64) -> F64:
        """1 where the prediction was further off than usual, 0 where not, -1 while that is being learnt."""
        learning = 0
        if math.isnan(self._limit):
            learning = min(_FIRST - len(self._first), len(distance))
            self._first += distance[:learning].tolist()
            if len(self._first) == _FIRST:
                self._limit = float(np.quantile(np.array(self._first), _EXCEEDED))
                self._first = []
        wrong = np.full(len(distance), -1.0)
        wrong[learning:] = distance[learning:] > self._limit
        return wrong

    def _elapsed(self, clock: float) -> F64:
        """Time between the closings of the two blocks before: it is known before this one began."""
        if np.isnan(self._marks[0]):
            self._marks[:] = clock
        elapsed = max(float(self._marks[1] - self._marks[0]), 0.0)
        self._marks[:] = self._marks[1], max(clock, float(self._marks[1]))
        return np.array([elapsed])

    def _judge(self, block: _Block) -> tuple[F64, float]:
        """Logs of e-values (1, bets) and the standardised residual. Zero for the other slots; one that no version has
        may not hoard what is injected."""
        unused = (self._blocks == 0) & (np.arange(SLOTS) != block.slot)
        log_e = np.repeat(np.where(unused, -_MAX_LOG_E, 0.0), len(ODDS))[None]
        slot, labels = block.slot, float(self._labels[block.slot])
        rate = (float(self._wrong[slot]) + 0.5) / (labels + 1)
        residual = (block.wrong - BLOCK * rate) / math.sqrt(BLOCK * rate * (1 - rate) * (1 + BLOCK / max(labels, 1.0)))
        if labels >= _LEAST:
            v = self._spread.v[:, slot]
            slack = self.params.tolerance * math.sqrt(float(v[-1]) * rate * (1 - rate) / labels)
            null = rate + slack + self.params.smallest_rise
            if null < 0.95:
                odds = null / (1 - null) * ODDS
                raised = odds / (1 + odds)
                log = block.wrong * np.log(raised / null) + (BLOCK - block.wrong) * np.log((1 - raised) / (1 - null))
                log_e[0, slot * len(ODDS) : (slot + 1) * len(ODDS)] = np.minimum(log / v[_LEVEL], _MAX_LOG_E)
        return log_e, float(np.clip(residual, -8, 8))

    def _write(self, block: _Block, residual: float) -> None:
        slot, b = block.slot, int(self._blocks[block.slot])
        null = float(self._wrong[slot]), float(self._labels[slot])
        self._past[slot, b % _HISTORY] = block.wrong, block.total, block.opened, block.closed, residual, *null
        self._blocks[slot] = b + 1

    def _learn(self, slot: int) -> None:
        """Take old blocks into rate and noise, unless the slot is latched."""
        b = int(self._blocks[slot])
        if any(f.slot == slot for f in self._faults):
            self._from[1:, slot] = b
            return
        while b - self._from[1, slot] > min(_LATE, b // 4):
            self._absorb(slot, float(self._past[slot, self._from[1, slot] % _HISTORY, 0]))
            self._from[1, slot] += 1
        while b - self._from[2, slot] > min(_NOISE_LATE, max(8, b // 4)):
            self._spread.learn(slot, float(self._past[slot, self._from[2, slot] % _HISTORY, 4]))
            self._from[2, slot] += 1

    def _absorb(self, slot: int, wrong: float) -> None:
        self._wrong[slot] += wrong
        self._labels[slot] += BLOCK
        keep = min(1.0, self.params.memory / float(self._labels[slot]))
        self._wrong[slot] *= keep
        self._labels[slot] *= keep

    def _forget(self, slot: int) -> None:
        """The slot goes to another version."""
        self._wrong[slot] = self._labels[slot] = 0.0
        self._open[slot] = 0.0
        self._blocks[slot] = 0
        self._from[:, slot] = 0
        self._past[slot] = 0.0
        self._spread.forget(slot)

    # --- alarms ------------------------------------------------------------------------------------------------------

    def _path(self, slot: int, first: int) -> F64:
        """Blocks from `first` on, oldest first."""
        b = int(self._blocks[slot])
        path: F64 = self._past[slot, np.arange(max(first, b - _HISTORY, 0), b) % _HISTORY]
        return path

    def _onset(self, slot: int) -> int:
        path = self._path(slot, int(self._from[0, slot]))
        return int(self._blocks[slot]) - max(best_split(path[:, 4]).blocks, 1)

    def _rate_at(self, slot: int, block: int) -> float:
        """The rate so far, as it was when `block` was judged."""
        wrong, labels = self._past[slot, block % _HISTORY, 5:7].tolist()
        return float((wrong + 0.5) / (labels + 1))

    def _latched(self, latch: Latch, led: bool, tell: bool) -> None:
        for slot in latch.streams:
            if not self._blocks[slot]:
                self._faults.append(_Fault(latch.key, slot, 0.5, 0.5, True))
                continue
            onset = self._onset(slot)
            since = float(self._path(slot, onset)[:, 0].mean()) / BLOCK
            before = self._rate_at(slot, onset)
            if tell:
                self._story[slot] = int(self._from[0, slot]), onset
            self._wrong[slot], self._labels[slot] = self._past[slot, onset % _HISTORY, 5:7]
            self._faults.append(_Fault(latch.key, slot, before, since, not led or slot != latch.leading))
            self._restart_history(slot)

    def _restart_history(self, slot: int) -> None:
        """What led to an alarm or a recovery is learnt neither as noise nor as normal."""
        self._from[:, slot] = self._blocks[slot]

    def _recovery(self, gains: Mapping[str, float], batch: LabelBatch, row: int) -> Evidence:
        """Evidence for the recovery of latches, of those not named none."""
        own = [f for f in self._faults if not f.follower]
        log_e = np.array([[gains.get(f.key, 0.0) for f in own]])
        at, position = np.array([row]), batch.position[row : row + 1]
        return Evidence(self.name, log_e, np.zeros(1), at, position, "recovery", tuple(f.slot for f in own))

    def _gain(self, fault: _Fault, block: _Block) -> float:
        """Log likelihood ratio of the rate before against midway between it and the rate since the onset."""
        before = min(max(fault.before, 1e-3), 0.98)
        half = min(max(0.5 * (before + fault.since), before * 1.2), (1 + before) / 2)
        log = block.wrong * math.log(before / half) + (BLOCK - block.wrong) * math.log((1 - before) / (1 - half))
        return log / float(self._spread.v[3, fault.slot])

    # --- state -------------------------------------------------------------------------------------------------------

    def dirty(self) -> dict[str, Page]:
        if not self._changed:
            return {}
        self._changed = False
        return {"state": self._page()}

    def restore(self, pages: Mapping[str, Page]) -> None:
        empty = self._page()
        for name, page in pages.items():
            wrong = {k for k in {*page, *empty} if _shape(k, page.get(k)) != _shape(k, empty.get(k))}
            if name != "state" or wrong:
                raise StateError(f"{self.name}: page {name!r} does not fit in {', '.join(sorted(wrong)) or 'its name'}")
        self._begin()
        if "state" in pages:
            self._load(pages["state"])

    def _page(self) -> Page:
        story = {
            "names": self._versions.names,
            "seen": self._versions.seen,
            "faults": [asdict(f) for f in self._faults],
            "numeric": self._numeric,
        }
        return {
            **self._spread.page(),
            **({} if self._second is None else self._second.page()),
            "null": np.stack([self._wrong, self._labels]),
            "open": self._open.copy(),
            "blocks": np.vstack([self._blocks, self._from]),
            "past": self._past.copy(),
            "marks": np.array([*self._marks, self._limit]),
            "first": np.array(self._first, np.float64),
            "story": np.frombuffer(json.dumps(story).encode(), np.uint8).copy(),
        }

    def _load(self, page: Page) -> None:
        story = json.loads(page["story"].tobytes())
        self._spread.load(page)
        if self._second is not None:
            self._second.load(page)
        self._wrong, self._labels = page["null"].astype(np.float64)
        self._open, self._past = page["open"].astype(np.float64), page["past"].astype(np.float64)
        self._blocks, self._from = page["blocks"][0].astype(np.int64), page["blocks"][1:].astype(np.int64)
        self._marks, self._limit = page["marks"][:2].astype(np.float64), float(page["marks"][2])
        self._first = page["first"].tolist()
        self._versions.names, self._versions.seen = story["names"], story["seen"]
        self._faults, self._numeric = [_Fault(**f) for f in story["faults"]], story["numeric"]


def _shape(name: str, array: Any) -> tuple[int, ...] | None:
    """The shape that must agree: the first axis of growing things varies."""
    if array is None:
        return None
    shape: tuple[int, ...] = array.shape
    return shape[1:] if name in ("first", "story", "adwin_values") else shape
