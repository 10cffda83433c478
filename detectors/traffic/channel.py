"""One watched quantity of a series of windows: its history, its baseline, and whether it is normal now.

The baseline is learnt from the first windows and fitted again as more arrive. While the channel is latched by an
alarm nothing is learnt. It opens again when the level has been normal for a while. What an alarm told of, from its
onset to its end, is not what later windows are measured against: the next of the kind is as unusual. Only a series with
such episodes often has them in its history, so that it does not raise the same alarm for ever. A level that stays for
three days is the new normal, and is learnt from the beginning.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from detectors.account import RECOVERED
from detectors.base import F64, Bool, Page, StateError
from detectors.traffic.baseline import BETS, DAY, MIN_WINDOWS, STEPS, Baseline, fit
from detectors.traffic.shares import Usual, errors_of

HISTORY = 2_048
"""Windows a baseline is fitted to."""
CHUNK = 128
"""Windows in one page of the history; the baseline is fitted again whenever one is full."""
RECENT = 64
"""Windows an onset is looked for in."""
_NORMAL = 10
"""Windows in a row at the normal level before the latch may open."""
_SMALLEST, _LARGEST = 0.75, 3.0
"""Of the shift whose end is tested."""
_NEW_NORMAL = 3 * DAY
_SELDOM, _OF_LATE = 3, 30 * DAY
"""Episodes in so many seconds that are unusual; with more of them, they are what is usual for the series."""
_AFTERMATH = 3 * DAY
"""What is left of an episode, or comes again within so many seconds, is the same that was told already."""
_PROOF = 20.0
"""Evidence after an alarm that it told of an episode, not of chance, which belongs to the history."""
_CHUNKS = HISTORY // CHUNK + 1


@dataclass(slots=True)
class Judged:
    """A window that was judged: score, value seen and value expected in transformed units, events behind the value."""

    time: float
    score: float
    value: float
    expected: float
    events: int


@dataclass(slots=True)
class _Now:
    """The small part of the state."""

    learnt: int = 0
    fitted: int = 0
    """Learnt windows that the baseline was fitted to, in all."""
    previous: float = math.nan
    """Deviation of the last window from its season, NaN when there was none."""
    previous_time: float = 0.0
    latched_at: float = 0.0
    latched: int = 0
    """Windows since the latch that carried events; -1 when not latched."""
    normal: int = 0
    """Windows in a row at the normal level."""
    shift: float = 0.0
    """Mean score of the change that latched it, with its sign."""
    gain: float = 0.0
    """Mirrored CUSUM: evidence that the change is over."""
    errors: float = 0.0
    requests: float = 0.0
    """Learnt, of a share."""
    onset: float = 0.0
    """Of the change that latched it."""
    episodes: list[float] = field(default_factory=list)
    """Times at which a latch opened, of late."""
    since: list[float] = field(default_factory=list)
    """Log capital of the bets in the direction of the change, from the latch on."""
    sure: bool = False
    """Whether what came after the alarm proves the change by itself."""


class Channel:
    """`floor` is the smallest change of interest, in transformed units; `share` says that values are shares of errors.

    No score exceeds the deviation in units of `noise`, the standard error that sampling alone gives a window: in a
    series that is steadier than chance the rarest value may still be the next one, and be worth no alarm. For the same
    reason no share scores higher than chance makes it at the usual share.
    """

    def __init__(self, name: str, floor: float, share: bool = False) -> None:
        self.name = name
        self.floor = floor
        self.share = share
        self.width = 0.0
        self.baseline: Baseline | None = None
        self.recent: list[Judged] = []
        self._now = _Now(latched=-1)
        self._time: F64 = np.zeros(_CHUNKS * CHUNK)
        self._values: F64 = np.zeros(_CHUNKS * CHUNK)
        self._unusual: Bool = np.zeros(_CHUNKS * CHUNK, np.bool_)
        """Learnt windows that belong to an episode: a baseline is fitted to the others."""
        self._dirty: set[int] = set()

    @property
    def latched(self) -> bool:
        """Whether an alarm holds it."""
        return self._now.latched >= 0

    @property
    def usual(self) -> Usual:
        """Errors and requests learnt, where values are shares."""
        return Usual(self._now.errors, self._now.requests)

    def step(self, time: float, value: float | None, events: int, noise: float | None) -> F64:
        """Judge the next window, a value made of `events`; without `noise` it is the log of a count.

        Returns log e-values (bets,): zeros where nothing can be said.
        """
        now = self._now
        silent: F64 = np.zeros(len(BETS))
        if value is None:
            return silent
        if self.baseline is None:
            return silent
        expected = self.baseline.expected(time)
        deviation = value - expected
        if time - now.previous_time < 1.5 * self.width and math.isfinite(now.previous):
            predicted = expected + self.baseline.phi * now.previous
            innovation = value - predicted
        else:
            predicted, innovation = expected, deviation * math.sqrt(1 - self.baseline.phi**2)
        now.previous, now.previous_time = deviation, time
        most = abs(innovation) / (max(math.exp(-max(expected, 0.0) / 2), self.floor) if noise is None else noise)
        highest = min(most, self.usual.most(errors_of(value, events), events)) if self.share else most
        score = min(max(self.baseline.score(innovation), -most), highest)
        self.recent.append(Judged(time, score, value, expected, events))
        del self.recent[:-RECENT]
        if self.latched:
            low, high = self.baseline.level
            now.normal = now.normal + 1 if low <= deviation <= high else 0
            now.latched += events > 0
            now.gain = max(0.0, now.gain + now.shift * (now.shift / 2 - score))
            self._prove(score)
            return silent
        return self.baseline.log_e(score)

    def _prove(self, score: float) -> None:
        """An alarm by chance is seldom followed by further evidence: at most one in `_PROOF` alarms."""
        now = self._now
        assert self.baseline is not None
        log_e = self.baseline.log_e(score).reshape(2, -1)[0 if now.shift > 0 else 1]
        now.since = [a + b for a, b in zip(now.since, log_e.tolist(), strict=True)]
        capital = sum(math.exp(min(x, 50.0)) for x in now.since) / len(now.since)
        now.sure = now.sure or capital >= _PROOF

    def settle(self, time: float, value: float | None, events: int) -> None:
        """After the verdict: learn the window, unless an alarm holds the channel."""
        if value is None or self.latched:
            return
        self._learn(time, value, events)
        learnt = self._now.learnt
        if learnt == MIN_WINDOWS or (learnt > MIN_WINDOWS and learnt % CHUNK == 0):
            self._fit()

    def ready(self, time: float) -> bool:
        """Whether the latch may open: the level is normal again, or has become the new normal."""
        return self.latched and (self._recovered() or self._stays(time))

    def _recovered(self) -> bool:
        return self._now.normal >= _NORMAL and self._now.gain >= RECOVERED

    def open(self, time: float) -> None:
        """Open the latch, and learn anew where the level is a new one."""
        if not self._recovered():
            self._forget()
        else:
            self._learn_episode(time)
            self._fit()
            self.recent.clear()
        self._now.latched = -1

    def _learn_episode(self, time: float) -> None:
        """Learn what came since the alarm, and mark the episode where such are seldom."""
        now = self._now
        since = [j for j in self.recent if j.time >= now.latched_at]
        end = self._end(since)
        if now.sure:
            now.episodes = [*(t for t in now.episodes[-_SELDOM:] if t > time - _OF_LATE), time]
        seldom = len(now.episodes) <= _SELDOM
        if now.sure and seldom:
            self._mark((self._time >= now.onset) & (self._time < now.latched_at), True)
        elif not seldom:
            self._mark(self._unusual, False)
        for judged in since:
            self._learn(judged.time, judged.value, judged.events, now.sure and seldom and judged.time < end)

    def _mark(self, windows: Bool, unusual: bool) -> None:
        at = np.flatnonzero(windows)
        self._unusual[at] = unusual
        self._dirty |= set((at // CHUNK).tolist())

    def _end(self, since: list[Judged]) -> float:
        """Time of the first window after the likeliest end of the change: after it the level is normal throughout."""
        now = self._now
        gains = np.cumsum([now.shift * (now.shift / 2 - j.score) for j in reversed(since)])
        over = min(int(np.argmax(gains)) + 1, now.normal, len(since))
        return since[len(since) - over].time

    def _learn(self, time: float, value: float, events: int, unusual: bool = False) -> None:
        at = self._now.learnt % len(self._time)
        self._time[at], self._values[at], self._unusual[at] = time, value, unusual
        self._dirty.add(at // CHUNK)
        self._now.learnt += 1
        if self.share and not unusual:
            usual = self.usual
            usual.learn(errors_of(value, events), events, HISTORY)
            self._now.errors, self._now.requests = usual.errors, usual.requests

    def _stays(self, time: float) -> bool:
        return time - self._now.latched_at >= _NEW_NORMAL and self._now.latched >= MIN_WINDOWS

    def latch(self, time: float, upward: bool) -> None:
        """An alarm names it at the window that begins at `time`."""
        now = self._now
        now.latched, now.latched_at, now.normal, now.gain = 0, time, 0, 0.0
        now.since, now.sure = [0.0] * len(STEPS), False
        story = self.story(upward) if self.recent else []
        now.onset = story[0].time if story else time
        strength = abs(float(np.mean([j.score for j in story]))) if story else 0.0
        now.shift = min(max(strength, _SMALLEST), _LARGEST) * (1.0 if upward else -1.0)

    def story(self, upward: bool) -> list[Judged]:
        """The recent windows since the likeliest onset of a change in this direction."""
        sign = 1.0 if upward else -1.0
        gains = np.array([sign * j.score - 1.0 for j in self.recent])
        total = np.cumsum(gains[::-1])
        return self.recent[len(self.recent) - 1 - int(np.argmax(total)) :]

    # --- state -----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The small part, for JSON."""
        return {"now": asdict(self._now), "recent": [asdict(j) for j in self.recent]}

    def dirty(self) -> dict[str, Page]:
        """Pages of the history changed since the last call."""
        pages = {}
        for chunk in sorted(self._dirty):
            rows = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
            columns = {"time": self._time, "values": self._values, "unusual": self._unusual}
            pages[f"{self.name}.{chunk}"] = {name: column[rows].copy() for name, column in columns.items()}
        self._dirty.clear()
        return pages

    def load(self, state: dict[str, Any], pages: dict[str, Page], width: float) -> None:
        """Take what `state` and `dirty` gave, and fit the baseline that was in force."""
        self._now = _Now(**state["now"])
        self.recent = [Judged(**j) for j in state["recent"]]
        self.width = width
        for name, page in pages.items():
            channel, _, chunk = name.rpartition(".")
            if channel == self.name:
                rows = slice(int(chunk) * CHUNK, (int(chunk) + 1) * CHUNK)
                if page["time"].shape != (CHUNK,) or page["values"].shape != (CHUNK,) or int(chunk) >= _CHUNKS:
                    raise StateError(f"stored history {name} is not {CHUNK} windows")
                self._time[rows], self._values[rows] = page["time"], page["values"]
                self._unusual[rows] = page["unusual"]
        self.baseline = None
        if self._now.fitted:
            self._refit()

    def _fit(self) -> None:
        self._now.fitted = self._now.learnt
        self._refit()

    def _refit(self) -> None:
        last = np.arange(max(0, self._now.fitted - HISTORY), self._now.fitted) % len(self._time)
        past = self._time[last] < self._time[last[-1]] - _AFTERMATH
        last = last[~(self._unusual[last] & past)]
        self.baseline = fit(self._time[last], self._values[last], self.width, self.floor)

    def _forget(self) -> None:
        self._now = _Now(latched=-1)
        self.baseline = None
        self.recent.clear()
