"""Prometheus Alertmanager, without its cluster."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import httpx

from tests.components.need import MissingComponent
from tests.components.process import Component, free_ports


class Alertmanager(Component):
    """It groups by all labels and waits for nothing; with `webhook_url` it posts there, also when resolved."""

    name: ClassVar[str] = "alertmanager"

    def __init__(self, webhook_url: str | None = None) -> None:
        self._program = find_alertmanager()
        super().__init__()
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self._webhook_url = webhook_url
        self._config = self.directory / "alertmanager.yml"
        self._http = httpx.Client(base_url=self.url, trust_env=False, timeout=2)

    def prepare(self) -> None:
        receiver: dict[str, Any] = {"name": "test"}
        if self._webhook_url is not None:
            receiver["webhook_configs"] = [{"url": self._webhook_url, "send_resolved": True}]
        route = {
            "receiver": "test",
            "group_by": ["..."],
            "group_wait": "0s",
            "group_interval": "1s",
            "repeat_interval": "1h",
        }
        # JSON is YAML
        self._config.write_text(json.dumps({"route": route, "receivers": [receiver]}), encoding="utf-8")

    def command(self) -> list[str]:
        return [
            self._program,
            f"--config.file={self._config}",
            f"--storage.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]

    def ready(self) -> bool:
        try:
            return self._http.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def alerts(self, **labels: str) -> list[dict[str, Any]]:
        """The alerts that are firing now and have these labels (`GET /api/v2/alerts`)."""
        answer = self._http.get("/api/v2/alerts", params={"filter": [f'{k}="{v}"' for k, v in labels.items()]})
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def post(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        """Send alerts (`POST /api/v2/alerts`)."""
        self._http.post("/api/v2/alerts", json=alerts).raise_for_status()

    def close(self) -> None:
        self._http.close()
        super().close()


def find_alertmanager() -> str:
    """The program, which Debian names otherwise than its makers do."""
    found = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if found is None:
        raise MissingComponent("there is no `alertmanager` on the PATH (Debian: prometheus-alertmanager)")
    return found
