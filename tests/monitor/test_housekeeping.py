"""Housekeeping works for the holder of the lease only, and gives signs of life only while all is well."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from monitor.clock import SystemClock
from monitor.config import Config
from monitor.daemon import Daemon
from monitor.heartbeat import HeartbeatError, ask
from monitor.housekeeping import Housekeeping, database_bytes
from monitor.intake.events import DeadLetter, Reason
from monitor.intake.sources.base import SourceTopic
from monitor.intake.sources.memory import MemoryBroker, MemorySource
from monitor.metrics import Metrics
from monitor.state.lease import Lease
from monitor.state.store import StateStore, open_store
from monitor.state.unit import CommitUnit, IdentityRow
from tests.components.waiting import wait_until
from tests.crash.runner import TOPIC, configuration, configuration_text


class Receiver(ThreadingHTTPServer):
    """Takes GET and POST; answers `status`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._take(b"")

    def do_POST(self) -> None:
        self._take(self.rfile.read(int(self.headers["content-length"])))

    def _take(self, body: bytes) -> None:
        assert isinstance(self.server, Receiver)
        self.server.asked.append((self.command, self.path, body))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    opened = open_store(f"sqlite:///{tmp_path}/s.db", "g", audit_key=b"k" * 32, create=True)
    yield opened
    opened.close()


@pytest.fixture
def lease(store: StateStore) -> Lease:
    held = store.acquire_lease("daemon", 30.0)
    assert held is not None
    return held


def keeper(kept: StateStore, metrics: Metrics, well: bool = True, **sections: Any) -> Housekeeping:
    config = Config.model_validate(sections)
    return Housekeeping(kept, lambda: config, metrics, SystemClock(), lambda: well)


def test_it_removes_for_the_holder_of_the_lease_only(store: StateStore, lease: Lease) -> None:
    letter = DeadLetter("p", 0, 1, -1, Reason.NOT_JSON, "", {}, 1, "")
    who = IdentityRow("c_1", "client", b"x", 1.0)
    store.commit(CommitUnit(100.0, cluster_id="c", dead_letters=[letter], identities=[who]), lease)
    metrics = Metrics()
    keeping = keeper(store, metrics)
    assert not keeping.sweep() and not keeping.expire()
    assert store.dead_letters() and store.identities(["c_1"])
    keeping.hold(lease)
    assert keeping.sweep() and keeping.expire()
    assert not store.dead_letters() and not store.identities(["c_1"])
    for table in ("dead_letters", "identities"):
        assert metrics.registry.get_sample_value("modelwarden_rows_removed_total", {"table": table}) == 1


def test_a_lost_lease_is_no_failure(store: StateStore, lease: Lease) -> None:
    keeping = keeper(store, Metrics())
    keeping.hold(lease)
    assert store.acquire_lease("other", 30.0, take_over=True) is not None
    assert not keeping.sweep()


def test_what_retention_says_is_kept(store: StateStore, lease: Lease) -> None:
    letter = DeadLetter("p", 0, 1, -1, Reason.NOT_JSON, "", {}, 1, "")
    store.commit(CommitUnit(SystemClock().now() - 86_400.0, cluster_id="c", dead_letters=[letter]), lease)
    keeping = keeper(store, Metrics())
    keeping.hold(lease)
    keeping.sweep()
    assert store.dead_letters() == [letter]
    short = keeper(store, Metrics(), store={"retention": {"dead_letters": "1h"}})
    short.hold(lease)
    short.sweep()
    assert store.dead_letters() == []


def test_the_size_of_the_database_is_measured(store: StateStore) -> None:
    metrics = Metrics()
    assert keeper(store, metrics).size()
    shown = metrics.registry.get_sample_value("modelwarden_database_bytes")
    assert shown is not None and shown > 4_096 and database_bytes(store) > 4_096


