"""What happens in the demo and when: honest traffic, then a drift, then honest traffic again, as live messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from monitor.demo.produce import Message
from monitor.demo.traffic import INCOME_FACTOR, CreditTraffic, Drift, encode

_CHUNK_SECONDS = 0.25
_SENTENCES: dict[Drift | None, str] = {
    None: "honest traffic",
    "income": f"a drift begins: applicants earn {1 - INCOME_FACTOR:.0%} less than before",
}


@dataclass(frozen=True, slots=True)
class Timeline:
    """Seconds of honest traffic before the first drift, of a drift, and between two drifts."""

    honest: float = 12.0
    drift: float = 30.0
    between: float = 60.0

    def drift_at(self, elapsed: float) -> Drift | None:
        """What drifts so many seconds after the start; it all comes round again."""
        if elapsed < self.honest:
            return None
        return "income" if (elapsed - self.honest) % (self.drift + self.between) < self.drift else None


def sentence(drift: Drift | None) -> str:
    """What a stage is, in words."""
    return _SENTENCES[drift]


def live_messages(traffic: CreditTraffic, timeline: Timeline, start: float, rate: float) -> Iterator[Message]:
    """Events without end, from the epoch second `start` on, each to be sent at its own time."""
    now = start
    size = max(1, round(rate * _CHUNK_SECONDS))
    while True:
        for at, event in traffic.timed_events(size, now, rate, timeline.drift_at(now - start)):
            now = at
            yield Message(event["client"].encode(), encode(event), at)
