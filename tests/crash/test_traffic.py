"""A daemon that is killed and started again knows the traffic of topics and series as one that was not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from monitor.demo.traffic import CreditTraffic, write_events
from monitor.intake.sources.memory import MemoryBroker
from monitor.state.store import open_store
from tests.crash.runner import TOPIC, configuration, fill, run

START = 1_763_596_800.0


def events() -> list[dict[str, Any]]:
    """A day of requests of which the last hours fail, and a metric that jumps at the end."""
    rng = np.random.default_rng(1)
    times = START + np.sort(rng.uniform(0, 86_400, 12_000))
    failed = (times > START + 80_000) & (rng.uniform(size=len(times)) < 0.5)
    requests = [
        {"type": "access", "ts": t, "resource": "/v1", "status": 500 if f else 200}
        for t, f in zip(times.tolist(), failed.tolist(), strict=True)
    ]
    values = rng.normal(50, 3, 1_440) + 40 * (np.arange(1_440) > 1_400)
    samples = [
        {"type": "metric", "ts": START + 60.0 * i, "series": "queue", "value": v} for i, v in enumerate(values.tolist())
    ]
    return sorted(requests + samples, key=lambda e: float(e["ts"]))


def outcome(url: str) -> tuple[list[tuple[Any, ...]], dict[str, Any], int]:
    store = open_store(url, "crash")
    try:
        found = [
            (i.id, i.kind, i.subject, i.status, i.why)
            for i in sorted(store.incidents(), key=lambda i: i.id)
            if i.kind != "monitor_health"
        ]
        state = {p.subject: json.loads(p.arrays["json"].tobytes()) for p in store.load_pages() if p.page == "state"}
        return found, state, int(store.status()["access"]["events"])
    finally:
        store.close()


def finished(directory: Path, lines: Sequence[bytes], kills: Sequence[str]) -> tuple[Any, ...]:
    directory.mkdir(exist_ok=True)
    write_events(directory / "reference.jsonl", CreditTraffic(3).reference(500))
    config = configuration(directory)
    broker = MemoryBroker()
    fill(broker, lines, 1)
    for kill in kills:
        assert run(config, broker, kill) != 0
    assert run(config, broker, None) == 0
    return outcome(config.store.url.url)


@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
def test_kills_change_neither_incidents_nor_windows(tmp_path: Path, point: str) -> None:
    lines = [msgspec.json.encode(event) for event in events()]
    calm = finished(tmp_path / "calm", lines, [])
    assert {(kind, subject) for _, kind, subject, *_ in calm[0]} == {
        ("error_burst", f"access:{TOPIC}"), ("traffic_anomaly", "series:queue"),
    }  # fmt: skip
    assert calm[2] == 12_000
    assert finished(tmp_path / "killed", lines, [f"{point}:3", f"{point}:9", f"{point}:14"]) == calm