def test_signs_of_life(store: StateStore, lease: Lease, receiver: Receiver) -> None:
    beat = {"url": f"{receiver.url}/ping/secret", "alertmanager": True, "every": "30s"}
    am = {"am": {"type": "alertmanager", "urls": [receiver.url]}}
    keeping = keeper(store, Metrics(), heartbeat=beat, receivers=am)
    assert not keeping.beat() and receiver.asked == []  # it holds no lease
    keeping.hold(lease)
    assert keeping.beat()
    (posted, asked) = receiver.asked
    assert asked[:2] == ("GET", "/ping/secret") and posted[:2] == ("POST", "/api/v2/alerts")
    (alert,) = json.loads(posted[2])
    assert alert["labels"] == {"alertname": "ModelWardenHeartbeat", "severity": "none", "group": "g"}
    assert alert["endsAt"] > alert["startsAt"]


def test_no_sign_of_life_while_something_is_wrong(store: StateStore, lease: Lease, receiver: Receiver) -> None:
    keeping = keeper(store, Metrics(), well=False, heartbeat={"url": receiver.url})
    keeping.hold(lease)
    assert not keeping.beat() and receiver.asked == []


def test_a_dry_run_is_alive_for_everybody(store: StateStore, lease: Lease, receiver: Receiver) -> None:
    am = {"am": {"type": "alertmanager", "urls": [receiver.url]}}
    beat = {"url": f"{receiver.url}/ping", "alertmanager": True}
    keeping = keeper(store, Metrics(), heartbeat=beat, receivers=am, notify=False)
    keeping.hold(lease)
    assert keeping.beat()
    assert [path for _, path, _ in receiver.asked] == ["/api/v2/alerts", "/ping"]


def test_a_refused_sign_of_life_names_the_host_and_not_the_secret_path(receiver: Receiver) -> None:
    receiver.status = 404
    with pytest.raises(HeartbeatError, match=r"127\.0\.0\.1 answered 404") as caught:
        ask(f"{receiver.url}/ping/secret")
    assert "secret" not in str(caught.value)
    with pytest.raises(HeartbeatError, match="cannot be reached"):
        ask("http://127.0.0.1:1/ping/secret")


def test_it_starts_and_stops(store: StateStore, lease: Lease, receiver: Receiver) -> None:
    metrics = Metrics()
    keeping = keeper(store, metrics, heartbeat={"url": receiver.url, "every": "100ms"})
    keeping.hold(lease)
    keeping.start()
    wait_until(lambda: len(receiver.asked) >= 2, 10, "signs of life come again")
    keeping.stop()
    keeping.stop()


def daemon_beats(receiver: Receiver) -> bool:
    """Whether a sign of life comes within five intervals."""
    known, deadline = len(receiver.asked), time.monotonic() + 0.5
    while time.monotonic() < deadline:
        if len(receiver.asked) > known:
            return True
        time.sleep(0.02)
    return False


def test_the_daemon_keeps_house(tmp_path: Path, receiver: Receiver) -> None:
    """Signs of life come and go with reloads, and the last task has ended before the daemon has."""
    config = configuration(tmp_path)
    beating = f'heartbeat: {{url: "{receiver.url}", every: 100ms}}'
    assert config.file is not None
    config.file.write_text(configuration_text(tmp_path, more=beating))
    (tmp_path / "reference.jsonl").write_text('{"features": {"a": 1}}\n')
    broker = MemoryBroker()
    broker.create_topic(TOPIC, 1)
    daemon = Daemon(config, make_source=lambda _: MemorySource(broker, [SourceTopic(TOPIC, "earliest")]))
    code: list[int] = []
    thread = threading.Thread(target=lambda: code.append(daemon.run()))
    thread.start()
    try:
        wait_until(lambda: daemon.condition.ready, 20, "the daemon is ready")
        assert receiver.asked == []
        daemon.reload()
        wait_until(lambda: len(receiver.asked) >= 2, 20, "signs of life come")
        shown = daemon.metrics.registry.get_sample_value
        assert (shown("modelwarden_database_bytes") or 0) > 4_096
        assert shown("modelwarden_task_last_success_timestamp_seconds", {"task": "heartbeat"})
        config.file.write_text(configuration_text(tmp_path))
        daemon.reload()
        wait_until(lambda: daemon.config.heartbeat.url is None, 20, "the reload")
        wait_until(lambda: not daemon_beats(receiver), 20, "signs of life end")
    finally:
        daemon.stop()
        thread.join(30)
    assert code == [0]
    assert not [t for t in threading.enumerate() if "APScheduler" in t.name]
