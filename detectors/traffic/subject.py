"""The traffic of one subject: request rate, errors and latency, or the values of a metric, in windows.

All quantities of a subject share one account, the traffic budget. Errors alarm upward only, and never more than chance
at their usual share allows. Silence needs no rule of its own where requests are counted: an empty window is a request
rate of zero. A metric is silent when no sample came for far longer than ever before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from detectors.account import SumAccount
from detectors.base import Alarm, Bets, Evidence, Finding, Measure, Page, StateError, Stream, SubjectRef, Verdict
from detectors.traffic.baseline import MIN_WINDOWS, STEPS
from detectors.traffic.channel import Channel, Judged
from detectors.traffic.shares import errors_of, share_value
from detectors.traffic.windows import Happened, Window, Windows

NAME = "traffic"
STATE_VERSION = 3
Role = Literal["requests", "metric"]
Report = Callable[[Finding], str | None]
"""Takes a finding; answers the id of the incident that it opened or fed."""
KINDS = {
    "requests": "traffic_anomaly", "errors": "error_burst", "latency": "latency_anomaly",
    "slowest": "latency_anomaly", "value": "traffic_anomaly",
}  # fmt: skip
_FLOORS = {"requests": 0.05, "errors": 0.05, "latency": 0.05, "slowest": 0.05, "value": 0.1}
_WEIGHTS = np.array([0.2, 0.25, 0.25, 0.3])
"""Of the budget of a channel and direction, by strength of the bet."""
_IDLE = 0.1
"""Leaks keep the capital of a subject without any evidence below this share of an alarm."""
_PAID_A_WINDOW = 0.01
"""Of the budget, at most: a window may be an hour, where a block of a model is 25 events."""
_SILENCE = "silence"
_ENOUGH, _SLOWLY = 10, 0.05
"""Latencies of a window that tell a spread, and the weight of a window in the usual one."""
_UNITS = {"errors": "share", "latency": "ms", "slowest": "ms", "value": "value"}
_NAMES = {"requests": "requests", "errors": "errors", "latency": "latency", "slowest": "slowest tenth"}
_WHAT = {"requests": "rate", "errors": "error", "latency": "median", "slowest": "90 %", "value": "mean"}
_SILENCE_CHANCE = 0.02
"""Part of the traffic budget that a metric's silence may cost."""


@dataclass(frozen=True, slots=True)
class TrafficSettings:
    """`budget` false alarms (> 0) in `per` seconds."""

    budget: float = 1.0
    per: float = 30 * 86_400.0


DEFAULT = TrafficSettings()


@dataclass(slots=True)
class _Metric:
    """What only a metric has: how its values are scaled, and its gaps, counted in windows."""

    first: list[tuple[float, float]] = field(default_factory=list)
    """(start, value) of windows until the scale is learnt."""
    centre: float = 0.0
    scale: float = 0.0
    gap: int = 0
    longest: int = 0
    empty: int = 0
    windows: int = 0
    silent: bool = False

    def scaled(self, value: float) -> float | None:
        """asinh((value − centre)/scale), linear near the middle and logarithmic far out. None while it is learnt."""
        return math.asinh((value - self.centre) / self.scale) if self.scale else None

    def learn(self) -> list[tuple[float, float]]:
        """Centre and scale from the first values, which are returned scaled, with their starts."""
        first, self.first = self.first, []
        values = np.array([value for _, value in first])
        low, self.centre, high = (float(q) for q in np.quantile(values, [0.25, 0.5, 0.75]))
        self.scale = max((high - low) / 1.35, 0.1 * float(values.std()), 1e-3 * abs(self.centre), 1e-9)
        return [(t, math.asinh((v - self.centre) / self.scale)) for t, v in first]


