"""A real serving system: MLServer with a scikit-learn model on real Apache Kafka, watched as the README says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from detectors.base import F64
from tests.components.kafka import KafkaBroker
from tests.components.mlserver import MLServer
from tests.components.process import free_ports
from tests.components.waiting import wait_until
from tests.e2e.deployment import Deployment
from tests.readme import yaml_block

MODEL, FEATURES = "credit-risk", ["income", "age", "debt", "tenure"]
INPUT, OUTPUT = "mlserver-input", "mlserver-output"
CLIENTS = [f"shop-{i}" for i in range(8)]
ROWS = 5
"""Of a batch request."""
QUERIES = 400
"""Of the extraction loop."""


class AsInReadme(Deployment):
    """The README's configuration, with the addresses of this test."""

    def configure(self, name: str = "a") -> tuple[Path, int]:
        (port,) = free_ports(1)
        config: dict[str, Any] = yaml.safe_load(yaml_block("modelwarden.yaml for MLServer"))
        config["kafka"] |= {"bootstrap_servers": [self.bootstrap_servers], "group": self.group}
        config["store"] = {"url": self.store_url, "commit_interval": "1s"}
        config["identity"] = {"key_file": "identity.key"}
        config["api"] = {"listen": f"127.0.0.1:{port}"}
        path = self.directory / f"{name}.yaml"
        path.write_text(json.dumps(config), encoding="utf-8")
        return path, port


class Requests:
    """A producer of requests to MLServer, and what it sent."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._producer = KafkaProducer(bootstrap_servers=bootstrap_servers)
        self._consumer = KafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None)
        self._consumer.assign([TopicPartition(OUTPUT, p) for p in range(2)])
        self.records = self.rows = 0

    def send(self, client: str, rows: np.ndarray[Any, Any], model: str = MODEL) -> None:
        """One request; several rows nested, one row flat."""
        data = rows.tolist() if len(rows) > 1 else rows.ravel().tolist()
        body = {
            "inputs": [{"name": "x", "shape": list(rows.shape), "datatype": "FP64", "data": data}],
            "outputs": [{"name": "predict"}, {"name": "predict_proba"}],
        }
        key = f"r-{self.records}".encode()
        headers = [("mlserver-model", model.encode()), ("x-client-id", client.encode())]
        self._producer.send(INPUT, json.dumps(body).encode(), key, headers)
        self.records += 1
        self.rows += len(rows)

    def answered(self) -> int:
        """Records on the output topic."""
        self._producer.flush()
        ends: dict[TopicPartition, int] = self._consumer.end_offsets(self._consumer.assignment())
        return sum(ends.values())

    def close(self) -> None:
        self._producer.close()
        self._consumer.close()


@pytest.fixture
def requests(kafka: KafkaBroker) -> Iterator[Requests]:
    for topic in (INPUT, OUTPUT):
        kafka.create_topic(topic, 2)
    made = Requests(kafka.bootstrap_servers)
    yield made
    made.close()
    for topic in (INPUT, OUTPUT):
        kafka.delete_topic(topic)


def people(rng: np.random.Generator, n: int) -> F64:
    """(n, features) that hang together as those of people do. Without that an extraction could not be told from the
    same data on another scale."""
    made: F64 = 0.8 * rng.normal(size=(n, 1)) + 0.6 * rng.normal(size=(n, len(FEATURES)))
    return made


def population(requests: Requests, rng: np.random.Generator, batches: int, shift: float, first: int = 0) -> None:
    """Batches of honest clients in turn; `shift` moves their income."""
    for i in range(first, first + batches):
        rows = people(rng, ROWS)
        rows[:, 0] += shift
        requests.send(CLIENTS[i % len(CLIENTS)], rows)


def extraction_loop(requests: Requests, rng: np.random.Generator, queries: int, shift: float) -> str:
    """One client asks for points all over the input space, one by one, while the others go on. Returns its name.

    There are twice as many queries as honest batches.
    """
    for i in range(queries // 2):
        for _ in range(2):
            requests.send("scraper", rng.uniform(-4, 4, size=(1, len(FEATURES))))
        population(requests, rng, 1, shift, first=i)
    return "scraper"


def outcomes(metrics: str) -> dict[str, float]:
    """`modelwarden_pairing_total` by outcome."""
    found = re.findall(r'^modelwarden_pairing_total\{outcome="(\w+)",topic="mlserver-input"\} (\S+)', metrics, re.M)
    return {outcome: float(value) for outcome, value in found}


def test_a_shifted_population_and_an_extraction_loop_are_found_behind_mlserver(
    kafka: KafkaBroker, requests: Requests, start_mlserver: Callable[..., MLServer], tmp_path: Path
) -> None:
    place = AsInReadme(tmp_path, kafka.bootstrap_servers, INPUT, "mlserver", f"sqlite:///{tmp_path}/state.db")
    start_mlserver(kafka.bootstrap_servers, MODEL, len(FEATURES))
    daemon = place.daemon()
    rng = np.random.default_rng(11)
    try:
        daemon.start()

        def warm() -> bool:
            # MLServer reads from the end of its topic, and does not say from when on.
            requests.send(CLIENTS[0], people(rng, 1))
            return requests.answered() > 0

        wait_until(warm, 30, "MLServer answers the first request", interval=0.5)
        population(requests, rng, 400, shift=0.0)
        wait_until(lambda: requests.answered() >= 400, 60, "the honest requests are answered")
        wait_until(lambda: outcomes(daemon.metrics()).get("paired", 0) >= 400, 30, "requests joined to responses")
        assert [i for i in place.json("incidents", "list") if i["severity"] != "info"] == []

        population(requests, rng, 300, shift=1.5)
        requests.send(CLIENTS[0], people(rng, 2), model="nobody")
        wait_until(
            lambda: "feature_drift" in {i["kind"] for i in place.json("incidents", "list")}, 60, "the drift is found"
        )
        (drift,) = [i for i in place.json("incidents", "list") if i["kind"] == "feature_drift"]
        assert (drift["model"], drift["model_version"]) == (MODEL, "v3")
        assert "income" in {s["id"] for s in drift["subjects"]}

        scraper = extraction_loop(requests, rng, QUERIES, shift=1.5)
        answered = requests.answered
        wait_until(lambda: answered() >= 701 + QUERIES * 3 // 2, 60, "the queries are answered")
        wait_until(lambda: outcomes(daemon.metrics())["paired"] == answered(), 30, "all responses joined")
        waiting = f'modelwarden_pairing_waiting{{half="request",topic="{INPUT}"}} {requests.records - answered()}.0'
        wait_until(lambda: waiting in daemon.metrics(), 10, "requests without a response are seen to wait")

        def attacks() -> list[dict[str, Any]]:
            return [i for i in place.json("incidents", "list") if i["kind"] == "model_extraction"]

        wait_until(lambda: attacks() != [], 30, "the extraction loop is found")
        named = {subject["id"] for incident in attacks() for subject in incident["subjects"]}
        daemon.stop()
        said = daemon.log.read_text(encoding="utf-8", errors="replace")
    finally:
        daemon.stop()
        daemon.close()
    queries = place.queries(MODEL)
    (model,) = [m for m in place.json("status")["models"] if m["model"] == MODEL]
    assert model["clients"] == len(queries) == len(CLIENTS) + 1
    assert named == {client for client, n in queries.items() if n == QUERIES}
    assert scraper not in said and scraper.encode() not in (tmp_path / "state.db").read_bytes()
