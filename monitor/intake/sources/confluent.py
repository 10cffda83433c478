"""Apache Kafka as a source, by confluent-kafka (librdkafka): the rules of `kafka`, with a faster client.

Importing this module needs the extra `fast`. The consumer joins no group: partitions are assigned with their offsets.
What the code relies on in librdkafka 2.13:

- partitions are assigned and let go one by one; what was fetched before that is never handed out after it;
- with `auto.offset.reset=error` a position outside the log is an error message of its partition;
- a record set that fails its checksum is an error message too, and then skipped: the partition is assigned anew;
- the end of a partition is a message with the position there, which is beyond markers of transactions;
- a header name that is not UTF-8 makes `headers` misbehave (see `_headers`).
"""

from __future__ import annotations

import gc
import operator
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition

from monitor.intake.events import Record
from monitor.intake.sources.base import Polled, SourceError, SourceTopic, SourceUnavailable, TopicPartition
from monitor.intake.sources.confluent_admin import EARLIEST, LATEST, REFUSED, Brokers, at_time, refusal
from monitor.intake.sources.confluent_options import FIXED, client_settings, consumer_settings
from monitor.intake.sources.gate import RETRY_SECONDS, Gate
from monitor.intake.sources.tls import context_of, explained

log = structlog.get_logger(__name__)
_CLOSE_SECONDS = 3.0
_POSITION = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION})
# Not `message.headers()`: that call, once the interpreter has optimised it, does not look whether an error was left.
_read_headers = operator.methodcaller("headers")
_GROUP = frozenset({KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.COORDINATOR_NOT_AVAILABLE})


