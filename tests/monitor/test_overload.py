"""When sampling begins and ends, and which models it takes: lag and polls as a test says, on a clock of its own."""

from __future__ import annotations

import msgspec
import pytest

from monitor.demo.traffic import CreditTraffic
from monitor.intake.events import Record
from monitor.intake.formats.base import TopicRules, formats
from monitor.intake.identity import Pseudonyms
from monitor.intake.reader import Intake
from monitor.metrics import Metrics
from monitor.overload import CALM, MOST, Overload
from monitor.pipeline import Pipeline, PipelineSettings
from monitor.watch import PROVISIONAL_ROWS, WatchSettings

TOPIC, START = "t", 1_763_625_600.0
FEATURES = [e["features"] for e in CreditTraffic(1).events(PROVISIONAL_ROWS + 10, START, 100.0)]


class World:
    """A daemon that reads `taken` records a look, of which each model has a part; ten seconds between looks."""

    def __init__(self, enabled: bool = True) -> None:
        rules = TopicRules(TOPIC, Pseudonyms(b"", plain=True))
        intakes = {TOPIC: Intake(formats()["native"], rules)}
        self.pipeline = Pipeline(PipelineSettings(intakes, lambda model, tenant: WatchSettings()), Metrics())
        self.pipeline.own(TOPIC, 0, 0)
        self.overload = Overload(self.pipeline, enabled)
        self.at = self.offset = 0
        for model in ("hot", "warm", "quiet"):
            self.feed(model, PROVISIONAL_ROWS + 10)
        self.pipeline.tick(START)

    def feed(self, model: str, number: int) -> None:
        lines = [
            msgspec.json.encode({"type": "prediction", "ts": START + i, "model": model, "features": f})
            for i, f in enumerate(FEATURES[:number])
        ]
        rows = [Record(TOPIC, 0, self.offset + i, None, None, line) for i, line in enumerate(lines)]
        self.pipeline.feed(TOPIC, 0, rows)
        self.offset += number

    def look(self, behind: int, taken: int = 1_000, empty: int = 0) -> dict[str, int]:
        for model, number in (("hot", 100), ("warm", 70), ("quiet", 4)):
            self.feed(model, number)
        self.pipeline.tick(START + self.at)
        self.overload.polled(taken)
        for _ in range(empty):
            self.overload.polled(0)
        self.at += 10
        self.overload.look(self.at, behind)
        return self.rates()

    def rates(self) -> dict[str, int]:
        return {w.model: w.sampling.one_in for w in self.pipeline.watches.values() if w.sampling.one_in > 1}

    def told(self) -> list[str]:
        return sorted(i.cause for i in self.pipeline.book.open() if i.kind == "monitor_health")


def test_a_lag_that_stays_is_sampled_and_the_quiet_model_never() -> None:
    world = World()
    assert [world.look(7_000) for _ in range(3)] == [{}, {}, {}]
    assert world.look(7_000) == {"hot": 2, "warm": 2}
    assert world.told() == ["sampling:model:/hot", "sampling:model:/warm"]
    for _ in range(40):
        world.look(7_000)
    assert world.rates() == {"hot": MOST, "warm": MOST}


def test_the_busiest_comes_first() -> None:
    world = World()
    for _ in range(4):
        world.feed("hot", 200)
        world.look(9_000)
    assert world.rates() == {"hot": 2}


@pytest.mark.parametrize(
    ("lags", "taken", "empty"),
    [
        ([5_900] * 20, 1_000, 0),  # not a minute of work
        ([100_000 - 4_000 * i for i in range(20)], 1_000, 0),  # gone in a few minutes
        ([50_000] * 20, 1_000, 3),  # the brokers give no more
        ([0] * 20, 1_000, 0),
        ([0] * 20, 0, 50),
    ],
)
def test_what_is_no_overload(lags: list[int], taken: int, empty: int) -> None:
    world = World()
    for lag in lags:
        assert world.look(lag, taken, empty) == {}
    assert world.told() == []


def test_it_ends_after_a_minute_of_calm_step_by_step() -> None:
    world = World()
    for _ in range(8):
        world.look(8_000)
    assert world.rates() == {"hot": 4, "warm": 4}
    for lag in (3_000, 2_000, 1_000):  # catching up is no calm
        assert world.look(lag) == {"hot": 4, "warm": 4}
    steps = [world.look(100) for _ in range(14)]
    assert steps[5] == {"hot": 4, "warm": 4} and steps[6] == {"hot": 2, "warm": 2} and steps[12] == {}
    assert world.told() == []


def test_an_early_end_makes_the_next_calm_longer() -> None:
    world = World()
    for _ in range(4):
        world.look(8_000)
    calm = [world.look(0, 100, 5) for _ in range(7)]
    assert calm[5] and not calm[6]
    while not world.look(8_000):
        pass
    calm = [world.look(0) for _ in range(13)]
    assert calm[11] and not calm[12] and CALM == 60


def test_without_the_choice_nothing_is_sampled_and_what_was_ends() -> None:
    world = World(enabled=False)
    for _ in range(10):
        assert world.look(10**6) == {}
    world.pipeline.sample("model:/hot", 4)
    assert world.told() == ["sampling:model:/hot"]
    world.overload.begin(START)
    assert world.rates() == {} and world.told() == []


def test_an_incident_whose_model_is_not_sampled_any_more_is_closed() -> None:
    world = World()
    world.pipeline.sample("model:/hot", 2)
    world.pipeline.watches["model:/hot"].sampling.one_in = 1  # its stored counts could not be read
    world.overload.begin(START)
    assert world.told() == []
