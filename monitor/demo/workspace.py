"""The directory of a demo: reference, configuration, database and log. It is kept when the demo ends."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monitor.demo.traffic import CreditTraffic, write_events

TOPIC = "predictions"
GROUP = "modelwarden"
REFERENCE_ROWS = 4_000

_CONFIG = """\
# Written by `modelwarden demo`. The broker it names ends with the demo; the database stays.
kafka:
  bootstrap_servers: [{bootstrap}]
  group: {group}
  topics:
    - {{name: {topic}, type: auto, live: true, start: earliest}}
store: {{url: "sqlite:///modelwarden.db", commit_interval: 2s}}
models:
  {model}:
    owner: demo
    reference: reference.jsonl.gz
    classes: ["no", "yes"]
api: {{listen: "127.0.0.1:{port}"}}
"""


class WorkspaceError(RuntimeError):
    """The directory cannot be used. The text names it and the mend."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where the files of one demo lie, and where its daemon listens."""

    directory: Path
    port: int
    training: Sequence[Mapping[str, Any]] = ()
    """Rows the model was trained on: the reference."""

    @property
    def config(self) -> Path:
        return self.directory / "modelwarden.yaml"

    @property
    def database(self) -> Path:
        return self.directory / "modelwarden.db"

    @property
    def key(self) -> Path:
        """The identity key, which the daemon makes beside its database."""
        return self.directory / "modelwarden.db.key"

    @property
    def store_url(self) -> str:
        return f"sqlite:///{self.database}"

    @property
    def log(self) -> Path:
        return self.directory / "daemon.log"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/metrics"


def make_workspace(directory: Path | None, traffic: CreditTraffic, bootstrap_servers: str) -> Workspace:
    """Write reference and configuration to `directory`, or to a new temporary one.

    WorkspaceError when it cannot be written, or holds a demo already: its counts would be those of another stream.
    """
    try:
        if directory is None:
            directory = Path(tempfile.mkdtemp(prefix="modelwarden-demo-"))
        directory.mkdir(parents=True, exist_ok=True)
        place = Workspace(directory.absolute(), _free_port())
        for file in (place.config, place.database):
            if file.exists():
                raise WorkspaceError(f"{file} is already there: name a new directory for the demo")
        place = replace(place, training=traffic.reference(REFERENCE_ROWS))
        write_events(place.directory / "reference.jsonl.gz", place.training)
        place.config.write_text(_config(traffic.model, bootstrap_servers, place.port), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise WorkspaceError(f"{directory}: the demo cannot write here ({reason}); name another directory") from error
    return place


def _config(model: str, bootstrap_servers: str, port: int) -> str:
    server = json.dumps(bootstrap_servers)
    return _CONFIG.format(bootstrap=server, group=GROUP, topic=TOPIC, model=json.dumps(model), port=port)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
