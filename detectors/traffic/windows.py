"""Events of one subject summed over windows of event time.

The width follows from the first events: wide enough for about twenty events of a busy subject, one sample of a
metric. A window closes when a later one begins, or when time says so. Late events count in the window that is open:
which partition came first must not decide what is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from detectors.base import F64

WIDTHS = (60.0, 300.0, 900.0, 3_600.0)
"""Seconds."""
EVENTS_A_WINDOW = 20.0
FIRST_EVENTS, FIRST_SAMPLES = 256, 32
"""Events, or samples of a metric, from which the width is learnt."""
MAX_EMPTY = 4_096
"""Windows without an event that are judged one by one; a longer gap is a break in the record."""
STRAYS = 100
"""Events in a row far before the open window after which time is taken to have gone back."""
_OCTAVE = 32
_LOG_LIMIT = 40.0


@dataclass(slots=True)
class Window:
    """Sums of one window. `latency` counts by thirty-second of an octave of milliseconds."""

    start: float
    events: int = 0
    with_status: int = 0
    errors: int = 0
    values: int = 0
    total: float = 0.0
    latency: dict[int, int] = field(default_factory=dict)

    @property
    def latencies(self) -> int:
        """Events with a latency."""
        return sum(self.latency.values())

    def spread(self) -> float:
        """Standard deviation of log2 of the latency, as its upper half shows it."""
        middle, high = self.quantile(0.5), self.quantile(0.9)
        return (high - middle) / 1.28 if middle is not None and high is not None else 1.0

    def quantile(self, q: float) -> float | None:
        """Quantile of log2 of the latency, None with fewer than five."""
        n = self.latencies
        if n < 5:
            return None
        left = q * n
        for bucket in sorted(self.latency):
            left -= self.latency[bucket]
            if left <= 0:
                break
        return (bucket + 0.5) / _OCTAVE


@dataclass(frozen=True, slots=True)
class Happened:
    """Columns of events in order: epoch seconds; 1 error, 0 none; latency (ms); value; NaN for none."""

    time: F64
    error: F64
    latency: F64
    value: F64

    def part(self, begin: int, end: int) -> Happened:
        """Rows `begin` to `end`."""
        return Happened(self.time[begin:end], self.error[begin:end], self.latency[begin:end], self.value[begin:end])

    def __len__(self) -> int:
        return len(self.time)


class Windows:
    """The open window of one subject, and how wide windows are."""

    def __init__(self, metric: bool) -> None:
        self._metric = metric
        self.width = 0.0
        """Seconds; 0 until it is known."""
        self._open: Window | None = None
        self._first: list[tuple[float, float, float, float]] = []
        self._strays = 0

    def add(self, events: Happened) -> Iterator[Window]:
        """Count events; yields the windows that they close, empty ones included."""
        if not self.width:
            need = (FIRST_SAMPLES if self._metric else FIRST_EVENTS) - len(self._first)
            columns = (events.time, events.error, events.latency, events.value)
            self._first += list(zip(*(c[:need].tolist() for c in columns), strict=True))
            if len(events) < need:
                return
            self.width = self._learn_width()
            first, self._first = np.array(self._first), []
            yield from self._count(Happened(*first.T))
            events = events.part(need, len(events))
        yield from self._count(events)

    def close_until(self, now: float) -> Iterator[Window]:
        """Close windows that ended half a width and more before `now`."""
        window = self._open
        if window is not None and window.start + 1.5 * self.width <= now <= window.start + MAX_EMPTY * self.width:
            yield from self._move(math.floor((now - 0.5 * self.width) / self.width) * self.width)

    def state(self) -> dict[str, Any]:
        """All of it, for JSON."""
        window = None if self._open is None else asdict(self._open) | {"latency": sorted(self._open.latency.items())}
        return {"width": self.width, "open": window, "first": self._first, "strays": self._strays}

    def load(self, state: dict[str, Any]) -> None:
        """Take what `state` gave."""
        self.width, self._strays = float(state["width"]), int(state["strays"])
        self._first = [(a, b, c, d) for a, b, c, d in state["first"]]
        window = state["open"]
        self._open = None if window is None else Window(**{**window, "latency": dict(window["latency"])})

    def _learn_width(self) -> float:
        times = np.sort(np.array([row[0] for row in self._first]))
        if self._metric:
            gaps = np.diff(times)
            gaps = gaps[gaps > 0]
            return max(float(round(float(np.median(gaps)))) if len(gaps) else 0.0, WIDTHS[0])
        gap = float(times[-1] - times[0]) / (len(times) - 1)
        return next((w for w in WIDTHS if w >= EVENTS_A_WINDOW * gap), WIDTHS[-1])

    def _count(self, events: Happened) -> Iterator[Window]:
        if not len(events):
            return
        starts = np.floor(events.time / self.width) * self.width
        cuts = [0, *(np.flatnonzero(np.diff(starts)) + 1).tolist(), len(starts)]
        for begin, end in pairwise(cuts):
            start = float(starts[begin])
            if self._open is None:
                self._open = Window(start)
            elif start > self._open.start:
                self._strays = 0
                yield from self._move(start)
            elif start < self._open.start - MAX_EMPTY * self.width:
                self._strays += end - begin
                if self._strays > STRAYS:
                    self._open, self._strays = Window(start), 0
            assert self._open is not None
            _add(self._open, events.part(begin, end))

    def _move(self, start: float) -> Iterator[Window]:
        """Close the open window and the empty ones before `start`. A jump that is too far closes nothing."""
        window = self._open
        assert window is not None
        steps = round((start - window.start) / self.width)
        self._open = Window(start)
        if steps > MAX_EMPTY:
            return
        yield window
        for k in range(1, steps):
            yield Window(window.start + k * self.width)


def _add(window: Window, events: Happened) -> None:
    window.events += len(events)
    window.with_status += int((events.error >= 0).sum())
    window.errors += int((events.error > 0).sum())
    ok = np.isfinite(events.latency) & (events.latency >= 0)
    if ok.any():
        logs = np.clip(np.log2(np.maximum(events.latency[ok], 1e-3)), -_LOG_LIMIT, _LOG_LIMIT)
        buckets, counts = np.unique(np.floor(logs * _OCTAVE).astype(np.int64), return_counts=True)
        for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
            window.latency[bucket] = window.latency.get(bucket, 0) + count
    for value in events.value[np.isfinite(events.value)].tolist():
        window.values += 1
        window.total += max(min(value, 1e100), -1e100)