class Traffic:
    """Windows, channels and account of one subject. `who` is named by its incidents."""

    def __init__(self, who: SubjectRef, role: Role, settings: TrafficSettings) -> None:
        self.who = who
        self.role: Role = role
        self.settings = settings
        names = ("value",) if role == "metric" else ("requests", "errors", "latency", "slowest")
        self.events = 0
        """In closed windows."""
        self._windows = Windows(role == "metric")
        self._channels = [Channel(name, _FLOORS[name], name == "errors") for name in names]
        self._ways = tuple(
            (c, upward) for c, name in enumerate(names) for upward in (True, False) if upward or name != "errors"
        )
        """Channel and direction of each stream: errors that become fewer are no alarm."""
        self._streams = tuple(
            Stream(
                f"{names[c]}:{'up' if upward else 'down'}", KINDS[names[c]], "rate",
                ("latency" if names[c] == "slowest" else names[c],),
            )
            for c, upward in self._ways
        )  # fmt: skip
        self._metric = _Metric()
        self._account: SumAccount | None = None
        self._latches: dict[str, str] = {}
        """Latch → id of its incident."""
        self._spread = 0.0
        """Usual standard deviation of log2 of a latency within a window."""
        self._changed = False

    @property
    def capital(self) -> float:
        """Capital of the account: an alarm comes at 1."""
        return self._account.capital if self._account is not None else 0.0

    @property
    def latched(self) -> bool:
        """Whether an alarm is open."""
        return bool(self._latches)

    def add(self, events: Happened, report: Report) -> None:
        """Count events, and judge the windows that they close."""
        if len(events):
            self._changed = True
            self._judge(self._windows.add(events), report)

    def advance(self, now: float, report: Report) -> None:
        """It is `now` (epoch seconds) for this subject, whether or not events came."""
        self._judge(self._windows.close_until(now), report)

    # --- judging ---------------------------------------------------------------------------------------------------

    def _judge(self, closed: Iterable[Window], report: Report) -> None:
        for window in closed:
            self._changed = True
            if self._account is None:
                self._open_account()
            self._window(window, report)

    def _open_account(self) -> None:
        """The account is made when the width of windows is known: leaks depend on it."""
        width = self._windows.width
        account = SumAccount(self.settings.budget, self.settings.per, _PAID_A_WINDOW)
        earned = self.settings.budget * width / self.settings.per
        leak = 1 - min(max(earned / _IDLE, 1e-4), 0.5)
        weight = np.tile(_WEIGHTS, len(self._streams)) / len(self._streams)
        stream = np.repeat(np.arange(len(self._streams)), len(STEPS))
        bets = Bets(stream.astype(np.int64), weight, np.full(len(weight), leak))
        account.register(NAME, self._streams, bets, 1.0)
        self._account = account
        for channel in self._channels:
            channel.width = width

    def _window(self, window: Window, report: Report) -> None:
        values = self._values(window, report)
        self.events += window.events
        noise, behind = self._noise(window), self._behind(window)
        judged = [
            c.step(window.start, v, n, s) for c, v, n, s in zip(self._channels, values, behind, noise, strict=True)
        ]
        bets = len(STEPS)
        log_e = [judged[c][:bets] if upward else judged[c][bets:] for c, upward in self._ways]
        end = window.start + self._windows.width
        at = np.zeros(1, np.int64)
        evidence = Evidence(NAME, np.concatenate(log_e)[None, :], np.array([self._windows.width]), at, at)
        assert self._account is not None
        verdict = self._account.judge(evidence)
        if verdict.alarm is not None:
            self._alarmed(verdict, verdict.alarm, end, report)
        for channel, value, n in zip(self._channels, values, behind, strict=True):
            channel.settle(window.start, value, n)
        self._recover(end, report)

    def _values(self, window: Window, report: Report) -> list[float | None]:
        """The transformed quantities of a window, None where it has none."""
        if self.role == "metric":
            return [self._metric_value(window, report)]
        errors = share_value(window.errors, window.with_status) if window.with_status else None
        return [math.log(window.events + 0.5), errors, window.quantile(0.5), window.quantile(0.9)]

    def _behind(self, window: Window) -> list[int]:
        """Events that each quantity is made of."""
        if self.role == "metric":
            return [window.values]
        return [window.events, window.with_status, window.latencies, window.latencies]

    def _noise(self, window: Window) -> list[float | None]:
        """Standard errors of the quantities by sampling alone, None for a count."""
        if self.role == "metric":
            return [_FLOORS["value"]]
        n, spread = window.latencies, self._spread or 1.0
        if n >= _ENOUGH:
            now = window.spread()
            self._spread = now if not self._spread else self._spread + _SLOWLY * (now - self._spread)
        median, slowest = 1.25 * spread / math.sqrt(max(n, 1)), 2 * spread / math.sqrt(max(n, 1))
        errors = 1 / math.sqrt(window.with_status + 10)
        return [None, errors, max(median, _FLOORS["latency"]), max(slowest, _FLOORS["slowest"])]

    def _metric_value(self, window: Window, report: Report) -> float | None:
        metric = self._metric
        self._gap(window, report)
        if not window.values:
            return None
        value = window.total / window.values
        if metric.scale:
            return metric.scaled(value)
        metric.first.append((window.start, value))
        if len(metric.first) < MIN_WINDOWS:
            return None
        *early, (_, last) = metric.learn()
        for start, scaled in early:
            self._channels[0].settle(start, scaled, 1)
        return last

    def _gap(self, window: Window, report: Report) -> None:
        """A metric without samples for more than three times its longest gap, and longer than chance explains."""
        metric = self._metric
        metric.windows += 1
        if window.values:
            if metric.silent:
                metric.silent = False
                report(self._finding(KINDS["value"], window.start, window.start, (), "recover", _SILENCE, "info", True))
            metric.longest, metric.gap = max(metric.longest, metric.gap), 0
            return
        metric.gap, metric.empty = metric.gap + 1, metric.empty + 1
        if metric.silent or self._channels[0].baseline is None or metric.gap <= 3 * max(metric.longest, 2):
            return
        before = metric.windows - metric.gap
        share = (metric.empty - metric.gap + 1) / (before + 2)
        width = self._windows.width
        allowed = _SILENCE_CHANCE * self.settings.budget * width / self.settings.per
        if metric.gap * math.log(share) > math.log(min(allowed, 0.5)):
            return
        metric.silent = True
        end = window.start + width
        onset = end - metric.gap * width
        measure = Measure(
            NAME, "silence", float(metric.gap), float(metric.longest), "windows without a sample", before, onset, end
        )
        report(self._finding(KINDS["value"], end, onset, (measure,), "open", _SILENCE, "info", True))

    # --- findings --------------------------------------------------------------------------------------------------

    def _alarmed(self, verdict: Verdict, alarm: Alarm, end: float, report: Report) -> None:
        held = {self._ways[s][0] for latch in verdict.latched for s in latch.streams}
        leading = self._ways[alarm.leading][0]
        named = list(dict.fromkeys((leading, *(self._ways[s][0] for s in alarm.streams))))
        stories = {c: self._channels[c].story(self._upward(c, alarm)) for c in named}
        measures = [self._measure(c, stories[c], end) for c in named]
        onset = stories[leading][0].time
        kind = KINDS[self._channels[leading].name]
        ratio = Measure(
            NAME, self._streams[alarm.leading].name, min(alarm.ratio, 1e12), 1.0, "ratio", measures[0].n, onset, end,
            statistic="evidence",
        )  # fmt: skip
        incident = report(self._finding(kind, end, onset, (*measures, ratio), "open", ""))
        for c in sorted(held):
            self._channels[c].latch(end - self._windows.width, self._upward(c, alarm))
        if incident is not None:
            self._latches.update((latch.key, incident) for latch in verdict.latched)

    def _upward(self, channel: int, alarm: Alarm) -> bool:
        leading, upward = self._ways[alarm.leading]
        return upward if leading == channel else any(self._ways[s] == (channel, True) for s in alarm.streams)

    def _recover(self, end: float, report: Report) -> None:
        """Open the latches all of whose channels are ready."""
        assert self._account is not None
        for latch in self._account.latches:
            channels = [self._channels[c] for c in sorted({self._ways[s][0] for s in latch.streams})]
            if not all(c.ready(end) for c in channels):
                continue
            self._account.release(latch.key)
            for channel in channels:
                channel.open(end)
            incident = self._latches.pop(latch.key, None)
            if incident is not None and incident not in self._latches.values():
                kind = KINDS[self._channels[self._ways[latch.leading][0]].name]
                report(self._finding(kind, end, end, (), "recover", incident))

    def _finding(
        self, kind: str, time: float, onset: float, measures: tuple[Measure, ...],
        action: Literal["open", "recover"], cause: str, severity: Literal["info", "warning"] = "warning",
        rule: bool = False,
    ) -> Finding:  # fmt: skip
        return Finding(
            detector=NAME, kind=kind, account="rules" if rule else "traffic", severity=severity, time=time, row=-1,
            position=self.events, subjects=(self.who,), onset=onset, measures=measures, cause=cause, action=action,
        )  # fmt: skip

    def _measure(self, channel: int, story: list[Judged], end: float) -> Measure:
        """What was seen since the onset and what the season says, in units of the quantity."""
        name = self._channels[channel].name
        events = sum(j.events for j in story)
        if name == "errors":
            errors = [errors_of(j.value, j.events) for j in story]
            seen = sum(errors) / max(events, 1)
            expected = self._channels[channel].usual.share_without(sum(errors[:-1]), events - story[-1].events)
        else:
            seen = self._natural(name, float(np.mean([j.value for j in story])))
            expected = self._natural(name, float(np.mean([j.expected for j in story])))
        unit = _UNITS.get(name) or f"a {self._windows.width:.0f} s window"
        return Measure(
            NAME, name, seen, expected, unit, events, story[0].time, end, _NAMES.get(name, self.who.id), _WHAT[name]
        )

    def _natural(self, name: str, value: float) -> float:
        """Back from transformed units."""
        if name == "value":
            return self._metric.centre + self._metric.scale * math.sinh(max(min(value, 500.0), -500.0))
        if name == "requests":
            return max(math.exp(value) - 0.5, 0.0)
        return float(2.0**value)

    # --- state -----------------------------------------------------------------------------------------------------

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        if not self._changed:
            return {}
        self._changed = False
        state = {
            "events": self.events,
            "latches": self._latches,
            "windows": self._windows.state(),
            "metric": asdict(self._metric),
            "spread": self._spread,
            "channels": [c.state() for c in self._channels],
        }
        pages: dict[str, Page] = {"state": {"json": np.frombuffer(json.dumps(state).encode(), np.uint8).copy()}}
        for channel in self._channels:
            pages |= channel.dirty()
        if self._account is not None:
            pages |= {f"account.{name}": page for name, page in self._account.dirty().items()}
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the pages of an equal subject. StateError when they do not fit: use a new one then."""
        if "state" not in pages:
            raise StateError("the state of the traffic is missing")
        try:
            self._load(json.loads(pages["state"]["json"].tobytes()), pages)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise StateError(f"stored traffic cannot be read: {error}") from error

    def _load(self, state: dict[str, Any], pages: Mapping[str, Page]) -> None:
        self.events, self._latches = int(state["events"]), dict(state["latches"])
        self._windows.load(state["windows"])
        self._spread = float(state["spread"])
        metric = state["metric"]
        self._metric = _Metric(**{**metric, "first": [(t, v) for t, v in metric["first"]]})
        history = {n: p for n, p in pages.items() if n != "state" and not n.startswith("account.")}
        for channel, small in zip(self._channels, state["channels"], strict=True):
            channel.load(small, history, self._windows.width)
        account = {n.removeprefix("account."): p for n, p in pages.items() if n.startswith("account.")}
        if account:
            self._open_account()
            assert self._account is not None
            self._account.restore(account)
            if {latch.key for latch in self._account.latches} != self._latches.keys():
                raise StateError("stored latches and the incidents they belong to do not agree")
