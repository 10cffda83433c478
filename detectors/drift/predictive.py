"""Detector `predictive_drift`: every watched column against target and live traffic so far, in blocks of 25 events.

Four blocks share one null; it takes them in when the four are complete, so results depend on event numbers only, not
on how events were cut into batches. After an alarm the null of the latched streams goes back to before the onset and
nothing is learnt while the incident is fresh. A second family of bets holds the same blocks against the target alone:
it finds what the first one forgets, slow drift and gaps between the target and live traffic.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from detectors.base import (
    F64,
    Alarm,
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
from detectors.drift.bets import LEAK, MAX_Z, ChangeBets, Line, Odds, Prices, joined, log_e_values
from detectors.drift.blocks import BlockCutter, Blocks, Totals, no_totals
from detectors.drift.calendar import allowance, learnt
from detectors.drift.departure import LEAST_BLOCKS, Departure
from detectors.drift.design_effect import FLOOR_BLOCKS, DesignEffect
from detectors.drift.explain import explain_blocks
from detectors.drift.history import GROUP, History
from detectors.drift.null import Null, memory_of
from detectors.drift.onset import Story, best_split, story_of
from detectors.drift.params import Params
from detectors.drift.recovery import Fault, gain_of_count, gain_of_sum
from detectors.drift.runs import Runs
from detectors.drift.scores import BLOCK
from detectors.drift.season import rate_tilt, slipping_swing
from detectors.drift.smallest import Sensitivity, Stakes, sensitivity
from detectors.drift.stored import check_pages
from detectors.drift.target import target
from detectors.drift.target_bets import SHARE, TARGET_LEAK, TargetBets
from detectors.drift.thinned import Thinned
from detectors.drift.warm import learn_ordered
from detectors.performance.expected_accuracy import expected_accuracy

LAG = 40
"""Residuals are learnt as noise when this many blocks old: a change still being found must not be noise."""
_REFRESH, _LATE_REFRESH = 16, 64
_RECOVERY_LEVEL = 3
_DENSER = 3.0
"""Live traffic so many times as dense as the reference is not what the reference's order shows."""


