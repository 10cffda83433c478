"""Apache Kafka as a source: hints, a broker that goes away, topics that must not be made, options."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka import TopicPartition as KafkaTopicPartition
from kafka.errors import KafkaError

from monitor.intake.sources.base import Loss, SourceError, SourceTopic, SourceUnavailable, TopicPartition
from monitor.intake.sources.kafka import KafkaSource
from tests.components.kafka import KafkaBroker
from tests.components.need import MissingComponent, give_up
from tests.components.process import free_ports
from tests.components.waiting import wait_until
from tests.conformance.source_worlds import KafkaWorld, begin, discover, new_name, read, read_losses, transactions


@pytest.fixture
def world(kafka: KafkaBroker) -> Iterator[KafkaWorld]:
    with ExitStack() as stack:
        yield KafkaWorld(stack, kafka)


@pytest.fixture(scope="module")
def own_broker() -> Iterator[KafkaBroker]:
    """A broker that makes topics when they are named, and that may be stopped."""
    with ExitStack() as stack:
        try:
            broker = KafkaBroker({"auto.create.topics.enable": "true"})
        except MissingComponent as missing:
            give_up("kafka", str(missing))
        stack.callback(broker.close)
        yield broker.start()


@pytest.fixture
def own_world(own_broker: KafkaBroker) -> Iterator[KafkaWorld]:
    own_broker.heal()
    with ExitStack() as stack:
        yield KafkaWorld(stack, own_broker)


def test_hinted_offsets_are_those_of_the_group(world: KafkaWorld) -> None:
    topic, group = world.create(2), new_name()
    for partition in (0, 1):
        world.produce(topic, partition, b"x")
    source = world.source(SourceTopic(topic, "earliest"), group=group)
    begin(source)
    read(source, 2)

    def committed() -> dict[int, int]:
        with world.broker.admin() as admin:
            offsets = admin.list_group_offsets({group: None})[group]
        return {tp.partition: at.offset for tp, at in offsets.items() if tp.topic == topic}

    def hinted() -> bool:
        source.hint({TopicPartition(topic, 0): 1, TopicPartition(topic, 1): 1})
        with suppress(KafkaError):  # the first group of a cluster has no coordinator for some time
            return committed() == {0: 1, 1: 1}
        return False

    wait_until(hinted, 20, "offsets of the group")
    # the last of several counts, and closing does not cut it off
    for at in range(2, 6):
        source.hint({TopicPartition(topic, 0): at})
    source.close()
    assert committed() == {0: 5, 1: 1}


def test_without_a_group_nothing_is_published(world: KafkaWorld) -> None:
    topic = world.create(1)
    world.produce(topic, 0, b"x")
    with world.broker.admin() as admin:
        before = {group["group_id"] for group in admin.list_groups()}
        source = world.source(SourceTopic(topic, "earliest"))
        begin(source)
        read(source, 1)
        source.hint({TopicPartition(topic, 0): 1})
        source.close()
        assert {group["group_id"] for group in admin.list_groups()} <= before


def test_an_open_transaction_is_neither_read_nor_skipped(world: KafkaWorld) -> None:
    topic = world.create(1)
    world.produce(topic, 0, b"before")
    with transactions(world.broker.bootstrap_servers) as producer:
        producer.begin_transaction()
        producer.send(topic, b"open", partition=0).get(timeout=10)
        source = world.source(SourceTopic(topic, "latest"))
        # a first start in the middle of a transaction begins where it does
        assert begin(source) == {TopicPartition(topic, 0): 1}
        assert source.poll(0.7, 10).records == []
        producer.commit_transaction()
        assert [r.value for r in read(source, 1)] == [b"open"]


def test_records_larger_than_a_fetch_come(world: KafkaWorld) -> None:
    topic = world.create(1)
    big = b"x" * 300_000
    for value in (b"a", big, b"z"):
        world.produce(topic, 0, value)
    servers = [world.broker.bootstrap_servers]
    options = {"max_partition_fetch_bytes": 1000, "fetch_max_bytes": 2000}
    source = KafkaSource(servers, [SourceTopic(topic, "earliest")], client_options=options)
    try:
        begin(source)
        assert [r.value for r in read(source, 3)] == [b"a", big, b"z"]
    finally:
        source.close()


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_all_compressions_are_read(world: KafkaWorld, codec: str) -> None:
    topic = world.create(1)
    producer = KafkaProducer(
        bootstrap_servers=world.broker.bootstrap_servers, compression_type=codec, linger_ms=1000, batch_size=65536
    )
    for i in range(50):
        producer.send(topic, b"%d" % i, partition=0)
    producer.close()
    source = world.source(SourceTopic(topic))
    source.own({TopicPartition(topic, 0): 17})
    assert [(r.offset, r.value) for r in read(source, 33, max_records=10)] == [(i, b"%d" % i) for i in range(17, 50)]


def test_deleted_under_an_open_partition(world: KafkaWorld) -> None:
    """The consumer itself finds its position gone: the offsets were in range when the partition was opened."""
    topic = world.create(1)
    world.produce(topic, 0, b"0")
    source = world.source(SourceTopic(topic, "earliest"))
    begin(source)
    read(source, 1)
    source.pause()
    source.poll(1.0, 10)  # no fetch is under way after this
    for i in range(1, 9):
        world.produce(topic, 0, b"%d" % i)
    world.delete_before(topic, 0, 6)
    source.resume()
    assert read_losses(source, 1) == [Loss(topic, 0, expected=1, first_available=6, lost=5, followed=6)]
    assert [r.value for r in read(source, 3)] == [b"6", b"7", b"8"]


def test_reading_makes_no_topic(own_world: KafkaWorld) -> None:
    """On a cluster that makes topics when they are named, neither a missing nor a deleted one comes back."""
    present, missing = own_world.create(1), new_name()
    own_world.produce(present, 0, b"x")
    source = own_world.source(SourceTopic(present, "earliest"), SourceTopic(missing))
    assert source.discover() == [TopicPartition(present, 0)]
    begin(source)
    read(source, 1)
    own_world.delete(present)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert source.poll(0.2, 10).records == []
    assert source.discover() == []
    assert missing in str(source.condition) and present in str(source.condition)
    with own_world.broker.admin() as admin:
        assert not {present, missing} & set(admin.list_topics())


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_broker_that_goes_and_comes_back(own_world: KafkaWorld, how: str) -> None:
    topic = own_world.create(1)
    own_world.produce(topic, 0, b"before")
    source = own_world.source(SourceTopic(topic, "earliest"), group=new_name())
    begin(source)
    read(source, 1)
    getattr(own_world.broker, how)()
    wait_until(lambda: source.poll(0.2, 10).records == [] and source.condition, 20, "condition", interval=0)
    assert str(source.condition).startswith(f"no broker of {own_world.broker.bootstrap_servers} answers")
    assert source.discover() == [TopicPartition(topic, 0)]
    assert source.lag().keys() <= {TopicPartition(topic, 0)}
    source.hint({TopicPartition(topic, 0): 1})
    with pytest.raises(SourceUnavailable):
        source.cluster_id()
    own_world.broker.start()
    own_world.produce(topic, 0, b"after")
    assert [(r.offset, r.value) for r in read(source, 1, deadline=30)] == [(1, b"after")]
    assert source.condition is None
    assert discover(source, 1) == [TopicPartition(topic, 0)]
    source.hint({TopicPartition(topic, 0): 2})
    source.close()


def test_a_frozen_broker_delays_no_call_for_long(own_world: KafkaWorld) -> None:
    topic = own_world.create(1)
    own_world.produce(topic, 0, b"x")
    servers = [own_world.broker.bootstrap_servers]
    source = KafkaSource(servers, [SourceTopic(topic, "earliest")], group="frozen", call_timeout=1.0)
    try:
        begin(source)
        read(source, 1)
        own_world.broker.sigstop()
        for call in (source.discover, source.lag, lambda: source.hint({TopicPartition(topic, 0): 1})):
            start = time.monotonic()
            call()
            source.poll(0.1, 10)
            assert time.monotonic() - start < 2.5
        assert "broker" in str(source.condition)
        own_world.broker.sigcont()
        own_world.produce(topic, 0, b"y")
        assert [r.value for r in read(source, 1, deadline=40)] == [b"y"]
    finally:
        own_world.broker.sigcont()
        source.close()


def test_a_start_without_a_broker_is_unavailable_and_leaves_no_thread() -> None:
    source = KafkaSource([f"127.0.0.1:{free_ports(1)[0]}"], [SourceTopic("t")], call_timeout=0.5)
    threads = {t for t in threading.enumerate() if t.name.startswith("kafka-io")}
    for _ in range(3):
        with pytest.raises(SourceUnavailable, match="no broker"):
            source.cluster_id()
        assert source.discover() == []
        assert "no broker" in str(source.condition)
    source.own({TopicPartition("t", 0): 5})
    assert source.poll(0.1, 10).records == []
    source.close()
    wait_until(
        lambda: {t for t in threading.enumerate() if t.name.startswith(("kafka-io", "kafka-admin"))} <= threads,
        10,
        "threads gone",
    )


def test_a_closed_source_leaves_no_thread(world: KafkaWorld) -> None:
    topic = world.create(1)
    threads = set(threading.enumerate())
    source = world.source(SourceTopic(topic, "earliest"), group=new_name())
    begin(source)
    source.poll(0.2, 1)
    source.hint({TopicPartition(topic, 0): 0})
    assert set(threading.enumerate()) > threads
    source.close()
    wait_until(lambda: set(threading.enumerate()) <= threads, 10, "threads gone")


def test_an_error_of_the_client_is_survived_without_a_gap(world: KafkaWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = world.create(1)
    for i in range(4):
        world.produce(topic, 0, b"%d" % i)
    source = world.source(SourceTopic(topic, "earliest"))
    begin(source)
    assert [r.value for r in read(source, 2, max_records=2)] == [b"0", b"1"]

    def broken(*_: object, **__: object) -> None:
        raise AssertionError("checksum")

    monkeypatch.setattr(source._consumer, "poll", broken)
    assert source.poll(0.2, 10).records == []
    assert "checksum" in str(source.condition)
    assert [r.value for r in read(source, 2)] == [b"2", b"3"]
    assert source.condition is None


def test_what_kafka_python_had_of_a_partition_that_was_let_go(world: KafkaWorld) -> None:
    """Its leftovers of a half-read partition make the next poll stumble; that is not a reason to connect anew."""
    topic = world.create(2)
    for partition in (0, 1):
        for _ in range(5):
            world.produce(topic, partition, b"x")
    source = world.source(SourceTopic(topic))
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    source.own({first: 0})
    read(source, 2, max_records=2)
    consumer = source._consumer
    source.own({second: 0})
    assert [r.partition for r in read(source, 5)] == [1] * 5
    assert source._consumer is consumer


def test_options_are_checked_when_the_source_is_made(tmp_path: Path) -> None:
    for options, message in (
        ({"sasl_username": "x"}, "no settings sasl_username"),
        ({"enable_auto_commit": True, "group_id": "g"}, "enable_auto_commit, group_id cannot be changed"),
        ({"ssl_cafile": str(tmp_path / "ca.pem")}, r"ssl_cafile: .*ca\.pem cannot be read"),
    ):
        with pytest.raises(SourceError, match=message):
            KafkaSource(["127.0.0.1:1"], [SourceTopic("t")], client_options=options)


def test_the_consumer_is_set_up_as_the_rules_need_it(world: KafkaWorld) -> None:
    topic = world.create(1)
    options = {"sasl_mechanism": "PLAIN", "sasl_plain_username": "u", "sasl_plain_password": "p"}
    source = KafkaSource([world.broker.bootstrap_servers], [SourceTopic(topic)], client_options=options)
    try:
        source.own({TopicPartition(topic, 0): 0})
        source.poll(0.2, 1)
        config = source._consumer.config
        assert config["isolation_level"] == "read_committed" and config["check_crcs"] is True
        assert config["group_id"] is None and config["enable_auto_commit"] is False
        assert config["value_deserializer"] is None and config["auto_offset_reset"] == "none"
        assert (config["sasl_mechanism"], config["sasl_plain_password"]) == ("PLAIN", "p")
        assert source._consumer.assignment() == {KafkaTopicPartition(topic, 0)}
    finally:
        source.close()
