"""A whole daemon on a broker in memory: what it knows of a topic's gaps is stored, and a restart goes on with it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from monitor import flow
from monitor.clock import SystemClock
from monitor.config import Config, parse_config
from monitor.daemon import Daemon
from monitor.intake.sources.base import SourceTopic
from monitor.intake.sources.memory import MemoryBroker, MemorySource
from monitor.state.store import StateStore, open_store
from tests.components.waiting import wait_until


class Ahead(SystemClock):
    """The machine's clock, moved forward by the test."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


@contextmanager
def running(config: Config, broker: MemoryBroker, clock: Ahead) -> Iterator[Daemon]:
    daemon = Daemon(config, clock, lambda _: MemorySource(broker, [SourceTopic("t", "earliest")]))
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        yield daemon
    finally:
        daemon.stop()
        thread.join(30)
    assert not thread.is_alive()


def produce(broker: MemoryBroker, number: int) -> None:
    for i in range(number):
        event = {"type": "prediction", "ts": 1_763_625_600 + i, "model": "m", "features": {"a": i}}
        broker.produce("t", 0, json.dumps(event).encode())


def opened(store: StateStore) -> list[str]:
    return [i.why.split(" for ")[0] for i in store.open_incidents()]


def received(store: StateStore) -> int:
    return sum(t["received"] for t in store.status()["topics"])


def test_a_silent_topic_across_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "KNOWN_AFTER", 0.0)
    monkeypatch.setattr(flow, "GRACE", 3.0)
    text = """
kafka: {bootstrap_servers: ["unused:9092"], group: g, topics: [{name: t, live: false}]}
store: {url: "sqlite:///state.db", commit_interval: 1s}
api: {listen: "127.0.0.1:0"}
"""
    config = parse_config(text, tmp_path / "modelwarden.yaml")
    broker, clock = MemoryBroker(), Ahead()
    broker.create_topic("t")
    produce(broker, 20)
    store = open_store(config.store.url.url, "g", create=True)
    try:
        with running(config, broker, clock):
            wait_until(lambda: received(store) == 20, 20, "read")
            clock.ahead += 1_200
            wait_until(lambda: opened(store) == ["no data on topic t"], 20, "told")
        (page,) = store.load_pages(flow.SUBJECT)
        assert page.detector == flow.DETECTOR
        clock.ahead += 600
        with running(config, broker, clock) as daemon:
            wait_until(lambda: daemon.condition.ready, 20, "active")
            assert opened(store) == ["no data on topic t"]
            produce(broker, 20)
            wait_until(lambda: opened(store) == [], 20, "closed")
            assert [m["model"] for m in store.status()["models"]] == ["m"]
    finally:
        store.close()
