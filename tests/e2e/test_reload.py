"""SIGHUP to a real daemon: a bad file changes nothing, a good one is in force without a restart or a lost record."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.daemon import API_VERSION
from monitor.demo.broker import EmbeddedBroker
from tests.components.waiting import wait_until
from tests.e2e.deployment import DaemonProcess, Deployment


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    pytest.importorskip("confluent_kafka")
    monkeypatch.setenv(API_VERSION, "2.3")
    with EmbeddedBroker(["predictions"]) as servers:
        yield Deployment(tmp_path / "d", servers, "predictions", "reload", f"sqlite:///{tmp_path / 'reload.db'}")


def produce(servers: str, first: int, count: int) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": servers})
    for i in range(first, first + count):
        event = {
            "type": "prediction",
            "event_id": f"p-{i}",
            "ts": 1_763_625_600 + i,
            "model": "m",
            "features": {"a": i},
        }
        producer.produce("predictions", json.dumps(event).encode())
    assert producer.flush(20) == 0


def changed(path: Path, **sections: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | sections), encoding="utf-8")


def hup(daemon: DaemonProcess, metric: str) -> None:
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(lambda: f"modelwarden_config_reload_success {metric}" in daemon.metrics(), 15, f"reload {metric}")


def open_causes(deployment: Deployment) -> set[str]:
    found = deployment.json("incidents", "list")
    return {i["evidence"][0]["unit"] for i in found if i["kind"] == "monitor_health" and i["status"] == "open"}


def test_sighup(deployment: Deployment) -> None:
    config, port = deployment.configure()
    good = config.read_text("utf-8")
    with DaemonProcess(config, port) as daemon:
        wait_until(daemon.active, 15, "active")
        produce(deployment.bootstrap_servers, 0, 700)
        deployment.wait_consumed(700)

        config.write_text("{", encoding="utf-8")
        hup(daemon, "0.0")
        wait_until(lambda: open_causes(deployment) == {"configuration errors"}, 15, "incident", 0.5)

        config.write_text(good, encoding="utf-8")
        changed(config, budget={"drift": 3}, models={"m": {}})
        hup(daemon, "1.0")
        wait_until(lambda: open_causes(deployment) == set(), 15, "incident closed", 0.5)
        produce(deployment.bootstrap_servers, 700, 300)
        deployment.wait_consumed(1_000)
        (model,) = (m for m in deployment.json("status")["models"] if m["model"] == "m")
        assert model["predictions"] == 1_000

        changed(config, notify="off", api={"listen": "127.0.0.1:1"})
        hup(daemon, "0.0")
        wait_until(lambda: open_causes(deployment) == {"keys that wait for a restart"}, 15, "incident", 0.5)
        log = daemon.log.read_text("utf-8")
        assert "api.listen cannot be changed by a reload" in log
        assert daemon.running
        assert log.count("lease taken") == 1
        daemon.stop()
        assert daemon.returncode == 0
        assert "notify is off: would have paged" in daemon.log.read_text("utf-8")
    acts = audited(deployment)
    assert [a["changed"] for a in acts] == [["budget.drift", "models.credit-risk", "models.m"], ["notify"]]
    assert acts[1]["refused"] == ["api.listen"]
    assert all(len(a["sha256"]) == 64 for a in acts)


def audited(deployment: Deployment) -> list[dict[str, Any]]:
    import sqlite3

    with sqlite3.connect(deployment.store_url.removeprefix("sqlite:///")) as database:
        rows = database.execute("SELECT detail FROM audit WHERE action = 'config.reload' ORDER BY seq").fetchall()
    return [json.loads(detail) for (detail,) in rows]
