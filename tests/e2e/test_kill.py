"""Killed again and again on real Apache Kafka: every event is counted once, and the incidents are the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.demo.produce import messages_of, produce
from tests.components.kafka import KafkaBroker
from tests.components.waiting import wait_until
from tests.e2e.deployment import Deployment, oracle, traffic

# Where the process kills itself: all but the last fall between detection and commit.
CRASHES = ["before_commit:1", "after_pages:1", "before_transaction_end:1", "after_commit:1"]


CASES = [
    pytest.param("sqlite", 1, "kafka-python", marks=pytest.mark.long),
    ("postgresql", 3, "kafka-python"),
    ("sqlite", 1, "confluent-kafka"),
    pytest.param("postgresql", 1, "kafka-python", marks=pytest.mark.long),
    pytest.param("sqlite", 3, "kafka-python", marks=pytest.mark.long),
]


@pytest.fixture
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def partitions(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def topic(kafka: KafkaBroker, partitions: int, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"kill-{abs(hash(request.node.name)) % 10**8}"
    kafka.create_topic(name, partitions)
    yield name
    kafka.delete_topic(name)


@pytest.mark.parametrize(("store_url", "partitions", "client"), CASES, indirect=["store_url", "partitions"])
def test_counts_and_incidents_survive_kills(
    kafka: KafkaBroker, topic: str, partitions: int, store_url: str, client: str, tmp_path: Path
) -> None:
    if client == "confluent-kafka":
        pytest.importorskip("confluent_kafka", reason="needs the extra `fast`")
    lines = traffic()
    servers = kafka.bootstrap_servers
    killed = Deployment(tmp_path / "killed", servers, topic, f"{topic}-killed", store_url, client=client)
    size = len(lines) // 6
    pieces = [lines[at : at + size] for at in range(0, len(lines), size)]
    kills = 0
    for crash, piece in zip(CRASHES, pieces, strict=False):
        produce(kafka.bootstrap_servers, topic, messages_of(piece))
        daemon = killed.daemon(failpoint=crash)
        daemon.start()
        wait_until(lambda d=daemon: not d.running, 60, f"the crash at {crash}")  # type: ignore[misc]
        assert daemon.returncode == -9
        daemon.close()
        kills += 1
    before = killed.consumed()
    last = killed.daemon()
    last.start()
    for piece in pieces[len(CRASHES) :]:
        produce(kafka.bootstrap_servers, topic, messages_of(piece))
    wait_until(lambda: killed.consumed() > before, 60, "progress before the kill from outside")
    last.kill()
    kills += 1
    last.start()
    killed.wait_consumed(len(lines))
    last.stop()
    last.close()
    assert kills == len(CRASHES) + 1

    status = killed.json("status")
    for model, counts in oracle(lines).items():
        assert killed.queries(model) == dict(counts)
        (row,) = [m for m in status["models"] if m["model"] == model]
        assert row["predictions"] == counts.total() and row["clients"] == len(counts)
    topics = status["topics"]
    assert len(topics) == partitions
    assert sum(t["received"] for t in topics) == sum(t["accepted"] for t in topics) == len(lines)
    assert all(t["next_offset"] == t["received"] and t["gap"] == 0 for t in topics)

    calm = Deployment(
        tmp_path / "calm", kafka.bootstrap_servers, topic, f"{topic}-calm", f"sqlite:///{tmp_path}/calm.db"
    )
    undisturbed = calm.daemon()
    undisturbed.start()
    calm.wait_consumed(len(lines))
    undisturbed.stop()
    undisturbed.close()
    expected, found = calm.incidents(), killed.incidents()
    assert expected, "the drift must be found"
    if partitions == 1:
        assert found == expected
    else:
        assert [i[1:] for i in found] == [i[1:] for i in expected]
