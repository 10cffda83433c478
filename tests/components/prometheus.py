"""The Prometheus server, and promtool."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import httpx

from tests.components.need import MissingComponent
from tests.components.process import Component, free_ports
from tests.components.waiting import wait_until

JOB = "modelwarden"


class Prometheus(Component):
    """It scrapes `targets` ("host:port", path /metrics) each second as job `modelwarden` and evaluates `rule_files`."""

    name: ClassVar[str] = "prometheus"

    def __init__(self, targets: Sequence[str] = (), rule_files: Sequence[Path] = ()) -> None:
        self._program = find_program("prometheus")
        super().__init__()
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self._targets = list(targets)
        self._rule_files = [str(path) for path in rule_files]
        self._config = self.directory / "prometheus.yml"
        self._http = httpx.Client(base_url=self.url, trust_env=False, timeout=5)

    def prepare(self) -> None:
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": self._rule_files,
            "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": self._targets}]}],
        }
        self._config.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML

    def command(self) -> list[str]:
        return [
            self._program,
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def ready(self) -> bool:
        try:
            return self._http.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def set_targets(self, *targets: str) -> None:
        """Scrape these from now on; returns when they are known."""
        self._targets = list(targets)
        self.prepare()
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)
        wanted = sorted(targets)
        wait_until(lambda: sorted(self._known_targets()) == wanted, 10, f"Prometheus scrapes {wanted}")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result vector of an instant query: `metric` (labels) and `value` (time, text)."""
        return list(self._get("/api/v1/query", query=expression)["result"])

    def targets(self) -> list[dict[str, Any]]:
        """The active targets with `health` (unknown, up, down) and `lastError`."""
        return list(self._get("/api/v1/targets", state="active")["activeTargets"])

    def close(self) -> None:
        self._http.close()
        super().close()

    def _known_targets(self) -> list[str]:
        return [target["labels"]["instance"] for target in self.targets()]

    def _get(self, path: str, **params: str) -> dict[str, Any]:
        answer = self._http.get(path, params=params)
        if answer.is_error:
            raise AssertionError(f"Prometheus refuses {params}: {answer.text}")
        data: dict[str, Any] = answer.json()["data"]
        return data


class Promtool:
    """The checker that comes with Prometheus."""

    def __init__(self) -> None:
        self._program = find_program("promtool")

    def check_metrics(self, exposition: str) -> str:
        """What `promtool check metrics` has against an exposition; empty if nothing."""
        return self._run("check", "metrics", text=exposition)

    def check_rules(self, *files: Path) -> str:
        """What `promtool check rules` has against rule files; empty if nothing."""
        return self._run("check", "rules", *map(str, files))

    def _run(self, *arguments: str, text: str = "") -> str:
        result = subprocess.run(
            [self._program, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        said = result.stdout + result.stderr
        return "" if result.returncode == 0 else said or f"promtool ended with status {result.returncode}"


def find_program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingComponent(f"there is no `{name}` on the PATH (Debian: prometheus)")
    return found
