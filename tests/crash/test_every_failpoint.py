"""Every fail-point on its first, second and seventh visit: nothing is lost, nothing counts twice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from monitor.config import Config
from monitor.demo.traffic import CreditTraffic, write_events
from monitor.failpoints import DELIVERY, FAILPOINTS
from monitor.intake.identity import Pseudonyms, load_or_create_key
from monitor.intake.sources.memory import MemoryBroker
from tests.crash.runner import TOPIC, configuration, counts, fill, incidents, run

KILLED = -9
START, RATE = 1_763_625_600.0, 100.0
HONEST, DRIFTED = 2_500, 1_500
LATE = 600


@pytest.fixture(scope="module")
def events() -> list[bytes]:
    """Demo traffic with a drift, a field that goes away and comes back, late labels, and some records that are none."""
    credit = CreditTraffic(3)
    made = credit.events(HONEST, START, RATE) + credit.events(DRIFTED, START + HONEST / RATE, RATE, "income")
    for event in made[1_000:1_050]:
        del event["features"]["age"]
    lines = []
    for i, event in enumerate(made):
        lines.append(msgspec.json.encode(event))
        if i % 3 == 0 and i >= LATE:
            lines.append(_label(made[i - LATE], known=i % 30 > 0))
    for i in range(0, len(lines), 500):
        lines.insert(i, b"not json")
    return lines


def _label(event: dict[str, Any], known: bool) -> bytes:
    """Right for two in three; one in ten is of a prediction that never was."""
    right = {"label": event["prediction"]} if event["event_id"][-1] not in "147" else {"label": "other"}
    event_id = event["event_id"] if known else "unknown"
    label = {"type": "label", "event_id": event_id, "ts": event["ts"], "model": event["model"], **right}
    return msgspec.json.encode(label)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    write_events(tmp_path / "reference.jsonl", CreditTraffic(3).reference(500))
    return configuration(tmp_path)


def broker_with(events: list[bytes], partitions: int = 1) -> MemoryBroker:
    broker = MemoryBroker()
    fill(broker, events, partitions)
    return broker


def oracle(events: list[bytes], config: Config) -> dict[str, int]:
    """What must be in SQL at the end, counted from the events."""
    assert config.identity.key_file is not None
    names = Pseudonyms(load_or_create_key(config.identity.key_file.path, create=False))
    found: Counter[str] = Counter({f"received {TOPIC}/0": len(events)})
    for line in events:
        if line != b"not json":
            event = json.loads(line)
            if event["type"] == "label":
                found[f"labels {event['model']}"] += 1
                found[f"labels matched {event['model']}"] += event["event_id"] != "unknown"
                continue
            found[f"predictions {event['model']}"] += 1
            found[f"{event['model']} {names.client(event['client'])}"] += 1
    return dict(found)


@pytest.fixture(scope="module")
def undisturbed(events: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    directory = tmp_path_factory.mktemp("undisturbed")
    write_events(directory / "reference.jsonl", CreditTraffic(3).reference(500))
    calm = configuration(directory)
    assert run(calm, broker_with(events), None) == 0
    found: list[object] = list(incidents(calm))
    assert len(found) >= 2, "the missing field and the drift must be found"
    return found


@pytest.mark.parametrize("visit", [1, 2, 7])
@pytest.mark.parametrize("name", sorted(FAILPOINTS.keys() - DELIVERY))
def test_a_crash_there_changes_nothing(
    name: str, visit: int, events: list[bytes], config: Config, undisturbed: list[object]
) -> None:
    broker = broker_with(events)
    code = run(config, broker, f"{name}:{visit}")
    # Partitions are claimed once; every other point is visited far more than seven times.
    assert code == (0 if name == "after_claim" and visit > 1 else KILLED)
    assert run(config, broker, None) == 0
    assert counts(config) == oracle(events, config)
    assert incidents(config) == undisturbed


def test_crash_upon_crash(events: list[bytes], config: Config, undisturbed: list[object]) -> None:
    broker = broker_with(events)
    for name in sorted(FAILPOINTS.keys() - DELIVERY):
        assert run(config, broker, f"{name}:2") in (KILLED, 0)
    assert run(config, broker, None) == 0
    assert counts(config) == oracle(events, config)
    assert incidents(config) == undisturbed
