"""What happens in the demo and when, as live messages: honest traffic, attacks within it, a data fault, a drift."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from monitor.demo.attacks import CLIENTS, RATE, Attack, Campaign, campaign
from monitor.demo.produce import Message
from monitor.demo.traffic import FAULTY, INCOME_FACTOR, CreditTraffic, Drift, encode, response, rfc3339

_CHUNK_SECONDS = 0.25
LABELLED: Final = 0.3
"""Share of the applications whose outcome becomes known."""
LABEL_SECONDS: Final = 8.0
"""How late labels come, on average."""
StageName: TypeAlias = Literal["honest", "extraction", "fault", "boundary", "membership", "drift"]
SENTENCES: Final[Mapping[StageName, str]] = {
    "honest": "honest traffic",
    "extraction": f"{CLIENTS['extraction']} begins to ask for made-up applications, to copy the model",
    "fault": f"a release of the gateway begins to send {FAULTY} as text",
    "boundary": f"{CLIENTS['boundary']} begins to search for the smallest lie that gets a credit",
    "membership": f"{CLIENTS['membership']} begins to ask for records it suspects in the training data",
    "drift": f"a drift begins: applicants earn {1 - INCOME_FACTOR:.0%} less than before",
}
ENDS: Final[Mapping[StageName, tuple[str, str | None]]] = {
    "extraction": ("model_extraction", CLIENTS["extraction"]),
    "fault": ("data_quality", None),
    "boundary": ("adversarial_input", CLIENTS["boundary"]),
    "membership": ("membership_inference", CLIENTS["membership"]),
    "drift": ("feature_drift", None),
}
"""What each stage must end as: kind of incident, and the client it names."""
_ATTACKS: Final[Mapping[StageName, Attack]] = {
    "extraction": "extraction",
    "boundary": "boundary",
    "membership": "membership",
}
_DRIFTS: Final[Mapping[StageName, Drift]] = {"fault": "text", "drift": "income"}


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of the story, in seconds."""

    name: StageName
    seconds: float


STORY: Final = (
    Stage("honest", 12.0),
    Stage("extraction", 10.0),
    Stage("honest", 3.0),
    Stage("fault", 5.0),
    Stage("honest", 5.0),
    Stage("boundary", 10.0),
    Stage("honest", 3.0),
    Stage("membership", 8.0),
    Stage("honest", 4.0),
    Stage("drift", 25.0),
    Stage("honest", 25.0),
)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The stages in their order; after the last one they come round again."""

    stages: tuple[Stage, ...] = STORY

    def at(self, elapsed: float) -> int:
        """Running number of the stage so many seconds after the start."""
        whole = sum(s.seconds for s in self.stages)
        rounds, rest = divmod(elapsed, whole)
        for i, stage in enumerate(self.stages):
            rest -= stage.seconds
            if rest < 0:
                return int(rounds) * len(self.stages) + i
        return int(rounds + 1) * len(self.stages)

    def stage(self, number: int) -> Stage:
        """The stage with this running number."""
        return self.stages[number % len(self.stages)]

    def begins(self, name: StageName) -> float:
        """Seconds to the first stage of this name."""
        names = [s.name for s in self.stages]
        return sum(s.seconds for s in self.stages[: names.index(name)])

    def events(self) -> list[StageName]:
        """Names of the stages that must be found, in their order."""
        return [s.name for s in self.stages if s.name in ENDS]


class LateLabels:
    """What became of the applications: known of some, and only seconds later. It agrees with the model's scores."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(11)
        self._waiting: list[tuple[float, int, Message]] = []
        self._made = 0

    def expect(self, at: float, event: Mapping[str, Any]) -> None:
        """This application may get a label."""
        known, delay, draw = self._rng.random(3).tolist()
        if known >= LABELLED:
            return
        late = at + LABEL_SECONDS * (0.5 + delay)
        label = {
            "type": "label",
            "event_id": event["event_id"],
            "ts": rfc3339(late),
            "model": event["model"],
            "label": "yes" if draw < event["scores"]["yes"] else "no",
            "source": "repayments",
        }
        self._made += 1
        heapq.heappush(self._waiting, (late, self._made, Message(event["client"].encode(), encode(label), late)))

    def due(self, at: float) -> Iterator[Message]:
        """Labels that come before this time."""
        while self._waiting and self._waiting[0][0] <= at:
            yield heapq.heappop(self._waiting)[2]


@dataclass(slots=True)
class Script:
    """Turns the timeline into messages; keeps the campaigns, whose outcome is told at the end."""

    traffic: CreditTraffic
    timeline: Timeline
    training: Sequence[Mapping[str, Any]]
    """Rows the model was trained on."""
    campaigns: dict[Attack, Campaign] = field(default_factory=dict)

    def messages(self, start: float, rate: float) -> Iterator[Message]:
        """Events without end, from the epoch second `start` on, each to be sent at its own time."""
        now = start
        size = max(1, round(rate * _CHUNK_SECONDS))
        owed = 0.0
        labels = LateLabels()
        while True:
            stage = self.timeline.stage(self.timeline.at(now - start)).name
            timed = self.traffic.timed_events(size, now, rate, _DRIFTS.get(stage))
            attack = _ATTACKS.get(stage)
            if attack is not None:
                owed += RATE * (timed[-1][0] - now)
                times = np.linspace(now, timed[-1][0], int(owed) + 2)[1:-1].tolist()
                owed -= int(owed)
                timed = sorted([*timed, *self._queries(attack, times)], key=lambda t: t[0])
            for at, event in timed:
                now = at
                yield from labels.due(at)
                labels.expect(at, event)
                yield Message(event["client"].encode(), encode(event), at)

    def _queries(self, attack: Attack, times: Sequence[float]) -> Iterator[tuple[float, dict[str, Any]]]:
        made = self.campaigns.get(attack)
        if made is None:
            made = self.campaigns[attack] = campaign(attack, [dict(r["features"]) for r in self.training], 7)
        for at in times:
            features = made.next()
            yield (
                at,
                {
                    "type": "prediction",
                    "event_id": f"{made.client}-{made.asked}",
                    "ts": rfc3339(at),
                    "model": self.traffic.model,
                    "model_version": self.traffic.model_version,
                    "client": made.client,
                    "features": features,
                    **response(features),
                    "latency_ms": 11.0,
                },
            )
