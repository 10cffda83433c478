"""Where sources read from in the suite: each world makes topics, fills them, and makes sources that read them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from kafka import KafkaProducer
from kafka import TopicPartition as KafkaTopicPartition
from kafka.protocol.consumer import IsolationLevel, OffsetSpec

from monitor.demo.broker import CLIENT_OPTIONS, PARTITIONS, EmbeddedBroker
from monitor.intake.events import Record
from monitor.intake.sources.base import Loss, Source, SourceTopic, TopicPartition
from monitor.intake.sources.confluent import ConfluentSource
from monitor.intake.sources.file import FileSource
from monitor.intake.sources.kafka import KafkaSource
from monitor.intake.sources.memory import MemoryBroker, MemorySource
from monitor.intake.sources.tail import TailSource
from tests.components.kafka import KafkaBroker
from tests.components.waiting import wait_until

_numbers = itertools.count()
Headers = Sequence[tuple[str, bytes]]


class World(Protocol):
    """One kind of broker. `can` names what it has besides logs of values with an end."""

    can: ClassVar[frozenset[str]]

    def create(self, partitions: int) -> str:
        """A new topic; of at least so many partitions, exactly so many where the world can add some."""

    def produce(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp: float | None = None,
    ) -> None:
        """Append a record; it can be read at the return."""

    def source(self, *topics: SourceTopic) -> Source:
        """A source; the world closes it."""


class MemoryWorld:
    can: ClassVar[frozenset[str]] = frozenset({"records", "end", "times", "late", "delete", "recreate", "gap"})

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.broker = MemoryBroker()

    def create(self, partitions: int, name: str | None = None) -> str:
        name = name or new_name()
        self.broker.create_topic(name, partitions)
        return name

    def produce(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp: float | None = None,
    ) -> None:
        self.broker.produce(topic, partition, value, key, headers, timestamp)

    def source(self, *topics: SourceTopic) -> Source:
        source = MemorySource(self.broker, topics)
        self._stack.callback(source.close)
        return source

    def add_partitions(self, topic: str, total: int) -> None:
        self.broker.add_partitions(topic, total)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        self.broker.delete_records_before(topic, partition, offset)

    def delete(self, topic: str) -> None:
        self.broker.delete_topic(topic)

    def gap(self, topic: str, partition: int) -> None:
        self.broker.skip(topic, partition, 2)


class FileWorld:
    can: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack = stack
        self._directory = directory
        self._paths: dict[str, list[Path]] = {}

    def create(self, partitions: int) -> str:
        name = new_name()
        self._paths[name] = [self._directory / f"{name}-{p}.jsonl" for p in range(partitions)]
        for path in self._paths[name]:
            path.touch()
        return name

    def produce(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp: float | None = None,
    ) -> None:
        assert value is not None
        with self._paths[topic][partition].open("ab") as file:
            file.write(value + b"\n")

    def source(self, *topics: SourceTopic) -> Source:
        (topic,) = topics
        source = FileSource(self._paths[topic.name], topic)
        self._stack.callback(source.close)
        return source


class TailWorld(FileWorld):
    """Files that are followed."""

    def source(self, *topics: SourceTopic) -> Source:
        (topic,) = topics
        source = TailSource(self._paths[topic.name], topic)
        self._stack.callback(source.close)
        return source


class MockWorld:
    """The embedded broker: topics appear when a producer names them, always with four partitions."""

    can: ClassVar[frozenset[str]] = frozenset({"records", "end", "wire"})

    def __init__(self, stack: ExitStack, servers: str, options: dict[str, Any] | None = None) -> None:
        self._stack = stack
        self._servers = servers
        self._options = dict(CLIENT_OPTIONS) if options is None else options
        self._producer = KafkaProducer(bootstrap_servers=servers, **self._options)
        stack.callback(self._producer.close)

    def create(self, partitions: int) -> str:
        assert partitions <= PARTITIONS
        name = new_name()
        wait_until(lambda: len(self._producer.partitions_for(name) or ()) == PARTITIONS, 10, f"topic {name}")
        return name

    def produce(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp: float | None = None,
    ) -> None:
        at = None if timestamp is None else round(timestamp * 1000)
        self._producer.send(topic, value, key, list(headers), partition, at).get(timeout=10)

    def source(self, *topics: SourceTopic, group: str | None = None) -> KafkaSource:
        source = KafkaSource([self._servers], topics, group=group, client_options=self._options)
        self._stack.callback(source.close)
        return source


class KafkaWorld(MockWorld):
    can: ClassVar[frozenset[str]] = frozenset({"records", "wire", "end", "times", "late", "delete", "recreate", "gap"})

    def __init__(self, stack: ExitStack, broker: KafkaBroker) -> None:
        super().__init__(stack, broker.bootstrap_servers, {})
        self.broker = broker

    def create(self, partitions: int, name: str | None = None) -> str:
        return self.broker.create_topic(name or new_name(), partitions)

    def add_partitions(self, topic: str, total: int) -> None:
        self.broker.add_partitions(topic, total)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        self.broker.delete_records_before(topic, partition, offset)

    def delete(self, topic: str) -> None:
        self.broker.delete_topic(topic)

    def gap(self, topic: str, partition: int) -> None:
        """Two offsets that no reader gets: a record of an aborted transaction and its marker."""
        begin = self._end(topic, partition)
        with transactions(self._servers) as producer:
            producer.begin_transaction()
            producer.send(topic, b"never", partition=partition).get(timeout=10)
            producer.abort_transaction()
        # the coordinator writes the marker some time after its answer
        wait_until(lambda: self._end(topic, partition) == begin + 2, 15, "the marker is written")

    def _end(self, topic: str, partition: int) -> int:
        """Where the first open transaction begins."""
        tp = KafkaTopicPartition(topic, partition)
        with self.broker.admin() as admin:
            end: int = admin.list_partition_offsets({tp: OffsetSpec.LATEST}, IsolationLevel.READ_COMMITTED)[tp].offset
        return end


class ConfluentWorld(KafkaWorld):
    """Apache Kafka read by confluent-kafka. Not the embedded broker: it has no controller for the admin client."""

    def source(self, *topics: SourceTopic, group: str | None = None) -> ConfluentSource:  # type: ignore[override]
        source = ConfluentSource([self._servers], topics, group=group)
        self._stack.callback(source.close)
        return source


class RawName(str):
    """A header name that a producer writes as the bytes given."""

    raw: bytes

    def __new__(cls, raw: bytes) -> RawName:
        name = super().__new__(cls, raw.hex())
        name.raw = raw
        return name

    def encode(self, *_: object) -> bytes:
        return self.raw


@contextmanager
def transactions(servers: str) -> Iterator[Any]:
    """A producer that is ready for transactions."""
    producer = KafkaProducer(bootstrap_servers=servers, transactional_id=new_name())
    try:
        producer.init_transactions()
        yield producer
    finally:
        producer.close()


@contextmanager
def embedded() -> Iterator[str]:
    with EmbeddedBroker() as servers:
        yield servers


def new_name() -> str:
    """A name for a topic that no other test of this run has."""
    return f"sources-{next(_numbers)}"


def discover(source: Source, partitions: int) -> list[TopicPartition]:
    """All partitions, once there are at least so many."""
    return wait_until(
        lambda: found if len(found := source.discover()) >= partitions else [], 15, f"{partitions} partitions"
    )


def begin(source: Source, first_start: bool = True) -> dict[TopicPartition, int]:
    """Own every partition at its resolved start, as a first start does; the starts."""
    starts = {tp: source.resolve_start(tp, first_start) for tp in discover(source, 1)}
    source.own(starts)
    return starts


def read(source: Source, count: int, max_records: int = 100, deadline: float = 20) -> list[Record]:
    """Exactly `count` records, and that no more come with them; a loss on the way fails."""
    records: list[Record] = []

    def more() -> bool:
        polled = source.poll(0.2, max_records)
        assert polled.losses == []
        for tp, found in polled.records:
            assert 0 < len(found) <= max_records
            assert all((r.topic, r.partition) == tp for r in found)
            records.extend(found)
        return len(records) >= count

    wait_until(more, deadline, f"{count} records", interval=0)
    assert len(records) == count
    return records


def nothing(source: Source, seconds: float = 0.7) -> bool:
    """Whether a poll brings neither records nor losses."""
    polled = source.poll(seconds, 100)
    return polled.records == [] and polled.losses == []


def read_losses(source: Source, count: int) -> list[Loss]:
    """The next `count` losses; records before them fail."""
    losses: list[Loss] = []

    def more() -> bool:
        polled = source.poll(0.2, 100)
        assert polled.records == []
        losses.extend(polled.losses)
        return len(losses) >= count

    wait_until(more, 20, f"{count} losses", interval=0)
    return losses
