"""Topics keyed by model: the promise is checked, and a model in two partitions is told and never splits state."""

from __future__ import annotations

from pathlib import Path

import msgspec

from monitor.assembly import pipeline_settings, without_effect
from monitor.config import parse_config
from monitor.intake.events import Event, EventType, Record
from monitor.intake.identity import Pseudonyms
from monitor.keyed import MOST, KeyedTopics, Split
from monitor.metrics import Metrics
from monitor.own_health import QUIET_SECONDS
from monitor.pipeline import Pipeline

START = 1_763_625_600.0
CONFIG = """
kafka:
  bootstrap_servers: ["unused:9092"]
  group: g
  topics:
    - {name: keyed, keyed_by: model}
    - {name: spread}
    - {name: edge, type: access, keyed_by: model}
"""


def pipeline() -> Pipeline:
    settings = pipeline_settings(parse_config(CONFIG, Path("modelwarden.yaml")), Pseudonyms(b"", plain=True), b"k")
    made = Pipeline(settings, Metrics())
    for topic in ("keyed", "spread"):
        for partition in range(3):
            made.own(topic, partition, 0)
    return made


def feed(p: Pipeline, topic: str, partition: int, *models: str, type: str = "prediction") -> None:
    begin = p.positions()[topic, partition]
    rows = []
    for i, model in enumerate(models):
        event = {"type": type, "ts": START + i, "model": model, "features": {"a": i}, "label": 1}
        rows.append(Record(topic, partition, begin + i, START + i, None, msgspec.json.encode(event)))
    p.feed(topic, partition, rows)


def told(p: Pipeline) -> list[str]:
    return [i.why for i in p.book.open()]


def test_a_model_in_two_partitions_is_told_with_topic_model_and_partitions() -> None:
    p = pipeline()
    p.tick(START)
    feed(p, "keyed", 0, "a", "b", "a")
    feed(p, "keyed", 2, "c", "c")
    feed(p, "spread", 0, "a")
    feed(p, "spread", 1, "a")
    assert told(p) == []
    feed(p, "keyed", 2, "a", type="label")
    assert told(p) == [
        "topic keyed: model a: partitions 0, 2 hold its records, and keyed_by: model says that one does; "
        "since 2025-11-20 08:00:00Z"
    ]
    feed(p, "keyed", 0, "a", "b")
    p.tick(START + 10)
    assert len(told(p)) == 1 and p.watches["model:/a"].predictions == 5  # no state is split
    p.tick(START + QUIET_SECONDS + 100)
    assert told(p) == []


def test_what_the_configuration_promises_and_what_it_cannot() -> None:
    config = parse_config(CONFIG, Path("modelwarden.yaml"))
    assert pipeline().settings.keyed == {"keyed"}
    assert list(without_effect(config)) == [
        "topic edge, keyed_by: has no effect, because events of type access name no model"
    ]


def test_models_without_end_are_not_remembered() -> None:
    keyed = KeyedTopics(["t"])
    assert "t" in keyed and "u" not in keyed
    events = [Event(EventType.PREDICTION, START, model=f"m{i}") for i in range(MOST + 10)]
    assert list(keyed.see("t", 0, events)) == []
    assert list(keyed.see("t", 1, events[-5:])) == []
    assert list(keyed.see("t", 1, events[:1])) == [Split("t", "", "m0", (0, 1))]
    assert list(keyed.see("t", 1, [Event(EventType.ACCESS, START)])) == []
