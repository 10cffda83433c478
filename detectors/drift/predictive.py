"""Detector `predictive_drift`: every watched column against target and live traffic so far, in blocks of 25 events.

Four blocks share one null, later eight while nothing is wrong; it takes them in when all are complete, so results
depend on event numbers only, not on how events were cut into batches. After an alarm the null of the latched streams
goes back to before the onset and nothing is learnt while the incident is fresh. A second family of bets holds the same
blocks against the target alone: it finds what the first one forgets, slow drift and gaps between the target and live
traffic.
"""

from __future__ import annotations

import json
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
from detectors.drift.bets import ChangeBets, Line, Odds, Prices, joined, log_e_values
from detectors.drift.blocks import BlockCutter, Totals, no_totals
from detectors.drift.calendar import allowance, calendar
from detectors.drift.departure import LEAST_BLOCKS, Departure
from detectors.drift.design_effect import FLOOR_BLOCKS, DesignEffect
from detectors.drift.explain import explain_blocks
from detectors.drift.history import GROUP, History
from detectors.drift.null import Null, memory_of
from detectors.drift.onset import LAG, Story, best_split, departed, rate_of, story_of
from detectors.drift.params import Params
from detectors.drift.recovery import Fault, gain_of
from detectors.drift.runs import Runs
from detectors.drift.scores import BLOCK
from detectors.drift.season import rate_tilt, slipping_swing
from detectors.drift.seen import Seen
from detectors.drift.smallest import Sensitivity, Stakes, sensitivity
from detectors.drift.stored import check_pages
from detectors.drift.target import target
from detectors.drift.target_bets import SHARE, TARGET_LEAK, TargetBets
from detectors.drift.thinned import Thinned
from detectors.drift.variability import Variability, independent, variability
from detectors.drift.warm import learn_ordered
from detectors.performance.expected_accuracy import expected_accuracy

