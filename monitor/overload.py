"""`overload: sample`: when the source falls behind for good, the busiest models are judged by a sample of their events.

The rule, looked at every ten seconds. It begins when what waits would take more than a minute at the present pace, and
at the rate at which it has shrunk for half a minute would not be gone within ten minutes; so a backlog that is being
read is no overload, and neither are brokers that give records too slowly. Then the models that cost most are halved,
and again after another half minute of the same. It ends when for a minute no more than five seconds of work have been
waiting: all rates are doubled. If that proves too early, the next try waits twice as long, an hour at most.

Everything is still read, counted, joined and committed. Nothing here decides by itself what is judged: a rate in force
is part of the recorded trail (`Pipeline.sample`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

import structlog

from monitor import troubles
from monitor.pipeline import Pipeline

log = structlog.get_logger(__name__)
MUCH: Final = 60.0
"""Seconds of work that are worth sampling for, and within how many they should be caught up with."""
CAUGHT_UP_IN: Final = 600.0
LITTLE: Final = 5.0
"""Seconds of work below which the daemon keeps up."""
WINDOW: Final = 30.0
CALM: Final = 60.0
LONGEST_CALM: Final = 3_600.0
TOO_EARLY: Final = 600.0
LONGEST_GAP: Final = 60.0
"""Seconds between two looks after which the earlier ones tell nothing."""
MOST: Final = 16
"""At most: one event in so many is judged."""
_LEAST_LOAD: Final = 0.05
"""Share of all predictions below which a model is quiet, and is never sampled."""


class _Look(NamedTuple):
    at: float
    behind: int
    taken: int
    seen: Mapping[str, int]
    """Predictions of each model so far."""


class Overload:
    """Fed with polls and with the lag now and then; sets the rates of models. Times are of a monotonic clock."""

    def __init__(self, pipeline: Pipeline, enabled: bool) -> None:
        self._pipeline = pipeline
        self._enabled = enabled
        self._taken = self._polls = self._empty = 0
        self._looks: deque[_Look] = deque()
        self._calm_since: float | None = None
        self._needed = CALM
        self._relaxed = float("-inf")

    def begin(self, at: float) -> None:
        """State is loaded: sampling goes on, unless it is switched off. `at` is of the pipeline's clock."""
        sampled = self._sampled()
        if not self._enabled:
            for subject in sampled:
                self._set(subject, 1)
        for cause in self._pipeline.health.causes():
            if cause.startswith(troubles.SAMPLING) and cause.removeprefix(troubles.SAMPLING) not in sampled:
                self._pipeline.health.over(cause, at)

    def polled(self, records: int) -> None:
        """A poll brought so many records."""
        self._taken += records
        self._polls += 1
        self._empty += not records

    def look(self, at: float, behind: int) -> None:
        """So many records wait at the source now."""
        if not self._enabled:
            return
        waits = self._empty > self._polls / 2
        self._polls = self._empty = 0
        if waits or (self._looks and at - self._looks[-1].at > LONGEST_GAP):
            self._looks.clear()
        seen = {subject: watch.predictions for subject, watch in self._pipeline.watches.items()}
        self._looks.append(_Look(at, behind, self._taken, seen))
        while len(self._looks) > 1 and at - self._looks[1].at >= WINDOW - 1.0:
            self._looks.popleft()
        first = self._looks[0]
        pace = (self._taken - first.taken) / (at - first.at) if at > first.at else 0.0
        if waits or not behind or behind <= LITTLE * pace:
            self._calm(at)
            return
        self._calm_since = None
        shrinks = (first.behind - behind) / (at - first.at) if at > first.at else 0.0
        if at - first.at >= WINDOW - 1.0 and behind > MUCH * pace and behind > CAUGHT_UP_IN * shrinks:
            self._tighten(at, behind, pace)

    def _tighten(self, at: float, behind: int, pace: float) -> None:
        """Halve the sample of the busiest models; the next look at this begins now."""
        hot = self._busiest()
        if not hot:
            return
        if at - self._relaxed < TOO_EARLY:
            self._needed = min(2 * self._needed, LONGEST_CALM)
        for subject in hot:
            self._set(subject, 2 * self._pipeline.watches[subject].sampling.one_in)
        log.warning("events come too fast", behind=behind, records_per_second=round(pace), sampled=hot)
        self._looks.clear()

    def _busiest(self) -> list[str]:
        """Models that cost at least half as much as the one that costs most, of those that can be sampled further."""
        first, last, watches = self._looks[0].seen, self._looks[-1].seen, self._pipeline.watches
        seen = {subject: n - first.get(subject, 0) for subject, n in last.items()}
        cost = {
            subject: n / watches[subject].sampling.one_in
            for subject, n in seen.items()
            if n > _LEAST_LOAD * sum(seen.values())
            and watches[subject].panel is not None
            and watches[subject].sampling.one_in < MOST
        }
        return sorted(subject for subject, n in cost.items() if 2 * n >= max(cost.values()))

    def _calm(self, at: float) -> None:
        sampled = self._sampled()
        if not sampled:
            if at - self._relaxed > LONGEST_CALM:
                self._needed = CALM
            return
        self._calm_since = at if self._calm_since is None else self._calm_since
        if at - self._calm_since < self._needed:
            return
        self._calm_since, self._relaxed = at, at
        for subject in sampled:
            self._set(subject, self._pipeline.watches[subject].sampling.one_in // 2)

    def _sampled(self) -> list[str]:
        return sorted(s for s, watch in self._pipeline.watches.items() if watch.sampling.one_in > 1)

    def _set(self, subject: str, one_in: int) -> None:
        self._pipeline.sample(subject, one_in)
        log.warning("a sample is judged" if one_in > 1 else "every event is judged", subject=subject, one_in=one_in)
