from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from kafka import KafkaConsumer

from monitor.demo.broker import CLIENT_OPTIONS, PARTITIONS, BrokerError, EmbeddedBroker


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 2.0).close()
    except OSError:
        return False
    return True


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_starts_with_its_topics_and_stops() -> None:
    broker = EmbeddedBroker(["first", "second"])
    with broker as address:
        pid = broker.pid
        assert pid is not None and runs(pid) and listens(address)
        consumer = KafkaConsumer(bootstrap_servers=address, **CLIENT_OPTIONS)
        assert consumer.topics() == {"first", "second"}
        assert consumer.partitions_for_topic("first") == set(range(PARTITIONS))
        consumer.close()
    assert broker.pid is None and not runs(pid) and not listens(address)
    broker.stop()  # harmless


def test_stops_when_the_body_raises() -> None:
    broker = EmbeddedBroker()
    with pytest.raises(KeyError), broker as address:
        raise KeyError
    assert not listens(address)


def test_two_brokers_share_nothing(embedded: str) -> None:
    with EmbeddedBroker(["mine"]) as other:
        assert other != embedded
        consumer = KafkaConsumer(bootstrap_servers=embedded, **CLIENT_OPTIONS)
        assert "mine" not in consumer.topics()
        consumer.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_dies_with_its_parent(number: signal.Signals) -> None:
    code = (
        "import signal, sys\nfrom monitor.demo.broker import EmbeddedBroker\n"
        "broker = EmbeddedBroker()\nprint(broker.start(), broker.pid, flush=True)\nsignal.pause()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        address, _, pid = parent.stdout.readline().strip().partition(" ")
        assert runs(int(pid)) and listens(address)
    finally:
        os.kill(parent.pid, number)
        parent.wait()
    assert until(lambda: not runs(int(pid)))
    assert not listens(address)
    assert parent.stdout is not None
    parent.stdout.close()


def test_says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "confluent_kafka" else find(name))
    with pytest.raises(BrokerError, match=r"the demo needs the extra `demo`: pip install 'modelwarden\[demo\]'"):
        EmbeddedBroker().start()


def test_says_so_when_it_does_not_come_up(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = EmbeddedBroker()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BrokerError, match="did not start"):
        broker.start()
    assert broker.pid is None


def test_is_not_started_twice() -> None:
    broker = EmbeddedBroker()
    with broker as address:
        with pytest.raises(BrokerError, match="already running"):
            broker.start()
        assert listens(address)