class ConfluentSource:
    """Reads topics of a Kafka cluster (see Source).

    `client_options` are TLS, SASL and sizes by kafka-python's names; `api_version` is taken and not needed. `group` is
    the group to publish offsets for (`hint`). `call_timeout` is how many seconds a question to the brokers may take.
    SourceError when an option is unknown or not to be had with librdkafka, or a file is missing.
    """

    def __init__(
        self,
        bootstrap_servers: Sequence[str],
        topics: Sequence[SourceTopic],
        *,
        group: str | None = None,
        client_options: Mapping[str, Any] | None = None,
        call_timeout: float = 5.0,
    ) -> None:
        self._topics = {topic.name: topic for topic in topics}
        self._group = group
        self._address = list(bootstrap_servers), dict(client_options or {}), call_timeout
        given = client_options or {}
        settings = client_settings(bootstrap_servers, given)
        context_of(given)  # a file that cannot be used is told in plain words
        try:
            self._brokers = Brokers(settings, call_timeout)
            self._consumer = Consumer(
                consumer_settings(bootstrap_servers, given) | {"group.id": group or "modelwarden"} | FIXED
            )
        except (KafkaException, ValueError) as error:
            raise SourceError(f"kafka: librdkafka refuses its settings ({error}). Check kafka.security") from error
        self._gate = Gate(self._topics, self._brokers, self._assign)
        self._ends: dict[TopicPartition, int] = {}
        self._assigned: set[TopicPartition] = set()
        self._lag: dict[TopicPartition, int] = {}
        self._refused: SourceError | None = None
        self._paused = False
        self._closed = False

    @property
    def condition(self) -> str | None:
        return self._gate.condition

    def cluster_id(self) -> str:
        with explained(*self._address):
            return self._brokers.cluster_id()

    def discover(self) -> list[TopicPartition]:
        return self._gate.discover()

    def resolve_start(self, tp: TopicPartition, first_start: bool) -> int:
        start = self._topics[tp.topic].start
        if not first_start or start == "earliest" or (start == "latest" and tp.topic in self._gate.late):
            return self._brokers.offset(tp, EARLIEST)
        if not isinstance(start, str):
            found = self._brokers.offset(tp, at_time(int(start * 1000)), committed=True)
            if found >= 0:
                return found
        return self._brokers.offset(tp, LATEST, committed=True)

    def own(self, positions: Mapping[TopicPartition, int]) -> None:
        self._gate.own(positions)

    def poll(self, timeout: float, max_records: int) -> Polled:
        if self._closed:
            raise SourceError("the source is closed")
        deadline = time.monotonic() + timeout
        self._brokers.pump()
        losses = self._gate.admit()
        if losses:
            return Polled(losses=losses)
        left = max(0.0, deadline - time.monotonic())
        if not self._gate.open:
            time.sleep(left)
            return Polled()
        messages = self._consume(left, max_records)
        records = self._sort(messages)
        if self._refused is not None and not records:
            refused, self._refused = self._refused, None
            raise refused
        self._gate.listen(bool(messages), self._paused)
        return Polled(records, [] if records else self._gate.admit())

    def pause(self) -> None:
        self._paused = True
        if self._assigned:
            self._consumer.pause(_kafka(self._assigned))

    def resume(self) -> None:
        self._paused = False
        if self._assigned:
            self._consumer.resume(_kafka(self._assigned))

    def lag(self) -> dict[TopicPartition, int]:
        wanted = [tp for tp in self._gate.expected if tp.topic not in self._gate.missing]
        if wanted and not self._closed:
            try:
                ends = self._brokers.offsets(dict.fromkeys(wanted, LATEST), committed=True)
            except SourceUnavailable:
                ends = {}
            self._lag |= {tp: max(0, end - self._position(tp)) for tp, end in ends.items()}
        return {tp: lag for tp, lag in self._lag.items() if tp in self._gate.expected}

    def hint(self, positions: Mapping[TopicPartition, int]) -> None:
        if self._group is not None and positions and not self._closed:
            self._brokers.commit(self._group, dict(positions))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._brokers.close()
        # it waits for brokers that may never answer
        closing = threading.Thread(target=self._consumer.close, name="kafka-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)

    # --- the gate ------------------------------------------------------------------------------------------------

    def _assign(self, _: Iterable[TopicPartition] = ()) -> None:
        """Tell the consumer which partitions are open; those that it does not have yet begin at their position."""
        gone, new = self._assigned - self._gate.open, sorted(self._gate.open - self._assigned)
        self._assigned = set(self._gate.open)
        for tp in gone:
            self._ends.pop(tp, None)
        if gone:
            self._consumer.incremental_unassign(_kafka(gone))
        if new:
            self._consumer.incremental_assign([KafkaTopicPartition(*tp, self._gate.expected[tp]) for tp in new])
            if self._paused:
                self._consumer.pause(_kafka(new))

    # --- records -------------------------------------------------------------------------------------------------

    def _consume(self, timeout: float, count: int) -> list[Any]:
        """Messages: the first is waited for, then what is there is taken. librdkafka would wait for all of `count`."""
        try:
            messages = self._consumer.consume(1, timeout)
            if messages and count > 1:
                messages += self._consumer.consume(min(count, 1_000_000) - 1, 0)
        except KafkaException as error:
            log.error("reading failed: looking the positions up again", error=str(error))
            self._gate.failure = f"reading failed: {error}"
            self._gate.recheck(self._gate.open, RETRY_SECONDS)
            return []
        return messages

    def _sort(self, messages: Sequence[Any]) -> list[tuple[TopicPartition, list[Record]]]:
        """Records by partition as they lie in the log, none below the position, none of one behind the gate."""
        found: dict[Any, list[Record]] = {}  # by topic and partition
        for message in messages:
            error = message.error()
            if error is not None:
                self._take_error(message, error)
                continue
            key = topic, partition = message.topic(), message.partition()
            records = found.get(key)
            if records is None:
                records = found[key] = []
            offset = message.offset()
            kind, at = message.timestamp()
            if self._paused:  # nothing comes then; if it does, it is read again
                self._gate.recheck([TopicPartition(*key)])
            if key not in self._gate.open or offset < self._gate.expected[key]:
                continue
            records.append(
                Record(
                    topic, partition, offset, at / 1000 if kind else None, message.key(), message.value(),
                    _headers(message),
                )
            )  # fmt: skip
            self._gate.expected[key] = offset + 1
        taken = [(TopicPartition(*key), records) for key, records in found.items() if records]
        if taken:
            self._gate.failure = None
        return taken

    def _take_error(self, message: Any, error: KafkaError) -> None:
        """An error among the messages: of one partition, or of the client."""
        code, topic = error.code(), message.topic()
        tp = TopicPartition(topic, message.partition())
        if code == KafkaError._PARTITION_EOF:
            if tp in self._gate.open:
                self._ends[tp] = message.offset()
                self._gate.failure = None
        elif code in REFUSED:
            self._refused = refusal(f"topic {topic}" if topic else "kafka", error)
        elif code in _POSITION:
            self._gate.recheck([tp])
        elif tp in self._gate.open:
            log.error("reading failed: looking the position up again", partition=str(tp), error=str(error))
            self._gate.failure = f"reading failed: {tp}: {error.str()}"
            self._gate.recheck([tp], RETRY_SECONDS)
        elif code not in _GROUP:  # no group is needed to read
            log.debug("client reports", error=str(error))

    def _position(self, tp: TopicPartition) -> int:
        """The next offset to be fetched: beyond `_expected` after markers of transactions, which are no records."""
        return max(self._gate.expected[tp], self._ends.get(tp, 0))


def _headers(message: Any) -> Sequence[tuple[str, bytes]]:
    """Headers of a message, without those whose name is not UTF-8.

    For such a name confluent-kafka 2.16 leaves an error behind and a pair that lacks its first half, and touching that
    half ends the process. `_read_headers` sees the error. A second call hands the pairs out, without error now; what
    a pair refers to is asked of the garbage collector, which skips what is not there.
    """
    try:
        found = _read_headers(message)
    except (SystemError, UnicodeDecodeError):
        try:
            found = [pair for pair in _read_headers(message) if len(gc.get_referents(pair)) == 2]
        except (SystemError, UnicodeDecodeError):
            return ()
    return [(name, value or b"") for name, value in found] if found else ()


def _kafka(partitions: Iterable[TopicPartition]) -> list[KafkaTopicPartition]:
    return [KafkaTopicPartition(*tp) for tp in partitions]
