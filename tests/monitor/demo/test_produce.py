from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaConsumer, TopicPartition

from monitor.demo.broker import CLIENT_OPTIONS, PARTITIONS
from monitor.demo.produce import Message, Produced, client_of, main, messages_of, produce, read_lines
from monitor.demo.traffic import CreditTraffic, write_events

START = 1_800_000_000.0


def consume(address: str, topic: str, expected: int) -> dict[int, list[tuple[bytes | None, bytes]]]:
    """(key, value) of every record by partition, once `expected` of them have come."""
    consumer = KafkaConsumer(bootstrap_servers=address, enable_auto_commit=False, **CLIENT_OPTIONS)
    partitions = [TopicPartition(topic, i) for i in range(PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    found: dict[int, list[tuple[bytes | None, bytes]]] = {i: [] for i in range(PARTITIONS)}
    deadline = time.monotonic() + 20.0
    while sum(map(len, found.values())) < expected and time.monotonic() < deadline:
        for partition, records in consumer.poll(500).items():
            found[partition.partition] += [(r.key, r.value) for r in records]
    ends = consumer.end_offsets(partitions)
    assert sum(ends.values()) == expected
    consumer.close()
    return found


def test_a_file_arrives_as_it_is_in_order_with_the_client_as_key(embedded: str, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write_events(path, CreditTraffic(1).events(2_000, START, 350.0))
    with path.open("ab") as file:
        file.write(b'{"client": "alder-bank", broken\n\n{"model":"m"}\r\n')
    done = produce(embedded, "round-trip", messages_of(read_lines(path)), client_options=CLIENT_OPTIONS)
    assert (done.sent, done.acknowledged, done.failed, done.error) == (2_002, 2_002, 0, "")
    found = consume(embedded, "round-trip", 2_002)
    lines = [line.rstrip(b"\r\n") for line in read_lines(path) if line.strip()]
    assert sorted(v for records in found.values() for _, v in records) == sorted(lines)
    place = {line: i for i, line in enumerate(lines)}
    home: dict[bytes, int] = {}
    for partition, records in found.items():
        positions = [place[value] for _, value in records]
        assert positions == sorted(positions)
        for key, value in records:
            if key is not None:
                assert json.loads(value)["client"].encode() == key
                assert home.setdefault(key, partition) == partition
    assert len(home) == 40 and len(set(home.values())) > 1


def test_keeps_the_rate(embedded: str) -> None:
    done = produce(embedded, "paced", messages_of([b"x"] * 41), rate=100.0, client_options=CLIENT_OPTIONS)
    assert done.acknowledged == 41
    assert done.seconds >= 0.39


def test_waits_for_the_time_of_a_message(embedded: str) -> None:
    at = time.time() + 0.3
    produce(embedded, "timed", [Message(None, b"x", at)], client_options=CLIENT_OPTIONS)
    assert time.time() >= at - 0.01


def test_stops_when_asked_and_loses_nothing(embedded: str) -> None:
    stop = threading.Event()
    progress = Produced()

    def endless() -> Iterator[Message]:
        for i in count():
            if i == 500:
                stop.set()
            yield Message(None, b"%d" % i)

    done = produce(embedded, "stopped", endless(), client_options=CLIENT_OPTIONS, stop=stop, progress=progress)
    assert done is progress
    assert (done.sent, done.acknowledged, done.failed) == (500, 500, 0)


def test_a_stop_ends_a_long_wait(embedded: str) -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    far = [Message(None, b"x", time.time() + 3_600)]
    done = produce(embedded, "waiting", far, client_options=CLIENT_OPTIONS, stop=stop)
    assert done.sent == 0 and done.seconds < 30


def test_command_sends_a_file_and_prints_the_counts(
    embedded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.jsonl.gz"
    write_events(path, CreditTraffic(2).events(50, START, 350.0))
    where = ["--bootstrap", embedded, "--topic", "command", "--api-version", "2.3"]
    assert main([*where, "--events", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["acknowledged"] == 50
    assert sum(map(len, consume(embedded, "command", 50).values())) == 50


def test_command_names_the_file_it_cannot_read(
    embedded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.jsonl"
    where = ["--bootstrap", embedded, "--topic", "command", "--api-version", "2.3"]
    assert main([*where, "--events", str(path)]) == 1
    assert str(path) in capsys.readouterr().err


@given(st.binary(max_size=200) | st.text(max_size=50).map(lambda t: json.dumps({"client": t}).encode()))
def test_any_bytes_have_a_key_or_none(value: bytes) -> None:
    key = client_of(value)
    assert key is None or isinstance(key, bytes)


def test_key_of_an_event() -> None:
    assert client_of(b'{"features": {"client": "inner"}, "client": "acme"}') == b"acme"
    assert client_of(b'{"model": "m"}') is None
    assert client_of(b'{"client": 7}') is None
    assert client_of(b"[" * 100_000) is None
