"""Detector `error_rate`: the share of wrong predictions, as labels tell it, against what it was so far.

Blocks of 25 joined labels of one model version. Each is judged against the rate of earlier blocks plus a tolerance for
what is not known of it: a mixture of Bernoulli likelihood ratios for raised odds, each a supermartingale for every
rate up to the raised one. Recent blocks join the rate late, so that a slow rise is not learnt while it is being found.
Of a model that predicts numbers it is the mean distance from the label, cut off where the largest twentieth of its
first 200 labelled predictions begins, and the bets are those on bounded means.
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
    I64,
    NO_COLUMN,
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
from detectors.performance.loss_blocks import LossBlock, LossBlocks
from detectors.performance.second_opinion import SecondOpinion
from detectors.performance.spread import Spread
from detectors.performance.versions import SLOTS, VersionSlots
from detectors.performance.wagers import (
    BLOCK,
    LEVEL,
    MAX_LOG_E,
    MIX,
    back_of_errors,
    back_of_losses,
    on_errors,
    on_losses,
)

_LEAK = 0.99
_HISTORY = 96
_LATE = 60
"""Blocks after which a block joins the rate."""
_NOISE_LATE = 40
_LEAST = 100.0
"""Labels before anything is bet."""
_COLUMNS = 8
"""Of a block that was: sum of its losses, of their squares, first and last time, residual; of the null then: sum of
losses, of squares, labels."""
_LEAST_VARIANCE = 1e-5
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
    """A rise of the rate that is not worth an alarm, as a share (0.01 is one point; of numbers, of the cut-off)."""
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


@register
class ErrorRate(Detector):
    """Errors of each of the four model versions seen last."""

    name = "error_rate"
    kind = "performance_drop"
    raises = ("performance_drop", "concept_drift")
    scope = "model"
    inputs = frozenset({"reference", "outputs", "labels"})
    state_version = 2
    account = "drift"
    share = 0.1
    Params = Params
    _told = ""
    """What the name of a measure begins with."""

    def __init__(self, context: Context, params: Any) -> None:
        super().__init__(context, params)
        self._begin()

    def _begin(self) -> None:
        self._versions = VersionSlots()
        self._spread = Spread(SLOTS)
        self._null: F64 = np.zeros((3, SLOTS))
        """Sum of the losses that were learnt, of their squares, and how many, by slot."""
        self._open = LossBlocks()
        self._blocks = np.zeros(SLOTS, np.int64)
        self._from = np.zeros((3, SLOTS), np.int64)
        """By slot the first block that counts for an onset, the next for the rate, the next for the noise."""
        self._past: F64 = np.zeros((SLOTS, _HISTORY, _COLUMNS))
        self._marks: F64 = np.full(2, np.nan)
        self._faults: list[_Fault] = []
        self._story: dict[int, tuple[int, int]] = {}
        """First block and onset of the alarm about to be explained, by slot."""
        self._second = SecondOpinion() if self.params.adwin else None
        self._numeric = False
        self._changed = False

    def streams(self) -> Sequence[Stream]:
        """Of each slot one; those of a version latch together, in the whole and in its segments."""
        return tuple(
            Stream(f"error rate {i}", self.kind, "error_rate", (f"{NO_COLUMN}errors {i}",)) for i in range(SLOTS)
        )

    def bets(self) -> Bets:
        stream = np.repeat(np.arange(SLOTS), len(MIX))
        return Bets(stream, np.tile(MIX, SLOTS) / SLOTS, np.full(len(stream), _LEAK))

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
            for block in self._cut(batch, *self._own(batch, rows, slots)):
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
            observed = float(past[:, 0].sum()) / n
            measures.append(self._measure(slot, observed, before, n, since, until))
        earliest, onset_time, until = spans[0] if spans else (float(self._marks[1]),) * 3
        return Explanation(onset_time, (earliest, min(until, onset_time + (until - onset_time) / 2)), tuple(measures))

    def figures(self) -> Mapping[str, float]:
        """What ADWIN says, where it is asked."""
        if self._second is None:
            return {}
        return {"adwin_width": self._second.width, "adwin_detections": self._second.detections}

    # --- blocks ------------------------------------------------------------------------------------------------------

    def _own(self, batch: LabelBatch, rows: I64, slots: I64) -> tuple[I64, I64]:
        """Those of these rows, with their slots, that are watched: all of them."""
        return rows, slots

    def _cut(self, batch: LabelBatch, rows: I64, slots: I64) -> list[LossBlock]:
        """The blocks that these rows complete, in the order of their last rows."""
        loss = self._open.losses(batch, rows)
        if self._second is not None:
            self._second.update((loss[~np.isnan(loss)] > 0.5).astype(np.float64))
        return self._open.cut(batch.time, rows, slots, loss)

    def _elapsed(self, clock: float) -> F64:
        """Time between the closings of the two blocks before: it is known before this one began."""
        if np.isnan(self._marks[0]):
            self._marks[:] = clock
        elapsed = max(float(self._marks[1] - self._marks[0]), 0.0)
        self._marks[:] = self._marks[1], max(clock, float(self._marks[1]))
        return np.array([elapsed])

    def _judge(self, block: LossBlock) -> tuple[F64, float]:
        """Logs of e-values (1, bets) and the standardised residual. Zero for the other slots; one that no version has
        may not hoard what is injected."""
        unused = (self._blocks == 0) & (np.arange(SLOTS) != block.slot)
        log_e = np.repeat(np.where(unused, -MAX_LOG_E, 0.0), len(MIX))[None]
        slot, labels = block.slot, float(self._null[2, block.slot])
        rate, variance = self._moments(*self._null[:, slot].tolist())
        total = float(block.losses.sum())
        residual = (total - BLOCK * rate) / math.sqrt(BLOCK * variance * (1 + BLOCK / max(labels, 1.0)))
        if labels >= _LEAST:
            v = self._spread.v[:, slot]
            slack = self.params.tolerance * math.sqrt(float(v[-1]) * variance / labels)
            null = rate + slack + self.params.smallest_rise
            log = on_losses(block.losses, null, variance) if self._numeric else on_errors(total, null)
            log_e[0, slot * len(MIX) : (slot + 1) * len(MIX)] = np.minimum(log / v[LEVEL], MAX_LOG_E)
        return log_e, float(np.clip(residual, -8, 8))

    def _moments(self, losses: float, squares: float, labels: float) -> tuple[float, float]:
        """Mean and variance of one loss, with half a loss of 1 added to a pseudo-label."""
        mean, second = (losses + 0.5) / (labels + 1), (squares + 0.5) / (labels + 1)
        return mean, max(second - mean * mean, _LEAST_VARIANCE)

    def _write(self, block: LossBlock, residual: float) -> None:
        slot, b = block.slot, int(self._blocks[block.slot])
        own = block.losses.sum(), (block.losses**2).sum()
        self._past[slot, b % _HISTORY] = *own, block.opened, block.closed, residual, *self._null[:, slot]
        self._blocks[slot] = b + 1

    def _learn(self, slot: int) -> None:
        """Take old blocks into rate and noise, unless the slot is latched."""
        b = int(self._blocks[slot])
        if any(f.slot == slot for f in self._faults):
            self._from[1:, slot] = b
            return
        while b - self._from[1, slot] > min(_LATE, b // 4):
            self._absorb(slot, self._past[slot, self._from[1, slot] % _HISTORY, :2])
            self._from[1, slot] += 1
        while b - self._from[2, slot] > min(_NOISE_LATE, max(8, b // 4)):
            self._spread.learn(slot, float(self._past[slot, self._from[2, slot] % _HISTORY, 4]))
            self._from[2, slot] += 1

    def _absorb(self, slot: int, sums: F64) -> None:
        self._null[:2, slot] += sums
        self._null[2, slot] += BLOCK
        self._null[:, slot] *= min(1.0, self.params.memory / float(self._null[2, slot]))

    def _forget(self, slot: int) -> None:
        """The slot goes to another version."""
        self._null[:, slot] = 0.0
        self._open.forget(slot)
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
        """The mean loss so far, as it was when `block` was judged."""
        return self._moments(*self._past[slot, block % _HISTORY, 5:8].tolist())[0]

    def _measure(self, slot: int, observed: float, before: float, n: int, since: float, until: float) -> Measure:
        """A mean loss as it is told: a share of wrong predictions, or a distance in the unit of what is predicted."""
        version = self._versions.names[slot]
        of = f" of version {version}" if version else ""
        if not self._numeric:
            stream = f"{self._told}wrong predictions{of}"
            return Measure(self.name, stream, observed, before, "share", n, since, until, statistic="error_rate")
        limit = self._open.limit or 1.0
        stream = f"{self._told}distance from the label{of}, at most {limit:.6g}"
        numbers = observed * limit, before * limit
        return Measure(self.name, stream, *numbers, "mean", n, since, until, statistic="mean_distance")

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
            self._null[:, slot] = self._past[slot, onset % _HISTORY, 5:8]
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

    def _gain(self, fault: _Fault, block: LossBlock) -> float:
        """Evidence that losses are as before the fault, not midway to those since its onset."""
        if self._numeric:
            variance = self._moments(*self._null[:, fault.slot].tolist())[1]
            log = back_of_losses(block.losses, fault.before, fault.since, variance)
        else:
            log = back_of_errors(float(block.losses.sum()), fault.before, fault.since)
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
            **self._open.page(),
            "null": self._null.copy(),
            "blocks": np.vstack([self._blocks, self._from]),
            "past": self._past.copy(),
            "marks": self._marks.copy(),
            "story": np.frombuffer(json.dumps(story).encode(), np.uint8).copy(),
        }

    def _load(self, page: Page) -> None:
        story = json.loads(page["story"].tobytes())
        self._spread.load(page)
        if self._second is not None:
            self._second.load(page)
        self._open.load(page)
        self._null, self._past = page["null"].astype(np.float64), page["past"].astype(np.float64)
        self._blocks, self._from = page["blocks"][0].astype(np.int64), page["blocks"][1:].astype(np.int64)
        self._marks = page["marks"].astype(np.float64)
        self._versions.names, self._versions.seen = story["names"], story["seen"]
        self._faults, self._numeric = [_Fault(**f) for f in story["faults"]], story["numeric"]


def _shape(name: str, array: Any) -> tuple[int, ...] | None:
    """The shape that must agree: the first axis of growing things varies."""
    if array is None:
        return None
    shape: tuple[int, ...] = array.shape
    return shape[1:] if name in ("first", "story", "adwin_values") else shape
