"""The daemon dies around a POST: the webhook gets every message, in order, a repeated one under its first key."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from monitor import webhooks
from monitor.clock import SystemClock
from monitor.config import Config
from monitor.demo.traffic import CreditTraffic, write_events
from monitor.failpoints import DELIVERY
from monitor.intake.sources.memory import MemoryBroker
from monitor.state.outbox import OutboxCounts
from monitor.state.store import open_store
from tests.crash.runner import configuration, fill, run

KILLED = -9


class Server(ThreadingHTTPServer):
    """Takes every message and keeps (webhook-id, body)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posts: list[tuple[str, bytes]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.posts.append((self.headers["webhook-id"], self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def config(tmp_path: Path, server: Server) -> Config:
    write_events(tmp_path / "reference.jsonl", CreditTraffic(3).reference(500))
    hook = f'hook: {{type: webhook, url: "http://127.0.0.1:{server.server_port}/", allow_private: true}}'
    return configuration(tmp_path, more=f"receivers: {{{hook}}}")


def outbox(config: Config) -> OutboxCounts:
    store = open_store(config.store.url.url, "crash")
    try:
        return store.outbox_counts()
    finally:
        store.close()


@pytest.mark.parametrize("visit", [1, 2])
@pytest.mark.parametrize("name", sorted(DELIVERY))
def test_a_crash_around_a_post(
    name: str, visit: int, config: Config, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "CLAIM_SECONDS", 2.0)  # else a dead worker's claim is waited for half a minute
    monkeypatch.setattr(webhooks, "TIMEOUT", 1.0)
    monkeypatch.setattr(webhooks, "IDLE_SECONDS", 0.1)
    made = CreditTraffic(3).events(1_500, 1_763_625_600.0, 100.0)
    for event in made[500:550]:
        del event["features"]["age"]
    broker = MemoryBroker()
    fill(broker, [msgspec.json.encode(event) for event in made], 1)

    def told() -> bool:
        counts = outbox(config)
        return counts.pending == 0 and counts.delivered > 0

    assert run(config, broker, f"{name}:{visit}", SystemClock(), told) == KILLED
    at_death = len(server.posts)
    assert at_death == visit
    assert run(config, broker, None, SystemClock(), told) == 0
    keys = [key for key, _ in server.posts]
    counts = outbox(config)
    assert counts == (0, len(set(keys)), 0) and counts.delivered >= 2
    repeated = [key for key in dict.fromkeys(keys) if keys.count(key) > 1]
    assert repeated == ([keys[at_death - 1]] if name == "after_post" else [])
    assert all(len({body for k, body in server.posts if k == key}) == 1 for key in repeated)
    types: dict[str, list[str]] = {}
    for _, body in dict(server.posts).items():
        message = json.loads(body)
        types.setdefault(message["data"]["id"], []).append(message["type"])
    assert all(told[0] == "incident.opened" for told in types.values())
    assert any(told[-1] == "incident.resolved" for told in types.values())
