"""A whole daemon that is flooded, on a broker in memory: it samples, says so, counts everything, and stops sampling."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from monitor import overload, session
from monitor.config import parse_config
from monitor.daemon import Daemon
from monitor.demo.traffic import CreditTraffic
from monitor.intake.sources.base import SourceTopic, TopicPartition
from monitor.intake.sources.memory import MemoryBroker, MemorySource
from monitor.state.store import StateStore, open_store
from monitor.state.unit import Sampled
from tests.components.waiting import wait_until

CONFIG = """
kafka: {bootstrap_servers: ["unused:9092"], group: g, topics: [{name: t, live: false}]}
store: {url: "sqlite:///state.db", commit_interval: 1s}
api: {listen: "127.0.0.1:0"}
overload: sample
"""


def model(store: StateStore) -> dict[str, Any]:
    return next(iter(store.status()["models"]), {})


def test_a_flood_is_sampled_until_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "DISCOVER_SECONDS", 0.1)
    monkeypatch.setattr(session, "TICK_SECONDS", 0.1)
    for name, seconds in (("MUCH", 0.2), ("LITTLE", 0.1), ("WINDOW", 1.5), ("CALM", 0.5)):
        monkeypatch.setattr(overload, name, seconds)
    config = parse_config(CONFIG, tmp_path / "modelwarden.yaml")
    lines = [json.dumps(e).encode() for e in CreditTraffic(1).events(1_000, time.time(), 100.0)]
    broker = MemoryBroker()
    broker.create_topic("t")
    source = MemorySource(broker, [SourceTopic("t", "earliest")])
    flooding, made, place = threading.Event(), 0, TopicPartition("t", 0)

    def flood() -> None:
        nonlocal made
        while not flooding.is_set():
            if made - source._next.get(place, 0) < 20_000:
                for line in lines:
                    broker.produce("t", 0, line)
                made += len(lines)
            else:
                flooding.wait(0.01)

    store = open_store(config.store.url.url, "g", create=True)
    daemon = Daemon(config, make_source=lambda _: source)
    threads = [threading.Thread(target=flood), threading.Thread(target=daemon.run)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: model(store).get("sample_rate", 1) == 0.25, 60, "the flood is sampled", 0.1)
        told = [i for i in store.open_incidents() if i.cause == "sampling:model:/credit-risk"]
        assert len(told) == 1 and told[0].kind == "monitor_health"
        flooding.set()
        threads[0].join(30)
        wait_until(lambda: model(store).get("predictions") == made, 60, "everything is counted", 0.1)
        wait_until(lambda: model(store)["sample_rate"] == 1.0, 30, "every event is judged again", 0.1)
        wait_until(lambda: told[0].id not in {i.id for i in store.open_incidents()}, 10, "the incident is closed", 0.1)
    finally:
        flooding.set()
        daemon.stop()
        for thread in threads:
            thread.join(30)
    rates = [e.one_in for commit in store.slices() for e in commit.trail if isinstance(e, Sampled)]
    assert rates[:2] == [2, 4] and rates[-1] == 1
    found = model(store)
    assert 0 < found["unjudged"] < found["predictions"]
    assert sum(t["received"] for t in store.status()["topics"]) == made
    store.close()
