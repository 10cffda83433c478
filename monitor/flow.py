"""Whether data comes, and whether the daemon keeps up with it: incidents about silent topics and about a growing lag.

A topic is silent when nothing came for three times its longest gap so far, and at least 15 minutes. That holds once
the topic has been watched for a day, so that a usual night is known; the gap that ends an incident is known from then
on too, so a first quiet weekend is told once. Lag is told when it is large and has grown for minutes: a daemon that
catches up, or one that is steadily a little behind, is none. Both close by themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from detectors.base import Measure, Page
from monitor.own_health import OwnHealth
from monitor.state.unit import StatePage

SUBJECT = "daemon"
DETECTOR = "daemon.flow"
LEAST_SILENCE = 900.0
TIMES_LONGEST = 3.0
KNOWN_AFTER = 86_400.0
"""Seconds a topic must have been watched before its silence is told."""
GRACE = 120.0
"""Seconds after a start in which nothing is told: there may be a backlog to read."""
MUCH = 10_000
"""Records behind that are worth telling, if they become more."""
GROWS = 300.0
"""Seconds over which the lag must have grown, each minute more than the one before."""
STEP = 60.0
CAUGHT_UP = 1_000
_STORE_EVERY = 300.0
_VERSION = 1


@dataclass(slots=True)
class _Topic:
    received: int | None = None
    last: float = 0.0
    """When data last came, by the loop's clock."""
    longest: float = 0.0
    watched: float = 0.0
    """Seconds in which somebody looked, and those of them before data last came."""
    known: float = 0.0
    lags: deque[tuple[float, int]] = field(default_factory=deque)
    """(time, records behind), a minute apart, the last five minutes."""

    @property
    def bound(self) -> float:
        return max(LEAST_SILENCE, TIMES_LONGEST * self.longest)


class Flow:
    """Fed with what each topic has received at each tick, and with lag now and then."""

    def __init__(self, health: OwnHealth, topics: Iterable[str], at: float) -> None:
        self._health = health
        self._topics = {name: _Topic(last=at) for name in topics}
        self._began = self._ticked = self._stored = at
        self._changed = False
        for cause in health.causes():
            kind, _, name = cause.partition(":")
            if kind in ("silent", "lag") and name not in self._topics:
                health.over(cause, at)

    def restore(self, pages: Iterable[StatePage]) -> None:
        """Take what is known of the topics' gaps."""
        for page in pages:
            if page.detector == DETECTOR and page.page in self._topics and page.version == _VERSION:
                topic = self._topics[page.page]
                topic.last, topic.longest, topic.known = (float(v) for v in page.arrays["gaps"])
                topic.watched = topic.known

    def dirty(self, at: float) -> list[StatePage]:
        """Pages to store: every five minutes, that is often enough."""
        if not self._changed or at - self._stored < _STORE_EVERY:
            return []
        self._stored, self._changed = at, False
        return [StatePage(SUBJECT, DETECTOR, "", name, _VERSION, _page(t)) for name, t in self._topics.items()]

    def own(self, received: Mapping[str, int]) -> None:
        """Reading begins, or goes on with more partitions: what they have received so far is not new."""
        for name, number in received.items():
            if name in self._topics:
                self._topics[name].received = number

    def tick(self, at: float, received: Mapping[str, int]) -> None:
        """Time passes. `received` counts the records of each topic since its first start; of those owned."""
        passed = min(max(0.0, at - self._ticked), STEP)
        self._ticked = at
        for name, topic in self._topics.items():
            topic.watched += passed
            before, topic.received = topic.received, received.get(name)
            if before is not None and topic.received is not None and topic.received > before:
                self._came(name, topic, at)
            elif at - self._began >= GRACE and topic.known >= KNOWN_AFTER and at - topic.last > topic.bound:
                self._silent(name, topic, at)
        self._changed = True

    def lag(self, at: float, behind: Mapping[str, int]) -> None:
        """Records behind the end of the log, by topic, as known now."""
        for name, records in behind.items():
            topic = self._topics.get(name)
            if topic is None:
                continue
            cause = f"lag:{name}"
            if records < CAUGHT_UP:
                topic.lags.clear()
                self._health.over(cause, at)
            if topic.lags and at - topic.lags[-1][0] < STEP - 1.0:
                continue
            topic.lags.append((at, records))
            while at - topic.lags[0][0] > GROWS + STEP:
                topic.lags.popleft()
            if records >= MUCH and _grows(topic.lags) and not self._health.touch(cause, at):
                self._behind(cause, name, topic.lags, at)

    def _came(self, name: str, topic: _Topic, at: float) -> None:
        gap = at - topic.last
        if topic.last >= self._began:  # what came while nobody looked says nothing about gaps
            topic.longest = max(topic.longest, gap)
        topic.last, topic.known = at, topic.watched
        self._health.over(f"silent:{name}", at)

    def _silent(self, name: str, topic: _Topic, at: float) -> None:
        cause = f"silent:{name}"
        if self._health.touch(cause, at):
            return
        minutes, usual = (at - topic.last) / 60, topic.longest / 60
        measure = Measure("flow", name, minutes, usual, "minutes", 0, topic.last, at, statistic="silence")
        self._health.tell(cause, measure, at)

    def _behind(self, cause: str, name: str, lags: deque[tuple[float, int]], at: float) -> None:
        (first, less), (_, more) = lags[0], lags[-1]
        rate = (more - less) / (at - first)
        measure = Measure("flow", name, float(more), float(less), "records", more, first, at, statistic="lag")
        growth = Measure("flow", f"{name} growth", rate, 0.0, "records/s", more, first, at, statistic="growth")
        self._health.tell(cause, measure, at, more=(growth,))


def _grows(lags: deque[tuple[float, int]]) -> bool:
    """Whether the lag was larger at each look than at the one before, for long enough."""
    values = [records for _, records in lags]
    rising = all(later > earlier for earlier, later in pairwise(values))
    return rising and lags[-1][0] - lags[0][0] >= GROWS - 1.0


def _page(topic: _Topic) -> Page:
    return {"gaps": np.array([topic.last, topic.longest, topic.known])}
