"""Attack loops against a fitted model, and an honest population that drifts, through Apache Kafka and the daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from detectors.base import F64
from monitor.demo.produce import messages_of, produce
from monitor.demo.traffic import rfc3339
from tests.components.kafka import KafkaBroker
from tests.e2e.deployment import START, Deployment
from tests.e2e.fitted_model import MEMBERS, Network, Prober, Thief, boundary_walk, labels, records

ATTACKED, DRIFTED = "attacked", "drifted"
USERS = 15
CALM, ROUNDS = 200, 200
"""Seconds of honest traffic before, and with, attackers. Everybody asks once a second."""
BOUNDARY, THIEF, PROBER = "a-boundary", "b-thief", "c-prober"


@pytest.fixture
def topic(kafka: KafkaBroker) -> Iterator[str]:
    kafka.create_topic("attacks-e2e", 1)
    yield "attacks-e2e"
    kafka.delete_topic("attacks-e2e")


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture(scope="module")
def members(rng: np.random.Generator) -> F64:
    return records(MEMBERS, rng)


@pytest.fixture(scope="module")
def truth(members: F64, rng: np.random.Generator) -> F64:
    return labels(members, rng)


@pytest.fixture(scope="module")
def network(members: F64, truth: F64) -> Network:
    return Network(members, truth, 150)


def answered(network: Network, rows: F64) -> list[dict[str, Any]]:
    """Records with what the model says of them."""
    return [
        {
            "features": {f"f{j}": float(v) for j, v in enumerate(row)},
            "prediction": "yes" if p > 0.5 else "no",
            "scores": {"yes": round(p, 4), "no": round(1 - p, 4)},
        }
        for row, p in zip(rows, network.yes(rows).tolist(), strict=True)
    ]


def asked(model: str, network: Network, who: Sequence[str], rows: F64, second: int) -> list[bytes]:
    """One query of each client in this second."""
    times = START + second + np.arange(len(who)) / len(who)
    events = zip(who, times.tolist(), answered(network, rows), strict=True)
    return [
        msgspec.json.encode(
            {"type": "prediction", "event_id": f"{model}-{second}-{i}", "ts": rfc3339(at), "model": model,
             "client": client, **row}
        )
        for i, (client, at, row) in enumerate(events)
    ]  # fmt: skip


def test_attackers_are_named_for_what_they_do_and_an_honest_drift_is_a_drift(
    kafka: KafkaBroker,
    topic: str,
    rng: np.random.Generator,
    members: F64,
    truth: F64,
    network: Network,
    tmp_path: Path,
) -> None:
    fresh = records(4_000, rng)
    assert ((network.yes(fresh) > 0.5) == (labels(fresh, rng) > 0.5)).mean() > 0.7
    users = [f"user-{k:02d}" for k in range(USERS)]
    thief, others = Thief(network.yes, rng), records(MEMBERS, rng)
    prober = Prober(network.yes, members, others, rng)
    loops = {
        BOUNDARY: boundary_walk(network.yes, records(50, rng), rng),
        THIEF: thief.queries(),
        PROBER: prober.queries(),
    }
    lines: list[bytes] = []
    for second in range(CALM + ROUNDS):
        attackers = list(loops) if second >= CALM else []
        rows = np.concatenate([records(USERS, rng), *(next(loops[a])[None] for a in attackers)])
        lines += asked(ATTACKED, network, [*users, *attackers], rows, second)
        moved = 0.8 if second >= CALM else 0.0
        lines += asked(DRIFTED, network, users, records(USERS, rng, moved), second)
    assert thief.agreement(fresh) > 0.65
    assert prober.advantage(np.concatenate([truth, labels(others, rng)])) > 0.1

    place = Deployment(tmp_path, kafka.bootstrap_servers, topic, topic, f"sqlite:///{tmp_path}/state.db")
    (tmp_path / "members.jsonl").write_text("\n".join(map(json.dumps, answered(network, members))), encoding="utf-8")
    place.models = {name: {"reference": "members.jsonl"} for name in (ATTACKED, DRIFTED)}
    daemon = place.daemon()
    try:
        daemon.start()
        produce(kafka.bootstrap_servers, topic, messages_of(lines))
        place.wait_consumed(len(lines))
        incidents = place.json("incidents", "list", "--limit", "1000")
    finally:
        daemon.stop()
        daemon.close()
    paged = [i for i in incidents if i["severity"] != "info"]
    found = {(i["model"], i["kind"], *(s["id"] for s in i["subjects"] if s["type"] == "client")) for i in paged}
    assert found == {
        (ATTACKED, "adversarial_input", BOUNDARY),
        (ATTACKED, "model_extraction", THIEF),
        (ATTACKED, "membership_inference", PROBER),
        (DRIFTED, "feature_drift"),
    }
    soon = {i["kind"]: datetime.fromisoformat(i["opened_at"]).timestamp() - START - CALM for i in paged}
    assert all(0 < seconds < 30 for seconds in soon.values()), soon
