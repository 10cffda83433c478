"""The in-memory twin of a broker and its source: the same rules without a network, for tests."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from monitor.intake.events import Record
from monitor.intake.sources.base import (
    Loss,
    Polled,
    SourceError,
    SourceTopic,
    SourceUnavailable,
    TopicPartition,
    settle,
)


@dataclass(slots=True)
class _Log:
    """Records by rising offset; `begin` is the first offset it still has, `end` the next it will give out."""

    begin: int = 0
    end: int = 0
    offsets: list[int] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


class MemoryBroker:
    """Topics in memory. Safe between threads. `available = False` is a broker that does not answer."""

    def __init__(self, cluster_id: str = "memory") -> None:
        self.cluster_id = cluster_id
        self.available = True
        self.hinted: dict[TopicPartition, int] = {}
        self.changed = threading.Condition()
        self._topics: dict[str, list[_Log]] = {}
        self._ids: dict[str, int] = {}
        self._made = 0

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Make a topic; ValueError if there is one of that name."""
        with self.changed:
            if name in self._topics:
                raise ValueError(f"there is a topic {name}")
            self._topics[name] = [_Log() for _ in range(partitions)]
            self._made += 1
            self._ids[name] = self._made

    def add_partitions(self, name: str, total: int) -> None:
        """Raise the number of partitions to `total`."""
        with self.changed:
            logs = self._topics[name]
            logs += [_Log() for _ in range(total - len(logs))]

    def produce(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp: float | None = None,
    ) -> int:
        """Append a record; its offset. `timestamp` is epoch seconds, now by default."""
        with self.changed:
            log = self._topics[topic][partition]
            at = time.time() if timestamp is None else timestamp
            log.offsets.append(log.end)
            log.records.append(Record(topic, partition, log.end, at, key, value, tuple(headers)))
            log.end += 1
            self.changed.notify_all()
            return log.end - 1

    def skip(self, topic: str, partition: int, count: int = 1) -> None:
        """Give out offsets without records, as the markers of transactions take them."""
        with self.changed:
            self._topics[topic][partition].end += count

    def delete_records_before(self, topic: str, partition: int, offset: int) -> None:
        """Drop the records below `offset`, as retention does."""
        with self.changed:
            log = self._topics[topic][partition]
            log.begin = max(log.begin, min(offset, log.end))
            keep = bisect.bisect_left(log.offsets, log.begin)
            del log.offsets[:keep], log.records[:keep]

    def delete_topic(self, name: str) -> None:
        """Delete a topic with all it holds."""
        with self.changed:
            del self._topics[name]
            del self._ids[name]

    def recreate_topic(self, name: str, partitions: int = 1) -> None:
        """Delete a topic and make it again, empty."""
        with self.changed:
            self.delete_topic(name)
            self.create_topic(name, partitions)

    def partitions(self, topic: str) -> int | None:
        """Number of partitions; None if there is no such topic."""
        logs = self._topics.get(topic)
        return None if logs is None else len(logs)

    def topic_id(self, topic: str) -> int | None:
        """What tells a topic from one of the same name that was made later."""
        return self._ids.get(topic)

    def range(self, tp: TopicPartition) -> tuple[int, int] | None:
        """First and next offset; None if there is no such partition."""
        logs = self._topics.get(tp.topic, [])
        return (logs[tp.partition].begin, logs[tp.partition].end) if tp.partition < len(logs) else None

    def read(self, tp: TopicPartition, offset: int, count: int) -> list[Record]:
        """At most `count` records from `offset` on."""
        log = self._topics[tp.topic][tp.partition]
        first = bisect.bisect_left(log.offsets, offset)
        return log.records[first : first + count]

    def offset_at(self, tp: TopicPartition, timestamp: float) -> int:
        """Offset of the first record not before `timestamp`, else the end."""
        log = self._topics[tp.topic][tp.partition]
        return next((r.offset for r in log.records if r.timestamp is not None and r.timestamp >= timestamp), log.end)