@register
class PredictiveDrift(Detector):
    """Location, scale, shape, categories, tails, missing, not-a-number, out of range and new values of every column,
    and correlations of pairs of numeric columns."""

    name = "predictive_drift"
    kind = "feature_drift"
    raises = ("feature_drift", "prediction_drift", "data_quality", "multivariate_drift")
    scope = "feature"
    inputs = frozenset({"features", "reference"})
    state_version = 3
    views = ("bins",)
    account = "drift"
    share = 0.85
    Params = Params

    def __init__(self, context: Context, params: Any) -> None:
        super().__init__(context, params)
        self._target = target(context)
        self._bets = ChangeBets(self._target)
        self.calendar = learnt(context.reference, self._target, params.season_swing)
        allowed = allowance(self.calendar, params.season_swing, self._target)
        self._target_bets = TargetBets(self._target, allowed.gap, allowed.later)
        self._split = len(self._bets.weight)
        self._memory = params.memory or memory_of(context.events_per_day)
        self._swings = [slipping_swing(x, self._memory, context.events_per_day) for x in (allowed.later, allowed.start)]
        self._allowed = (allowed.later, allowed.start)
        self._begin()

    def _begin(self) -> None:
        """The state of a detector that has seen nothing."""
        streams = len(self._target.scores)
        self._null = Null(self._target, self._memory)
        self._noise = DesignEffect(self._target, self.params.start_floor)
        if self.context.reference.ordered:
            learn_ordered(self.context.reference, self._target, self._noise, self.calendar)
        self._history = History(self._target)
        self._cutter = BlockCutter(self._target, self.calendar)
        self._thinned = Thinned(self._memory)
        self._departure = Departure(len(self._target_bets.sums), len(self._target_bets.weight))
        self._runs = Runs(streams)
        self._block = 0
        """Number of the next block to be judged."""
        self._lived = 0.0
        self._next_refresh = 0
        self._last_alarm = -1
        self._tilt: F64 = np.ones(self._target.counts)
        self._early = True
        self._season = self._swings[self._early]
        self._faults: list[Fault] = []
        self._latched: Bool = np.zeros(streams, np.bool_)
        self._totals = no_totals(self._target)
        self._prices: tuple[Prices, Line] | None = None
        self._odds: Odds | None = None
        self._piece: tuple[Blocks, F64] | None = None
        self._consumed = 0
        self._story = Story(0, 1, 0.0, 0.0, 0.0)
        self._changed = False
        self._noise_changed = True

    def streams(self) -> Sequence[Stream]:
        return self._target.streams

    def bets(self) -> Bets:
        change, gap = self._bets, self._target_bets
        leak = np.repeat([LEAK, TARGET_LEAK], [len(change.weight), len(gap.weight)])
        weight = np.concatenate([(1 - SHARE) * change.weight, SHARE * gap.weight])
        return Bets(np.concatenate([change.stream, gap.stream]), weight / weight.sum(), leak)

    def update(self, batch: Batch, views: Views) -> Iterator[Evidence]:
        """Evidence for the blocks that `batch` completes, at most a group at a time; then recoveries of the group."""
        if not len(batch):
            return
        self._changed = True
        if self._thinned.see(batch.one_in, self._block):
            self._next_refresh = self._block
        blocks = self._cutter.cut(batch, views.get("bins"))
        done = 0
        while done < len(blocks):
            if self._block % GROUP == 0:
                self._open_group()
            piece = blocks.part(done, min(done + GROUP - self._block % GROUP, len(blocks)))
            yield self._judge(piece, batch.start)
            self._settle(len(piece))
            done += self._consumed
            if self._block % GROUP == 0:
                if any(not f.follower for f in self._faults):
                    yield self._recovery(int(blocks.row[done - 1]), batch.start)
                self._close_group()

    def react(self, verdict: Verdict) -> None:
        """Keep what was judged; on an alarm latch and go back to the null before it, on a recovery watch again."""
        if verdict.detector == self.name:
            self._settle(verdict.consumed)
        if verdict.alarm is not None:
            led = verdict.alarm.detector == self.name
            self._alarmed([latch for latch in verdict.latched if latch.detector == self.name], verdict.alarm, led)
        open_again = {latch.key for latch in verdict.recovered if latch.detector == self.name}
        if open_again:
            self._recovered(open_again)

    def explain(self, streams: Sequence[int], block: int) -> Explanation:
        """Numbers since the onset of the last alarm, expected ones from the target."""
        accuracy = expected_accuracy(self.context)
        return explain_blocks(self.name, self._target, self._history, streams, self._story, accuracy)

    def sensitivity(self, alarms_a_day: float) -> Sensitivity:
        """What can be found at a budget of `alarms_a_day` for this detector, with the noise as it stands."""
        if not self._block:
            self._noise.refresh(0, BLOCK * self._null.k / self._null.b)  # as the first block will
        paid = np.full(len(self._latched), alarms_a_day * (1 - SHARE) * BLOCK / self.context.events_per_day)
        stakes = Stakes(self._target, self._bets, self._memory, self._noise, self._season, paid)
        return sensitivity(stakes, max(0, FLOOR_BLOCKS - self._block - self._noise.warmed) * BLOCK)

    def dirty(self) -> dict[str, Page]:
        pages = self._history.dirty()
        if self._changed:
            self._changed = False
            pages["state"] = self._page()
        if self._noise_changed:
            self._noise_changed = False
            pages["noise"] = self._noise.page()
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        check_pages(self.name, pages, {"state": self._page(), "noise": self._noise.page()}, self._history.shapes())
        self._begin()
        self._history.load(pages)
        if "noise" in pages:
            self._noise.load(pages["noise"])
        if "state" in pages:
            self._load(pages["state"])
        self._changed = self._noise_changed = False

    # --- judging ---------------------------------------------------------------------------------------------------

    def _open_group(self) -> None:
        if self._block >= self._next_refresh:
            known = self._lived >= self.params.season_hours * 3_600
            self._thinned.allow()
            self._early, self._season = not known, self._swing(not known)
            self._tilt = rate_tilt(self._null, self._season[self._target.sums :])
            self._doubt_order()
            self._noise.refresh(self._block, BLOCK * self._null.k / self._null.b)
            early = self._noise.warmed and self._block < _REFRESH  # doubts come before bets do
            step = GROUP if early else _REFRESH if self._block < 2 * FLOOR_BLOCKS else _LATE_REFRESH
            self._next_refresh = self._block + step
            self._departure.settle(known and self._block >= LEAST_BLOCKS)
            self._prices = None
            self._noise_changed = True
        self._history.open_group(self._block, self._null)
        self._odds = None

    def _swing(self, early: bool) -> F64:
        """The season that is allowed for."""
        if self._thinned.allowed == 1:
            return self._swings[early]
        return slipping_swing(self._allowed[early], self._memory, self.context.events_per_day / self._thinned.allowed)

    def _doubt_order(self) -> None:
        """Forget what the order of the reference taught where live traffic turns out to be far denser: rows drawn
        from a month lie hours apart, and cannot show how neighbours resemble each other."""
        if self._noise.warmed and 0 < self._block <= FLOOR_BLOCKS and self._lived > 0:
            live = self._block * BLOCK / self._lived * 86_400
            if live > _DENSER * self.context.events_per_day:
                self._noise = DesignEffect(self._target, self.params.start_floor)

    def _judge(self, piece: Blocks, start: int) -> Evidence:
        if self._odds is None:
            self._odds = self._bets.odds(self._null, self._priced()[0])
        z, residual = self._bets.look(self._odds, piece.level, piece.counts)
        seen = np.hstack([z, piece.counts, self._target_bets.look(piece.level)])
        log_e = log_e_values(self._odds.line, seen)
        self._piece = (piece, residual)
        self._consumed = 0
        return Evidence(self.name, log_e, piece.elapsed, piece.row, start + piece.row)

    def _priced(self) -> tuple[Prices, Line]:
        """Prices of all bets, and the line of those against the target alone."""
        if self._prices is None:
            against_target = self._target_bets.line(self._noise, self._departure.usual)
            prices = self._bets.prices(self._noise, self._season[: self._target.sums], self._tilt)
            self._prices = (prices._replace(line=joined(prices.line, against_target)), against_target)
        return self._prices

    def _settle(self, consumed: int) -> None:
        """Keep the first `consumed` blocks of the piece last judged; nothing when that was done already."""
        if self._piece is None:
            return
        piece, residual = self._piece
        self._piece, self._consumed = None, consumed
        piece, residual = piece.part(0, consumed), residual[:consumed]
        self._history.add(self._block, piece, residual)
        totals = self._totals
        totals.blocks += consumed
        totals.sums += piece.level.sum(axis=0)
        totals.squares += piece.spread.sum(axis=0)
        totals.counts += piece.counts.sum(axis=0)
        for i in range(consumed):
            self._lived += float(piece.elapsed[i])
            for fault in self._faults:
                fault.gain += self._gain(fault, residual[i], piece.counts[i])
        self._block += consumed

    def _close_group(self) -> None:
        """Take the group into the null, and what is old enough into the design effect, unless an incident is fresh."""
        totals, self._totals = self._totals, no_totals(self._target)
        fresh = bool(self._faults) and self._block - self._last_alarm < self._memory / BLOCK
        if totals.blocks:
            self._compare(totals, fresh)
            if not fresh:
                self._null.absorb(totals.blocks, totals.sums, totals.squares, totals.counts, ~self._latched)
        self._odds = None
        while self._block - self._history.first > min(LAG, max(8, self._block // 4)):
            if not fresh:
                self._noise.learn(self._history.residuals(self._history.first), self._latched)
                self._noise_changed = True
            self._history.first += 1

    def _compare(self, totals: Totals, fresh: bool) -> None:
        """Hold the group against null and target: since when it departs, and by how much it usually does."""
        bets, n = self._target_bets, totals.blocks
        opened = self._history.times(self._block - n)[0]
        self._runs.follow(self._history.total(self._block - n, self._block), n, opened)
        self._departure.follow(bets.joint(self._priced()[1], n, totals.sums, totals.counts), opened)
        if not fresh:
            self._departure.learn(n, bets.departure(totals.sums / n), ~self._latched[bets.sums], opened)

    # --- alarms and recoveries -------------------------------------------------------------------------------------

    def _alarmed(self, latches: Sequence[Latch], alarm: Alarm, led: bool) -> None:
        for latch in latches:
            streams = np.zeros(len(self._latched), np.bool_)
            streams[list(latch.streams)] = True
            if led and alarm.leading_bet >= self._split:
                shift, rate = self._departed(latch.leading, alarm.leading_bet)
                self._null.go_back(Null(self._target, self._memory).snapshot(), streams)
            else:
                shift, rate = self._changed_at(latch.leading)
                if self._block:
                    self._null.go_back(self._history.null_before(max(self._story.first - 2, 0)), streams)
            self._faults.append(Fault(latch.key, latch.streams, latch.leading, shift, rate, not led))
            self._latched |= streams
        self._forget_recent()
        self._last_alarm = self._block

    def _changed_at(self, leading: int) -> tuple[float, float]:
        """Tell the story of an alarm of the change family. Shift and rate of the fault."""
        v = max(float(self._noise.v[-1, leading]), 1.0)
        split = best_split(self._history.path(leading, self._block), v)
        began = self._runs.since(leading, split.shift) if split.most >= LAG else None
        self._story = story_of(self._history, split, self._block, began)
        return split.shift, self._rate(leading)

    def _departed(self, leading: int, bet: int) -> tuple[float, float]:
        """Tell the story of an alarm of the target family: the last blocks say how far it is, its CUSUM since when.
        The shift is in residuals against the target, to which the null goes back."""
        of_stream = np.flatnonzero(self._target_bets.stream == leading)
        place = int(np.searchsorted(self._target_bets.sums, leading)) if leading < self._target.sums else None
        times = self._departure.since(bet - self._split, of_stream, place)
        first = max(self._block - LAG, self._history.oldest(self._block), 0)
        self._story = Story(first, self._block, *times)
        if leading >= self._target.sums:
            return 0.0, self._rate(leading)
        distance = self._history.mean(leading, first, self._block) - float(self._target.mean[leading])
        error = math.sqrt(1 / BLOCK + 1 / self._target.effective)
        return distance / float(self._target.spread[leading]) / error, 0.0

    def _rate(self, leading: int) -> float:
        """Events a counted stream has counted per event in the blocks of the story."""
        if leading < self._target.sums:
            return 0.0
        blocks = max(self._story.end - self._story.first, 1)
        return self._history.count(leading, self._story.first, self._story.end) / blocks / BLOCK

    def _recovered(self, keys: set[str]) -> None:
        for fault in self._faults:
            if fault.key in keys:
                self._latched[list(fault.streams)] = False
                self._departure.restart(np.isin(self._target_bets.stream, fault.streams))
                self._runs.restart(np.isin(np.arange(len(self._latched)), fault.streams))
        self._faults = [f for f in self._faults if f.key not in keys]
        self._forget_recent()
        self._noise.drop_open_windows()
        self._noise_changed = True

    def _forget_recent(self) -> None:
        """What led to an alarm or a recovery is learnt neither as noise nor as normal."""
        self._history.first = self._block
        self._totals = no_totals(self._target)
        self._null.drop_waiting()
        self._odds = None
        self._changed = True

    def _gain(self, fault: Fault, residual: F64, counts: F64) -> float:
        v = max(float(self._noise.v[_RECOVERY_LEVEL, fault.leading]), 1.0)
        j = fault.leading - self._target.sums
        if j < 0:
            return gain_of_sum(min(max(float(residual[fault.leading]), -MAX_Z), MAX_Z), fault.shift) / v
        null = float((self._null.k[j] + 0.2) / self._null.b[j])
        return gain_of_count(float(counts[j]), fault.rate, null) / v

    def _recovery(self, row: int, start: int) -> Evidence:
        """Evidence for the recovery of every latch over the group, as one block."""
        own = [f for f in self._faults if not f.follower]
        log_e = np.array([[f.gain for f in own]])
        for fault in own:
            fault.gain = 0.0
        at = np.array([row], np.int64)
        return Evidence(self.name, log_e, np.zeros(1), at, start + at, "recovery", tuple(f.leading for f in own))

    # --- state -----------------------------------------------------------------------------------------------------

    def _page(self) -> Page:
        faults = json.dumps([asdict(f) for f in self._faults]).encode()
        story = self._story
        numbers = [self._block, self._history.first, self._next_refresh, self._last_alarm, story.first, story.end]
        return {
            **self._null.page(),
            **self._cutter.page(),
            **self._departure.page(),
            **self._runs.page(),
            "numbers": np.array([*numbers, self._totals.blocks], np.int64),
            "season": np.array([self._lived, self._early, *([1.0] if self.calendar is not None else [])]),
            "story": np.array([story.onset, story.earliest, story.latest]),
            "tilt": self._tilt.copy(),
            "thinned": self._thinned.page(),
            "sums": self._totals.sums.copy(),
            "squares": self._totals.squares.copy(),
            "counts": self._totals.counts.copy(),
            "faults": np.frombuffer(faults, np.uint8).copy(),
        }

    def _load(self, page: Page) -> None:
        self._null.load(page)
        self._cutter.load(page)
        block, first, refresh, alarm, onset, end, blocks = (int(x) for x in page["numbers"])
        self._block, self._history.first, self._next_refresh, self._last_alarm = block, first, refresh, alarm
        self._story = Story(onset, end, *(float(x) for x in page["story"]))
        self._departure.load(page)
        self._runs.load(page)
        self._lived, self._early = float(page["season"][0]), bool(page["season"][1] > 0)
        self._thinned.load(page["thinned"])
        self._season = self._swing(self._early)
        self._tilt = page["tilt"].astype(np.float64)
        self._totals = Totals(blocks, *(page[name].astype(np.float64) for name in ("sums", "squares", "counts")))
        for fault in json.loads(page["faults"].tobytes()):
            self._faults.append(Fault(**{**fault, "streams": tuple(fault["streams"])}))
            self._latched[list(fault["streams"])] = True
