"""Apache Kafka as a source, by kafka-python 3.0.

The consumer has no group: partitions are assigned and sought, and whoever reads keeps the offsets. What is asked of
the brokers besides records goes through `kafka_admin`. What the code relies on in kafka-python 3.0.12:

- `assign` keeps the state of partitions that stay; a partition without a position would be an error of `poll` when
  there is no reset policy, so one is assigned only once its position is known to be in the log, and sought at once;
- `poll` raises OffsetOutOfRangeError or LogTruncationError only when it has no records to return;
- a record set that fails its checksum is never finished, so the consumer is thrown away after an error of that kind.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import structlog
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaTopicPartition
from kafka import errors as kafka_errors

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
from monitor.intake.sources.kafka_admin import EARLIEST, LATEST, REFUSED, Brokers, connect, refusal
from monitor.intake.sources.kafka_records import has_name, tolerate_header_names
from monitor.intake.sources.tls import context_of, explained

log = structlog.get_logger(__name__)
SILENCE_SECONDS = 2.0
"""Without a record for this long, the brokers are asked whether they are there."""
_RETRY_SECONDS = 1.0
_DEFAULTS: dict[str, Any] = {
    "client_id": "modelwarden",
    "fetch_max_bytes": 16 * 1024 * 1024,
    "max_partition_fetch_bytes": 1024 * 1024,  # a larger batch still comes, alone
    "fetch_max_wait_ms": 500,
    "reconnect_backoff_max_ms": 1_000,
    "metadata_max_age_ms": 60_000,
}
_FIXED: dict[str, Any] = {
    "group_id": None,
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "isolation_level": "read_committed",
    "check_crcs": True,
    "key_deserializer": None,
    "value_deserializer": None,
}
_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")


class KafkaSource:
    """Reads topics of a Kafka cluster (see Source).

    `client_options` are settings of kafka-python's consumer by their names there: TLS, SASL, sizes, `api_version` for
    brokers that cannot be asked for theirs. `group` is the group to publish offsets for (`hint`). `call_timeout` is
    how many seconds a question to the brokers may take. SourceError when an option is unknown or a file is missing.
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
        tolerate_header_names()
        self._topics = {topic.name: topic for topic in topics}
        self._group = group
        self._address = list(bootstrap_servers), dict(client_options or {}), call_timeout
        self._options = _options(bootstrap_servers, client_options or {}, call_timeout)
        context_of(self._options)  # a file that cannot be used is told now
        self._brokers = Brokers(self._options, call_timeout)
        self._consumer: Any = None
        self._expected: dict[TopicPartition, int] = {}
        self._open: set[TopicPartition] = set()
        self._waiting: set[TopicPartition] = set()
        self._ids: dict[TopicPartition, UUID] = {}
        self._found: list[TopicPartition] = []
        self._missing: set[str] = set()
        self._late: set[str] = set()
        self._lag: dict[TopicPartition, int] = {}
        self._failure: str | None = None
        self._heard = time.monotonic()
        self._retry_at = 0.0
        self._paused = False
        self._closed = False

    @property
    def condition(self) -> str | None:
        if self._failure is not None or self._brokers.trouble is not None:
            return self._brokers.trouble or self._failure
        if self._missing:
            return f"waiting for topics that do not exist: {', '.join(sorted(self._missing))}"
        stuck = sorted(self._waiting) if self._retry_at else []
        return f"waiting for partitions that are not available: {', '.join(map(str, stuck))}" if stuck else None

    def cluster_id(self) -> str:
        with explained(*self._address):
            return self._brokers.cluster_id()

    def discover(self) -> list[TopicPartition]:
        try:
            topics = self._brokers.topics(self._topics)
        except SourceUnavailable:
            return list(self._found)
        self._missing = self._topics.keys() - topics.keys()
        self._late |= self._missing
        self._found = [
            TopicPartition(name, p) for name in self._topics if name in topics for p in topics[name].partitions
        ]
        ids = {tp: topics[tp.topic].id for tp in self._found}
        self._recheck([tp for tp in self._open if tp not in ids or self._ids.get(tp) not in (None, ids[tp])])
        return list(self._found)

    def resolve_start(self, tp: TopicPartition, first_start: bool) -> int:
        start = self._topics[tp.topic].start
        if not first_start or start == "earliest" or (start == "latest" and tp.topic in self._late):
            return self._brokers.offsets({tp: EARLIEST})[tp]
        if not isinstance(start, str):
            found = self._brokers.offsets({tp: int(start * 1000)}, committed=True)[tp]
            if found >= 0:
                return found
        return self._brokers.offsets({tp: LATEST}, committed=True)[tp]

    def own(self, positions: Mapping[TopicPartition, int]) -> None:
        wanted = {TopicPartition(*tp): offset for tp, offset in positions.items()}
        for tp in wanted:
            if tp.topic not in self._topics:
                raise ValueError(f"{tp.topic} is not a topic of this source")
        stay = {tp for tp in self._open if wanted.get(tp) == self._expected[tp]}
        self._expected = wanted
        self._open, self._waiting = stay, wanted.keys() - stay
        self._retry_at = 0.0
        self._assign()

    def poll(self, timeout: float, max_records: int) -> Polled:
        if self._closed:
            raise SourceError("the source is closed")
        deadline = time.monotonic() + timeout
        losses = self._admit()
        if losses:
            return Polled(losses=losses)
        left = max(0.0, deadline - time.monotonic())
        if not self._open:
            time.sleep(left)
            return Polled()
        try:
            found = self._consumer.poll(timeout_ms=int(left * 1000), max_records=max_records)
        except kafka_errors.OffsetOutOfRangeError as error:
            self._recheck(TopicPartition(*tp) for tp in error.args[0])
            return Polled(losses=self._admit())
        except kafka_errors.LogTruncationError as error:
            self._recheck(TopicPartition(*tp) for tp in error.divergent_offsets)
            return Polled(losses=self._admit())
        except REFUSED as error:
            raise refusal("kafka", error) from error
        except Exception as error:
            if not self._is_leftover(error):
                self._start_over(error)
            return Polled()
        self._failure = None
        self._listen(bool(found))
        return Polled([pair for tp, records in found.items() if (pair := self._take(TopicPartition(*tp), records))[1]])

    def pause(self) -> None:
        self._paused = True
        if self._consumer is not None:
            self._consumer.pause(*_kafka(self._open))

    def resume(self) -> None:
        self._paused = False
        if self._consumer is not None:
            self._consumer.resume(*_kafka(self._open))

    def lag(self) -> dict[TopicPartition, int]:
        wanted = [tp for tp in self._expected if tp.topic not in self._missing]
        if wanted:
            with contextlib.suppress(SourceUnavailable):
                ends = self._brokers.offsets(dict.fromkeys(wanted, LATEST), committed=True)
                self._lag |= {tp: max(0, end - self._position(tp)) for tp, end in ends.items()}
        return {tp: lag for tp, lag in self._lag.items() if tp in self._expected}

    def hint(self, positions: Mapping[TopicPartition, int]) -> None:
        if self._group is not None and positions:
            self._brokers.commit(self._group, dict(positions))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._brokers.close()
        self._drop_consumer()

    # --- the gate ------------------------------------------------------------------------------------------------

    def _admit(self) -> list[Loss]:
        """Open the partitions whose position is in the log; the losses of those whose position was not."""
        if not self._waiting or time.monotonic() < self._retry_at:
            return []
        try:
            topics = self._brokers.topics({tp.topic for tp in self._waiting})
            there = [tp for tp in self._waiting if tp.topic in topics and tp.partition in topics[tp.topic].partitions]
            ranges = self._brokers.ranges(there) if there else {}
            if ranges:
                self._connect()
        except SourceUnavailable:
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            return []
        losses: list[Loss] = []
        refusals: list[SourceError] = []
        new: list[TopicPartition] = []
        for tp in sorted(ranges):
            try:
                loss = self._settle(tp, *ranges[tp], topics[tp.topic].id)
            except SourceError as error:
                refusals.append(error)
            else:
                new.append(tp)
                losses += [loss] if loss is not None else []
        self._waiting.difference_update(new)
        self._open.update(new)
        self._retry_at = time.monotonic() + _RETRY_SECONDS if self._waiting and not refusals else 0.0
        self._assign(new)
        if refusals and not losses:
            raise refusals[0]
        return losses

    def _settle(self, tp: TopicPartition, begin: int, end: int, topic_id: UUID | None) -> Loss | None:
        known = self._ids.get(tp)
        anew = None if known is None or topic_id is None else known != topic_id
        loss = settle(self._topics[tp.topic], tp, self._expected[tp], begin, end, anew)
        if loss is not None:
            self._expected[tp] = loss.followed
        if topic_id is not None:
            self._ids[tp] = topic_id
        return loss

    def _recheck(self, partitions: Iterable[TopicPartition]) -> None:
        """Close the gate of partitions until their position has been looked up again."""
        closed = self._open.intersection(partitions)
        if closed:
            self._open -= closed
            self._waiting |= closed
            self._retry_at = 0.0
            self._assign()

    def _assign(self, new: Iterable[TopicPartition] = ()) -> None:
        """Tell the consumer which partitions are open, and seek in the new ones."""
        if self._consumer is None:
            return
        self._consumer.assign(_kafka(sorted(self._open)))
        for tp in new:
            self._consumer.seek(KafkaTopicPartition(*tp), self._expected[tp])
            if self._paused:
                self._consumer.pause(KafkaTopicPartition(*tp))

    def _is_leftover(self, error: Exception) -> bool:
        """kafka-python stumbles once over what it had fetched of a partition that is no longer assigned."""
        what = error.args[0] if isinstance(error, KeyError) else None
        return isinstance(what, KafkaTopicPartition) and TopicPartition(*what) not in self._open

    # --- records -------------------------------------------------------------------------------------------------

    def _take(self, tp: TopicPartition, found: Sequence[Any]) -> tuple[TopicPartition, list[Record]]:
        """Records as they lie in the log, none below the position, none of a partition behind the gate."""
        if tp not in self._open:
            return tp, []
        topic, partition = tp
        expected = self._expected[tp]
        if found[0].offset < expected:
            found = [r for r in found if r.offset >= expected]
        records = [
            Record(
                topic,
                partition,
                r.offset,
                r.timestamp / 1000 if r.timestamp >= 0 else None,
                r.key,
                r.value,
                [(name, value or b"") for name, value in r.headers if has_name(name)] if r.headers else (),
            )
            for r in found
        ]
        if records:
            self._expected[tp] = records[-1].offset + 1
        return tp, records

    def _position(self, tp: TopicPartition) -> int:
        """The next offset to be fetched: beyond `_expected` after markers of transactions, which are no records."""
        expected = self._expected[tp]
        if tp not in self._open or self._consumer is None:
            return expected
        # KafkaConsumer.position() would also take, and lose, an error that is meant for poll()
        position = self._consumer._subscription.position(KafkaTopicPartition(*tp))
        return expected if position is None else max(expected, position.offset)

    def _listen(self, heard: bool) -> None:
        """Silence is an idle topic or a broker that is gone; an empty poll does not say which."""
        now = time.monotonic()
        if heard:
            self._heard, self._brokers.trouble = now, None
        elif now - self._heard > SILENCE_SECONDS and not self._paused:
            self._brokers.check()

    # --- the consumer --------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._consumer is not None:
            return
        try:
            self._consumer = connect(KafkaConsumer, self._options)
        except REFUSED as error:
            raise refusal("kafka", error) from error
        except kafka_errors.KafkaError as error:
            raise SourceUnavailable(f"no broker answers ({error})") from error
        # 3.0.12 does not hand its option `allow_auto_create_topics` on to the metadata requests
        self._consumer._cluster.config["allow_auto_create_topics"] = False

    def _start_over(self, error: Exception) -> None:
        """Throw away a consumer that cannot go on; the next one begins where this one was."""
        log.error("reading failed: connecting anew", error=f"{type(error).__name__}: {error}")
        self._drop_consumer()
        self._waiting |= self._open
        self._open = set()
        self._failure = f"reading failed: {type(error).__name__}: {error}"
        self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _drop_consumer(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(Exception):
                consumer.close(autocommit=False, timeout_ms=1_000)


def _options(servers: Sequence[str], given: Mapping[str, Any], call_timeout: float) -> dict[str, Any]:
    """Settings of the consumer; those that the rules of this source rest on cannot be changed."""
    unknown = sorted(given.keys() - KafkaConsumer.DEFAULT_CONFIG.keys())
    if unknown:
        raise SourceError(f"kafka-python has no settings {', '.join(unknown)}. Remove or rename them")
    fixed = sorted(given.keys() & (_FIXED.keys() | {"bootstrap_servers", "kafka_client"}))
    if fixed:
        raise SourceError(f"the settings {', '.join(fixed)} cannot be changed. Remove them")
    for name in _FILES:
        path = given.get(name)
        if path is not None and not os.access(path, os.R_OK):
            raise SourceError(f"{name}: {path} cannot be read. Check path and permissions")
    own = {"bootstrap_servers": list(servers), "bootstrap_timeout_ms": int(call_timeout * 1000)}
    return _DEFAULTS | own | dict(given) | _FIXED


def _kafka(partitions: Iterable[TopicPartition]) -> list[KafkaTopicPartition]:
    return [KafkaTopicPartition(*tp) for tp in partitions]
