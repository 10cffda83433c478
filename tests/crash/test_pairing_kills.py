"""Killed between request and response: every pair is made once, and what finds no other half is counted once."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from monitor.config import Config, parse_config
from monitor.demo.traffic import CreditTraffic
from monitor.failpoints import DELIVERY, FAILPOINTS
from monitor.intake.pairing import OUTCOMES
from monitor.intake.sources.memory import MemoryBroker
from monitor.state.store import open_store
from tests.crash.runner import configuration, counts, incidents, run

INPUT, OUTPUT = "mlserver-input", "mlserver-output"
KILLED = -9
START = 1_763_625_600.0
Told = tuple[str, str, str | None, tuple[str, ...], str]
REQUESTS, ROWS, DRIFT_AT = 1_200, 2, 700


def joined(directory: Path) -> Config:
    """Two topics that are one log of predictions."""
    configuration(directory)  # makes the identity key
    text = f"""
kafka:
  bootstrap_servers: ["unused:9092"]
  group: crash
  topics:
    - {{name: {INPUT}, start: earliest, format: oip-v2, type: request, client_from: ["header:x-client-id"]}}
    - {{name: {OUTPUT}, start: earliest, format: oip-v2, type: response}}
store: {{url: "sqlite:///{directory}/state.db", commit_interval: 0.2s}}
identity: {{key_file: {directory}/identity.key}}
models: {{credit-risk: {{classes: ["no", "yes"]}}}}
api: {{listen: "127.0.0.1:0"}}
"""
    return parse_config(text, directory / "modelwarden.yaml")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return joined(tmp_path)


@pytest.fixture(scope="module")
def broker() -> MemoryBroker:
    """Requests and responses: every 50th request unanswered, every 60th response without a request, some far apart."""
    made = MemoryBroker()
    made.create_topic(INPUT)
    made.create_topic(OUTPUT)
    rng = random.Random(4)
    credit = CreditTraffic(3)
    rows = credit.events(DRIFT_AT * ROWS, START, 100.0)
    rows += credit.events((REQUESTS - DRIFT_AT) * ROWS, START + 70, 100.0, "income")
    responses = []
    for i in range(REQUESTS):
        batch, key, at = rows[i * ROWS : (i + 1) * ROWS], f"r-{i}".encode(), START + i / 10
        if i % 60:
            made.produce(INPUT, 0, _request(batch), key, [("x-client-id", f"c{i % 5}".encode())], at)
        if i % 50:
            responses.append((i + rng.uniform(-40, 40), key, at + 0.02))
    for _, key, at in sorted(responses):
        made.produce(OUTPUT, 0, _response(), key, (), at)
    return made


def _request(batch: list[dict[str, Any]]) -> bytes:
    numbers = {
        name: [event["features"][name] for event in batch]
        for name, value in batch[0]["features"].items()
        if isinstance(value, float)
    }
    tensors = [{"name": n, "shape": [ROWS], "datatype": "FP64", "data": data} for n, data in numbers.items()]
    return json.dumps({"inputs": tensors}).encode()


def _response() -> bytes:
    output = {"name": "predict", "shape": [ROWS, 1], "datatype": "INT64", "data": [0, 1]}
    return json.dumps({"model_name": "credit-risk", "outputs": [output]}).encode()


def pairing(config: Config) -> tuple[dict[str, int], int]:
    """What became of halves, and how many wait, as SQL has them."""
    store = open_store(config.store.url.url, "crash")
    pages = {page.page: page for page in store.load_pages(f"pairing:{INPUT}")}
    store.close()
    counts = pages.pop("counts").arrays["counts"].tolist()[1:]
    waiting = sum(len(msgspec.msgpack.decode(page.arrays["halves"].tobytes())) for page in pages.values())
    return dict(zip(OUTCOMES, counts, strict=True)), waiting


@pytest.fixture(scope="module")
def undisturbed(broker: MemoryBroker, tmp_path_factory: pytest.TempPathFactory) -> list[Told]:
    calm = joined(tmp_path_factory.mktemp("undisturbed"))
    assert run(calm, broker, None) == 0
    return incidents(calm)


@pytest.mark.parametrize("name", sorted(FAILPOINTS.keys() - DELIVERY))
def test_a_crash_there_changes_no_pair(
    name: str,
    broker: MemoryBroker,
    config: Config,
    undisturbed: list[Told],
) -> None:
    assert run(config, broker, f"{name}:3") == (0 if name == "after_claim" else KILLED)
    assert run(config, broker, f"{name}:2") in (0, KILLED)
    assert run(config, broker, None) == 0
    unmatched = len([i for i in range(REQUESTS) if i % 60 == 0 and i % 50])
    unanswered = len([i for i in range(REQUESTS) if i % 50 == 0 and i % 60])
    neither = len([i for i in range(REQUESTS) if i % 300 == 0])
    found, waiting = pairing(config)
    paired = REQUESTS - unmatched - unanswered - neither
    assert found == dict.fromkeys(OUTCOMES, 0) | {"paired": paired}
    assert waiting == unmatched + unanswered
    assert counts(config)["predictions credit-risk"] == ROWS * paired
    assert [i[1:4] for i in incidents(config)] == [i[1:4] for i in undisturbed]
    assert any("feature_drift" in i for i in undisturbed)
