"""MLServer with a scikit-learn model, serving over Kafka; installed by pip into an environment of its own."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import httpx

from tests.components.kafka.artifacts import cache_directory
from tests.components.need import MissingComponent
from tests.components.process import Component, free_ports

VERSION = "1.7.1"
INSTALL_SECONDS = 600
FIT = """
import joblib, numpy
from sklearn.linear_model import LogisticRegression
rng = numpy.random.default_rng(1)
x = rng.normal(size=(2_000, {width}))
y = (x @ numpy.arange(1, {width} + 1) + rng.normal(size=2_000) > 0).astype(int)
joblib.dump(LogisticRegression().fit(x, y), "model.joblib")
"""


class MLServer(Component):
    """One model `model` of `width` features and two classes, version v3, on the topics `<topics>-input` and -output."""

    name: ClassVar[str] = "mlserver"

    def __init__(self, bootstrap_servers: str, model: str, width: int, topics: str = "mlserver") -> None:
        self._environment = environment()
        super().__init__()
        self._model = model
        self._width = width
        http, grpc, metrics = free_ports(3)
        self._url = f"http://127.0.0.1:{http}"
        self._settings = {
            "kafka_enabled": True,
            "kafka_servers": bootstrap_servers,
            "kafka_topic_input": f"{topics}-input",
            "kafka_topic_output": f"{topics}-output",
            "host": "127.0.0.1",
            "http_port": http,
            "grpc_port": grpc,
            "metrics_port": metrics,
            "parallel_workers": 0,
        }

    def prepare(self) -> None:
        place = self.directory / self._model
        place.mkdir()
        settings = {
            "name": self._model,
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": "./model.joblib", "version": "v3"},
        }
        (self.directory / "settings.json").write_text(json.dumps(self._settings), encoding="utf-8")
        (place / "model-settings.json").write_text(json.dumps(settings), encoding="utf-8")
        fit = f"import os; os.chdir({str(place)!r})\n" + FIT.format(width=self._width)
        self.run_tool([str(self._environment / "bin/python"), "-c", fit])

    def command(self) -> list[str]:
        return [str(self._environment / "bin/mlserver"), "start", str(self.directory)]

    def ready(self) -> bool:
        try:
            answer = httpx.get(f"{self._url}/v2/models/{self._model}/ready", timeout=1, trust_env=False)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200


def environment() -> Path:
    """The virtual environment with MLServer; the first call downloads 150 MB."""
    target = cache_directory() / f"mlserver-{VERSION}"
    target.parent.mkdir(parents=True, exist_ok=True)
    complete = target / "complete"
    with (target.parent / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at a time: the second finds it done
        if not complete.exists():
            _run([sys.executable, "-m", "venv", "--clear", str(target)])
            packages = [f"mlserver=={VERSION}", f"mlserver-sklearn=={VERSION}"]
            _run([str(target / "bin/python"), "-m", "pip", "install", "--quiet", *packages])
            complete.touch()
    return target


def _run(command: list[str]) -> None:
    alone = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_SECONDS, env=alone,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise MissingComponent(f"MLServer was not installed within {INSTALL_SECONDS} s") from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-2_000:]
        raise MissingComponent(f"pip could not install MLServer {VERSION} (needs PyPI or a mirror):\n{said}")