_LEARNT_AT_ONCE = 8
_COMPARED_AT_ONCE = 16
_REFRESH, _LATE_REFRESH, _MUCH_KNOWN = 16, 64, 1_280
_RECOVERY_LEVEL = 3
_YOUNG = 40
"""Blocks up to which columns that are not latched are learnt during an incident too: their null knows little else."""
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
    share = 0.8
    Params = Params

    def __init__(self, context: Context, params: Any) -> None:
        super().__init__(context, params)
        self._target = target(context)
        self._bets = ChangeBets(self._target)
        self.calendar = calendar(context, self._target, params.season_swing)
        allowed = allowance(self.calendar, params.season_swing, self._target)
        self._target_bets = TargetBets(self._target, allowed.gap, allowed.later)
        self._split = len(self._bets.weight)
        self._memory = params.memory or memory_of(context.events_per_day)
        self._swings = [slipping_swing(x, self._memory, context.events_per_day) for x in (allowed.later, allowed.start)]
        self._allowed = (allowed.later, allowed.start)
        self._calm: tuple[float, float] | None = None
        """Alarms a day, and the smallest shift that they would find were events independent."""
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
        self._absorbed = self._age = 0
        """Block at which the null last took something in, and how many events ago that was at the last refresh."""
        self._tilt: F64 = np.ones(self._target.counts)
        self._early = True
        self._season = self._swings[self._early]
        self._faults: list[Fault] = []
        self._latched: Bool = np.zeros(streams, np.bool_)
        self._totals, self._since = no_totals(self._target), no_totals(self._target)
        """What the group sums up to so far, and what the groups since the last comparison do."""
        self._prices: tuple[Prices, Line] | None = None
        self._odds: Odds | None = None
        self._seen: Seen | None = None
        """The blocks of the batch at hand, `_done` of which were judged; evidence was given up to `_end`."""
        self._done = self._end = 0
        self._story = Story(0, 1, 0.0, 0.0, 0.0)
        self._changed = False
        self._noise_changed = True

    def streams(self) -> Sequence[Stream]:
        return self._target.streams

    def bets(self) -> Bets:
        change, gap = self._bets, self._target_bets
        leak = np.concatenate([change.leak, np.full(len(gap.weight), TARGET_LEAK)])
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
        self._seen, self._done = Seen(blocks, self._target, self._target_bets), 0
        while self._done < len(blocks):
            if self._block % GROUP == 0:
                self._open_group()
            step = self._step()
            self._end = min(self._done + step - self._block % step, len(blocks))
            yield self._judge(self._seen, batch.start)
            self._settle(self._end - self._done)
            if self._block % self._step() == 0:
                if any(not f.follower for f in self._faults):
                    yield self._recovery(int(blocks.row[self._done - 1]), batch.start)
                self._close_group(self._seen)
        self._keep()
        self._seen = None

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
        return explain_blocks(self.name, self._target, self._history, streams, self._story, accuracy, self.calendar)

    def sensitivity(self, alarms_a_day: float) -> Sensitivity:
        """What can be found at a budget of `alarms_a_day` for this detector, with the noise as it stands."""
        if not self._block:
            self._noise.refresh(0, BLOCK * self._null.k / self._null.b)  # as the first block will
        return sensitivity(self._stakes(alarms_a_day), self._assumed)

    def variability(self, alarms_a_day: float) -> Variability | None:
        """Whether traffic varies too much for what should page; None before the first block, and without a mean. It
        changes nothing."""
        if not self._block:
            return None
        stakes, usual = self._stakes(alarms_a_day), self._departure.usual
        if self._calm is None or self._calm[0] != alarms_a_day:
            self._calm = alarms_a_day, independent(stakes)
        strayed: F64 = np.zeros(len(self._latched))
        strayed[self._target_bets.sums] = 0.0 if usual is None else usual
        return variability(stakes, self._calm[1], self._swing(early=False), not self._assumed, strayed)

    @property
    def events(self) -> int:
        """Events judged so far, in whole blocks."""
        return self._block * BLOCK

    @property
    def _assumed(self) -> int:
        """Events until the noise is no longer a stated floor."""
        return max(0, FLOOR_BLOCKS - self._block - self._noise.warmed) * BLOCK

    def _stakes(self, alarms_a_day: float) -> Stakes:
        paid = np.full(len(self._latched), alarms_a_day * (1 - SHARE) * BLOCK / self.context.events_per_day)
        return Stakes(self._target, self._bets, self._memory, self._noise, self._season, paid)

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
            self._age = BLOCK * (self._block - self._absorbed) if self._faults else 0
            self._early, self._season = not known, self._swing(not known)
            self._tilt = rate_tilt(self._null, self._season[self._target.sums :])
            self._doubt_order()
            self._noise.refresh(self._block, BLOCK * self._null.k / self._null.b)
            early = self._noise.warmed and self._block < _REFRESH  # doubts come before bets do
            late = _LATE_REFRESH if self._block < _MUCH_KNOWN else 2 * _LATE_REFRESH
            step = GROUP if early else _REFRESH if self._block < 2 * FLOOR_BLOCKS or self._faults else late
            self._next_refresh = self._block + step
            self._departure.settle(known and self._block >= LEAST_BLOCKS)
            self._prices = self._odds = None
            self._noise_changed = True
        for ahead in range(0, self._step() - self._block % self._step(), GROUP):
            self._history.open_group(self._block + ahead, self._null)

    def _step(self) -> int:
        """Blocks that share one null: twice as many when it changes little by a group and nothing waits for one."""
        return 2 * GROUP if self._block > 2 * FLOOR_BLOCKS and not self._faults else GROUP

    def _swing(self, early: bool) -> F64:
        """The season that is allowed for. While an incident keeps the null as it was, the season goes on without it."""
        if self._thinned.allowed == 1 and not self._age:
            return self._swings[early]
        whole = self._allowed[early or self._age > 0]
        return slipping_swing(whole, self._memory + self._age, self.context.events_per_day / self._thinned.allowed)

    def _doubt_order(self) -> None:
        """Forget what the order of the reference taught where live traffic turns out to be far denser: rows drawn
        from a month lie hours apart, and cannot show how neighbours resemble each other."""
        if self._noise.warmed and 0 < self._block <= FLOOR_BLOCKS and self._lived > 0:
            live = self._block * BLOCK / self._lived * 86_400
            if live > _DENSER * self.context.events_per_day:
                self._noise = DesignEffect(self._target, self.params.start_floor)

    def _judge(self, seen: Seen, start: int) -> Evidence:
        if self._odds is None:
            self._odds = self._bets.odds(self._null, self._priced()[0])
        at = slice(self._done, self._end)
        self._bets.look(self._odds, seen.level[at], seen.counts[at], seen.z[at], seen.residual[at])
        log_e, row = log_e_values(self._odds.line, seen.x[at]), seen.blocks.row[at]
        return Evidence(self.name, log_e, seen.blocks.elapsed[at], row, start + row)

    def _priced(self) -> tuple[Prices, Line]:
        """Prices of all bets, and the line of those against the target alone."""
        if self._prices is None:
            against_target = self._target_bets.line(self._noise, self._departure.usual)
            prices = self._bets.prices(self._noise, self._season[: self._target.sums], self._tilt)
            self._prices = (prices._replace(line=joined(prices.line, against_target)), against_target)
        return self._prices

    def _settle(self, consumed: int) -> None:
        """Keep the first `consumed` blocks of those last judged; nothing when that was done already."""
        seen, done = self._seen, self._done
        if seen is None or done == self._end:
            return
        self._done = self._end = done + consumed
        seen.add_to(self._totals, done, self._done)
        for i, elapsed in enumerate(seen.blocks.elapsed[done : self._done].tolist(), done):
            self._lived += elapsed
            for fault in self._faults:
                v = float(self._noise.v[_RECOVERY_LEVEL, fault.leading])
                fault.gain += gain_of(fault, self._null, v, seen.residual[i], seen.counts[i])
        self._block += consumed

    def _keep(self) -> None:
        """Put all blocks that were judged into the history."""
        if self._seen is not None:
            self._seen.keep(self._history, self._done, self._block)

    def _close_group(self, seen: Seen) -> None:
        """Take the group into the null, and what is old enough into the design effect, unless an incident is fresh."""
        totals, self._totals = self._totals, no_totals(self._target)
        fresh = bool(self._faults) and self._block - self._last_alarm < self._memory / BLOCK and self._block > _YOUNG
        self._since.add(totals)
        if self._block % _COMPARED_AT_ONCE == 0 and self._since.blocks:
            self._compare(seen, self._since, fresh)
            self._since = no_totals(self._target)
        if totals.blocks and not fresh:
            self._null.absorb(totals.blocks, totals.sums, totals.squares, totals.counts, ~self._latched)
            self._absorbed = self._block
        self._odds = None
        first, old = self._history.first, self._oldest_young()
        if old > first and (self._block % _LEARNT_AT_ONCE == 0 or self._block < _REFRESH):
            if not fresh:
                if seen.waiting(self._done) > self._block - old:
                    self._keep()
                self._noise.learn(self._history.residuals(first, old), self._latched)
                self._noise_changed = True
            self._history.first = old

    def _oldest_young(self) -> int:
        """Blocks before this one are old enough to be noise, as of the last whole group."""
        whole = self._block // GROUP * GROUP
        return whole - min(LAG, max(8, whole // 4))

    def _compare(self, seen: Seen, totals: Totals, fresh: bool) -> None:
        """Hold some groups against null and target: since when they depart, and by how much they usually do."""
        bets, n = self._target_bets, totals.blocks
        opened, residual = seen.last(n, self._history, self._done, self._block)
        self._runs.follow(residual, n, opened)
        self._departure.follow(bets.joint(self._priced()[1], n, totals.sums, totals.counts), opened)
        if not fresh:
            self._departure.learn(n, bets.departure(totals.sums / n), ~self._latched[bets.sums], opened)

    # --- alarms and recoveries -------------------------------------------------------------------------------------

    def _alarmed(self, latches: Sequence[Latch], alarm: Alarm, led: bool) -> None:
        self._keep()
        for latch in latches:
            streams = np.zeros(len(self._latched), np.bool_)
            streams[list(latch.streams)] = True
            if led and alarm.leading_bet >= self._split:
                bet = alarm.leading_bet - self._split
                told = departed(self._target, self._target_bets, self._departure, self._history, bet, self._block)
                self._story, shift, rate = told
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
        split = best_split(self._history.path(leading, max(self._history.first, self._oldest_young()), self._block), v)
        began = self._runs.since(leading, split.shift) if split.most >= LAG else None
        self._story = story_of(self._history, split, self._block, began)
        rate = rate_of(self._history, leading, self._story) if leading >= self._target.sums else 0.0
        return split.shift, rate

    def _recovered(self, keys: set[str]) -> None:
        for fault in self._faults:
            if fault.key in keys:
                if fault.follower:  # nobody has looked whether it is back at the hour of the alarm
                    own = np.isin(np.arange(len(self._latched)), fault.streams)
                    self._null.go_back(Null(self._target, self._memory).snapshot(), own)
                self._departure.restart(np.isin(self._target_bets.stream, fault.streams))
                self._runs.restart(np.isin(np.arange(len(self._latched)), fault.streams))
        self._faults = [f for f in self._faults if f.key not in keys]
        self._latched[:] = False
        for fault in self._faults:
            self._latched[list(fault.streams)] = True
        self._forget_recent()
        self._noise.drop_open_windows()
        self._noise_changed = True

    def _forget_recent(self) -> None:
        """What led to an alarm or a recovery is learnt neither as noise nor as normal."""
        self._history.first = self._block
        self._totals, self._since = no_totals(self._target), no_totals(self._target)
        self._null.drop_waiting()
        self._odds = None
        self._changed = True

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
        numbers += [self._absorbed, self._age]
        return {
            **self._null.page(),
            **self._cutter.page(),
            **self._departure.page(),
            **self._runs.page(),
            "numbers": np.array([*numbers, self._totals.blocks, self._since.blocks], np.int64),
            "season": np.array([self._lived, self._early, *([1.0] if self.calendar is not None else [])]),
            "story": np.array([story.onset, story.earliest, story.latest]),
            "tilt": self._tilt.copy(),
            "thinned": self._thinned.page(),
            "sums": self._totals.sums.copy(),
            "squares": self._totals.squares.copy(),
            "counts": self._totals.counts.copy(),
            "since_sums": self._since.sums.copy(),
            "since_counts": self._since.counts.copy(),
            "faults": np.frombuffer(faults, np.uint8).copy(),
        }

    def _load(self, page: Page) -> None:
        self._null.load(page)
        self._cutter.load(page)
        block, first, refresh, alarm, onset, end, absorbed, age, blocks, since = (int(x) for x in page["numbers"])
        self._absorbed, self._age = absorbed, age
        self._block, self._history.first, self._next_refresh, self._last_alarm = block, first, refresh, alarm
        self._story = Story(onset, end, *(float(x) for x in page["story"]))
        self._departure.load(page)
        self._runs.load(page)
        self._lived, self._early = float(page["season"][0]), bool(page["season"][1] > 0)
        self._thinned.load(page["thinned"])
        self._season = self._swing(self._early)
        self._tilt = page["tilt"].astype(np.float64)
        self._totals = Totals(blocks, *(page[name].astype(np.float64) for name in ("sums", "squares", "counts")))
        self._since = no_totals(self._target)
        self._since.blocks = since
        self._since.sums[:], self._since.counts[:] = page["since_sums"], page["since_counts"]
        for fault in json.loads(page["faults"].tobytes()):
            self._faults.append(Fault(**{**fault, "streams": tuple(fault["streams"])}))
            self._latched[list(fault["streams"])] = True
