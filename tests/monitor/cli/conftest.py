"""A configuration beside an SQLite database with one model, two clients and three incidents in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from alerts.incidents import Incident, IncidentSubject
from detectors.base import Measure, Profile
from monitor.cli.app import app
from monitor.clients import ClientLedger
from monitor.intake.identity import Pseudonyms, derive_key, key_id, load_or_create_key
from monitor.state.store import StateStore, open_store
from monitor.state.unit import CommitUnit, PartitionCounts, Position, Slice, StatePage, SubjectRow

CONFIG = """\
kafka: {{bootstrap_servers: ["unused:9092"], group: g, topics: [{{name: predictions}}]}}
store: {{url: "{url}"}}
api: {{listen: "127.0.0.1:{port}"}}
"""
QUERIES = {"acme": 5, "bolt\x1b[2J": 2}
SUBJECT = "model:/credit-risk"


@dataclass
class Place:
    """A directory with a configuration and, once `fill` was called, a database."""

    directory: Path
    runner: CliRunner

    @property
    def config(self) -> Path:
        return self.directory / "modelwarden.yaml"

    @property
    def key_file(self) -> Path:
        return self.directory / "state.db.key"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.directory}/state.db"

    def write(self, port: int = 9464, url: str = "sqlite:///state.db") -> None:
        self.config.write_text(CONFIG.format(port=port, url=url))

    def run(self, *arguments: str) -> Result:
        """Run a command with this configuration, in this process."""
        return self.runner.invoke(app, [*arguments, "--config", str(self.config)])

    def json(self, *arguments: str) -> Any:
        """What a command that must succeed prints as JSON."""
        result = self.run(*arguments, "--output", "json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    @contextmanager
    def store(self) -> Iterator[StateStore]:
        key = load_or_create_key(self.key_file, create=True)
        opened = open_store(self.url, "g", audit_key=derive_key(key, "audit"), create=True)
        try:
            yield opened
        finally:
            opened.close()

    def fill(self) -> dict[str, str]:
        """Store what a daemon would have stored; client → pseudonym."""
        key = load_or_create_key(self.key_file, create=True)
        names = Pseudonyms(key)
        hidden = {client: names.client(client, 100.0) for client in QUERIES}
        with self.store() as store:
            store.remember("identity_key_id", key_id(key))
            lease = store.acquire_lease("daemon", 30.0)
            assert lease is not None
            store.claim_start("c", [Position("predictions", 0, 0, 0, PartitionCounts())], lease, 1.0)
            unit = CommitUnit(2.0, cluster_id="c", pages=_pages(hidden), identities=names.take_new())
            unit.trail = [Slice("predictions", 0, 0, 8)]
            unit.positions = [Position("predictions", 0, 0, 8, PartitionCounts(8, 7, 1))]
            unit.subjects = [SubjectRow(SUBJECT, "credit-risk", "", 7, 0, 0, 7, 2, True, "watching", "off", False, 1e9)]
            unit.incidents = incidents(hidden["acme"])
            store.commit(unit, lease)
            store.release(lease)
        return hidden


INCOME = Profile(
    (), (0.0, 2.0, 4.0, 8.0), (0.0, 0.25, 0.25, 0.5, 0.0, 0.0, 0.0), (0.0, 0.5, 0.25, 0.25, 0.0, 0.0, 0.0),
    ((0.05, 0.4, 0.2), (0.5, 4.0, 2.0)), 75,
)  # fmt: skip
REGION = Profile(("EU", "(rarer)", "(new)", "(missing)"), (), (1.0, 0.0, 0.0, 0.0), (0.8, 0.0, 0.2, 0.0), (), 75)


def incidents(client: str) -> list[Incident]:
    """One open, one acknowledged and one resolved, oldest first."""
    first = Incident(
        id="inc_open", subject=SUBJECT, model="credit-risk", tenant="", kind="feature_drift", account="drift",
        cause="", severity="warning", severity_max="warning", status="open", model_version="7", opened_at=1000.0,
        resolved_at=None, onset=990.0, why="income: mean 4 → 3 over 75 events",
        subjects=(IncidentSubject("feature", "income\x1b]0;x", 1000.0, "p-9"),), detectors=("predictive_drift",),
        measures=(
            Measure("predictive_drift", "income:mean", 3.0, 4.0, "mean", 75, 990.0, 1000.0, "income", "mean", INCOME),
            Measure("predictive_drift", "region:new", 0.2, 0.0, "share", 75, 990.0, 1000.0, "region", "new", REGION),
        ),
        atlas=(), last_position=1,
    )  # fmt: skip
    who = (IncidentSubject("client", client, 2000.0, None),)
    seen = replace(first, id="inc_seen", opened_at=2000.0, kind="unusual_client", status="acknowledged", subjects=who)
    over = replace(first, id="inc_over", opened_at=3000.0, model="other", status="resolved", resolved_at=3500.0)
    return [first, seen, over]


def _pages(hidden: dict[str, str]) -> list[StatePage]:
    ledger = ClientLedger()
    codes = [code for code, n in enumerate(QUERIES.values()) for _ in range(n)]
    times = np.arange(100.0, 100.0 + len(codes))
    ledger.add(np.array(codes, np.int32), tuple(hidden[client] for client in QUERIES), times)
    return [StatePage(SUBJECT, "watch.clients", "", name, 1, page) for name, page in ledger.dirty().items()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored_logging: None) -> Place:
    """A configuration, and no database yet. The working directory is elsewhere, with no configuration in it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("MODELWARDEN_CONFIG", raising=False)
    monkeypatch.delenv("MODELWARDEN_TRACEBACK", raising=False)
    made = Place(tmp_path, CliRunner())
    made.write()
    return made


@pytest.fixture
def filled(place: Place) -> Place:
    """A configuration and a filled database."""
    place.fill()
    return place


@pytest.fixture
def process() -> Iterator[Any]:
    """Starts `modelwarden` as a process of its own; it ends with the test."""
    started: list[subprocess.Popen[str]] = []
    root = str(Path(__file__).parents[3])

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": root, **options.pop("env", {})}
        command = [sys.executable, "-m", "monitor.cli", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options
        # A process begun in the background of a script ignores interrupts, and its children would, too.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            child = subprocess.Popen(command, text=True, env=environment, **pipes)
        finally:
            signal.signal(signal.SIGINT, before)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()
