"""Events a second of `run` on real Apache Kafka with all detectors on, beside the cost of polling alone, in one run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaConsumer, TopicPartition

from monitor.demo.produce import messages_of, produce
from monitor.demo.traffic import CreditTraffic
from tests.components.kafka import KafkaBroker
from tests.components.waiting import wait_until
from tests.e2e.deployment import RATE, START, DaemonProcess, Deployment

EVENTS = 200_000


@pytest.fixture
def topic(kafka: KafkaBroker) -> Iterator[str]:
    kafka.create_topic("throughput", 4)
    yield "throughput"
    kafka.delete_topic("throughput")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def resident_megabytes(pid: int) -> float:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def poll_alone(kafka: KafkaBroker, topic: str) -> float:
    """CPU seconds of this process to poll everything."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest", group_id=None)
    consumer.assign([TopicPartition(topic, p) for p in range(4)])
    consumer.seek_to_beginning()
    begin, seen = time.process_time(), 0
    while seen < EVENTS:
        seen += sum(map(len, consumer.poll(timeout_ms=500, max_records=1_000).values()))
    spent = time.process_time() - begin
    consumer.close()
    return spent


def received(daemon: DaemonProcess) -> float:
    lines = [x for x in daemon.metrics().splitlines() if x.startswith("modelwarden_records_received_total")]
    return sum(float(x.split()[1]) for x in lines)


@pytest.mark.long
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_throughput(
    database: str, kafka: KafkaBroker, topic: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    credit = CreditTraffic(7)
    lines = (msgspec.json.encode(e) for _ in range(20) for e in credit.events(EVENTS // 20, START, RATE))
    produce(kafka.bootstrap_servers, topic, messages_of(lines))
    url = f"sqlite:///{tmp_path}/s.db" if database == "sqlite" else request.getfixturevalue("postgres_url")
    place = Deployment(tmp_path, kafka.bootstrap_servers, topic, "throughput", url, commit_interval="10s")
    polled = sorted(poll_alone(kafka, topic) for _ in range(3))[1]
    daemon = place.daemon()
    begin = time.monotonic()
    daemon.start()
    try:
        wait_until(lambda: received(daemon) > 0, 30, "the first record", interval=0.02)
        first = time.monotonic()
        at, before, cpu = first, received(daemon), cpu_seconds(daemon.pid)
        wait_until(lambda: received(daemon) >= EVENTS, 120, "all records", interval=0.1)
        seconds, spent = time.monotonic() - at, cpu_seconds(daemon.pid) - cpu
        n = EVENTS - before
        print(
            f"\n{database}: {n / seconds:,.0f} events/s; CPU {spent / n * 1e6:.1f} µs an event of 10 features;"
            f" poll alone {polled / EVENTS * 1e6:.1f} µs; ratio {spent / n / (polled / EVENTS):.1f};"
            f" first record after {first - begin:.1f} s; {resident_megabytes(daemon.pid):.0f} MB resident"
        )
        place.wait_consumed(EVENTS)
    finally:
        daemon.stop()
        daemon.close()
