"""A deployment under test: a directory with configuration and reference, daemons as processes, and the CLI."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from monitor.demo.traffic import CreditTraffic, write_events
from tests.components.process import Component, free_ports
from tests.components.waiting import wait_until

MODELS = ("credit-risk", "loan-pricing")
START = 1_763_625_600.0
RATE = 100.0
DRIFT_AT = 2_000
EVENTS = 4_000
"""Per model; the first model drifts from DRIFT_AT on."""


class DaemonProcess(Component):
    """`modelwarden run`, as a component: started, killed, frozen and thawed by process id."""

    name = "modelwarden"

    def __init__(self, config: Path, port: int, failpoint: str | None = None) -> None:
        super().__init__()
        self._config = config
        self._failpoint = failpoint
        self.url = f"http://127.0.0.1:{port}"

    def command(self) -> list[str]:
        armed = [f"MODELWARDEN_FAILPOINT={self._failpoint}"] if self._failpoint else []
        return ["env", *armed, sys.executable, "-m", "monitor.cli", "run", "--config", str(self._config)]

    def ready(self) -> bool:
        if self._failpoint:
            return True  # it may be dead before anybody asks
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def active(self) -> bool:
        return "modelwarden_active 1.0" in self.metrics()

    def metrics(self) -> str:
        try:
            return httpx.get(f"{self.url}/metrics", timeout=2).text
        except httpx.HTTPError:
            return ""


@dataclass
class Deployment:
    """One group on one database reading one topic."""

    directory: Path
    bootstrap_servers: str
    topic: str
    group: str
    store_url: str
    alertmanager: str | None = None
    commit_interval: str = "1s"
    client: str = "kafka-python"
    models: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"credit-risk": {"reference": "reference.jsonl.gz"}}
    )

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        write_events(self.directory / "reference.jsonl.gz", CreditTraffic(7).reference(1_000))
        key = self.directory / "identity.key"
        key.write_text("0123456789abcdef" * 4, encoding="ascii")
        key.chmod(0o600)

    def configure(self, name: str = "a") -> tuple[Path, int]:
        """Write a configuration with an address of its own; its path and port."""
        (port,) = free_ports(1)
        receiver = {"am": {"type": "alertmanager", "urls": [self.alertmanager]}} if self.alertmanager else {}
        config = {
            "kafka": {
                "bootstrap_servers": [self.bootstrap_servers],
                "group": self.group,
                "client": self.client,
                "topics": [{"name": self.topic, "start": "earliest", "live": False}],
            },
            "store": {"url": self.store_url, "commit_interval": self.commit_interval},
            "identity": {"key_file": "identity.key"},
            "models": self.models,
            "receivers": receiver,
            "api": {"listen": f"127.0.0.1:{port}"},
        }
        path = self.directory / f"{name}.yaml"
        path.write_text(json.dumps(config), encoding="utf-8")
        return path, port

    def daemon(self, name: str = "a", failpoint: str | None = None) -> DaemonProcess:
        """A daemon, not started yet."""
        return DaemonProcess(*self.configure(name), failpoint)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the CLI."""
        config, _ = self.configure("cli")
        command = [sys.executable, "-m", "monitor.cli", *arguments, "--config", str(config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def json(self, *arguments: str) -> Any:
        """What a command prints with `--output json`."""
        done = self.run(*arguments, "--output", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def consumed(self) -> int:
        """Records whose offsets are committed; 0 while there is no database."""
        done = self.run("status", "--output", "json")
        return sum(t["received"] for t in json.loads(done.stdout)["topics"]) if done.returncode == 0 else 0

    def wait_consumed(self, records: int, deadline: float = 90) -> None:
        """Wait until so many records are counted."""
        wait_until(lambda: self.consumed() >= records, deadline, f"{records} records consumed", interval=0.5)

    def incidents(self) -> list[tuple[str, str, str | None, tuple[str, ...]]]:
        """(id, kind, model, subjects) of all incidents, in order of opening."""
        found = self.json("incidents", "list", "--limit", "1000")
        ordered = sorted(found, key=lambda i: (i["opened_at"], i["id"]))
        return [(i["id"], i["kind"], i["model"], tuple(sorted(s["id"] for s in i["subjects"]))) for i in ordered]

    def queries(self, model: str) -> dict[str, int]:
        """Queries per client, as `clients show` tells."""
        return {row["client"]: row["queries"] for row in self.json("clients", "show", "--model", model)}


def traffic() -> list[bytes]:
    """The demo's traffic of two models, interleaved; the first drifts."""
    drifting, steady = CreditTraffic(7, model=MODELS[0]), CreditTraffic(8, model=MODELS[1])
    after = START + DRIFT_AT / RATE
    first = drifting.events(DRIFT_AT, START, RATE) + drifting.events(EVENTS - DRIFT_AT, after, RATE, "income")
    second = steady.events(EVENTS, START, RATE)
    pairs = zip(first, second, strict=True)
    return [msgspec.json.encode(event) for pair in pairs for event in pair]


def oracle(lines: Sequence[bytes]) -> dict[str, Counter[str]]:
    """Queries per model and client, counted from the produced lines."""
    counts: dict[str, Counter[str]] = {}
    for line in lines:
        event = json.loads(line)
        counts.setdefault(event["model"], Counter())[event["client"]] += 1
    return counts