class MemorySource:
    """Reads topics of a MemoryBroker (see Source)."""

    def __init__(self, broker: MemoryBroker, topics: Sequence[SourceTopic]) -> None:
        self._broker = broker
        self._topics = {topic.name: topic for topic in topics}
        self._next: dict[TopicPartition, int] = {}
        self._ids: dict[TopicPartition, int] = {}
        self._found: list[TopicPartition] = []
        self._missing: set[str] = set()
        self._late: set[str] = set()
        self._turn = 0
        self._paused = False
        self._closed = False

    @property
    def condition(self) -> str | None:
        if not self._broker.available:
            return "no broker answers"
        if self._missing:
            return f"waiting for topics that do not exist: {', '.join(sorted(self._missing))}"
        return None

    def cluster_id(self) -> str:
        self._need_broker()
        return self._broker.cluster_id

    def discover(self) -> list[TopicPartition]:
        if self._broker.available:
            counts = {name: self._broker.partitions(name) for name in self._topics}
            self._missing = {name for name, count in counts.items() if count is None}
            self._late |= self._missing
            self._found = [TopicPartition(name, p) for name, count in counts.items() for p in range(count or 0)]
        return list(self._found)

    def resolve_start(self, tp: TopicPartition, first_start: bool) -> int:
        self._need_broker()
        limits = self._broker.range(tp)
        if limits is None:
            raise SourceUnavailable(f"there is no partition {tp}")
        start = self._topics[tp.topic].start
        if not first_start or start == "earliest" or (start == "latest" and tp.topic in self._late):
            return limits[0]
        return limits[1] if isinstance(start, str) else self._broker.offset_at(tp, start)

    def own(self, positions: Mapping[TopicPartition, int]) -> None:
        for tp in positions:
            if tp.topic not in self._topics:
                raise ValueError(f"{tp.topic} is not a topic of this source")
        self._next = {TopicPartition(*tp): offset for tp, offset in positions.items()}

    def poll(self, timeout: float, max_records: int) -> Polled:
        if self._closed:
            raise SourceError("the source is closed")
        deadline = time.monotonic() + timeout
        with self._broker.changed:
            while True:
                polled = self._take(max_records)
                left = deadline - time.monotonic()
                if polled.records or polled.losses or left <= 0:
                    return polled
                self._broker.changed.wait(min(left, 0.05))

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def lag(self) -> dict[TopicPartition, int]:
        limits = {tp: self._broker.range(tp) for tp in self._next}
        return {tp: max(0, limit[1] - self._next[tp]) for tp, limit in limits.items() if limit is not None}

    def hint(self, positions: Mapping[TopicPartition, int]) -> None:
        if self._broker.available:
            self._broker.hinted.update(positions)

    def close(self) -> None:
        self._closed = True
        self._next = {}

    def _need_broker(self) -> None:
        if not self._broker.available:
            raise SourceUnavailable("no broker answers")

    def _take(self, max_records: int) -> Polled:
        """Partitions take turns, so that a busy one starves no other."""
        if self._paused or not self._broker.available:
            return Polled()
        there = [tp for tp in self._next if self._broker.range(tp) is not None]
        losses = self._settle_all(there)
        if losses or not there:
            return Polled(losses=losses)
        self._turn += 1
        first = self._turn % len(there)
        taken: list[tuple[TopicPartition, list[Record]]] = []
        for tp in there[first:] + there[:first]:
            records = self._broker.read(tp, self._next[tp], max_records)
            # a position moves over offsets without records once all before them is read
            limits = self._broker.range(tp)
            assert limits is not None
            self._next[tp] = records[-1].offset + 1 if len(records) == max_records else limits[1]
            if records:
                taken.append((tp, records))
                max_records -= len(records)
            if max_records <= 0:
                break
        return Polled(taken)

    def _settle_all(self, partitions: Sequence[TopicPartition]) -> list[Loss]:
        losses: list[Loss] = []
        refusal: SourceError | None = None
        for tp in partitions:
            try:
                loss = self._settle(tp)
            except SourceError as error:
                refusal = refusal or error
            else:
                losses += [loss] if loss is not None else []
        if refusal is not None and not losses:
            raise refusal
        return losses

    def _settle(self, tp: TopicPartition) -> Loss | None:
        limits, made = self._broker.range(tp), self._broker.topic_id(tp.topic)
        assert limits is not None
        assert made is not None
        known = self._ids.get(tp)
        anew = None if known is None else known != made
        loss = settle(self._topics[tp.topic], tp, self._next[tp], *limits, anew)
        if loss is not None:
            self._next[tp] = loss.followed
        self._ids[tp] = made
        return loss
