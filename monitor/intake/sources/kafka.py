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

import structlog
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaTopicPartition
from kafka import errors as kafka_errors

from monitor.intake.events import Record
from monitor.intake.sources.base import Polled, SourceError, SourceTopic, SourceUnavailable, TopicPartition
from monitor.intake.sources.gate import Gate
from monitor.intake.sources.kafka_admin import EARLIEST, LATEST, REFUSED, Brokers, connect, refusal
from monitor.intake.sources.kafka_records import has_name, tolerate_header_names
from monitor.intake.sources.tls import context_of, explained

log = structlog.get_logger(__name__)
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
        self._gate = Gate(self._topics, self._brokers, self._assign, self._connect)
        self._lag: dict[TopicPartition, int] = {}
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
            return self._brokers.offsets({tp: EARLIEST})[tp]
        if not isinstance(start, str):
            found = self._brokers.offsets({tp: int(start * 1000)}, committed=True)[tp]
            if found >= 0:
                return found
        return self._brokers.offsets({tp: LATEST}, committed=True)[tp]

    def own(self, positions: Mapping[TopicPartition, int]) -> None:
        self._gate.own(positions)

    def poll(self, timeout: float, max_records: int) -> Polled:
        if self._closed:
            raise SourceError("the source is closed")
        deadline = time.monotonic() + timeout
        losses = self._gate.admit()
        if losses:
            return Polled(losses=losses)
        left = max(0.0, deadline - time.monotonic())
        if not self._gate.open:
            time.sleep(left)
            return Polled()
        try:
            found = self._consumer.poll(timeout_ms=int(left * 1000), max_records=max_records)
        except kafka_errors.OffsetOutOfRangeError as error:
            self._gate.recheck(TopicPartition(*tp) for tp in error.args[0])
            return Polled(losses=self._gate.admit())
        except kafka_errors.LogTruncationError as error:
            self._gate.recheck(TopicPartition(*tp) for tp in error.divergent_offsets)
            return Polled(losses=self._gate.admit())
        except REFUSED as error:
            raise refusal("kafka", error) from error
        except Exception as error:
            if not self._is_leftover(error):
                self._start_over(error)
            return Polled()
        self._gate.failure = None
        self._gate.listen(bool(found), self._paused)
        return Polled([pair for tp, records in found.items() if (pair := self._take(TopicPartition(*tp), records))[1]])

    def pause(self) -> None:
        self._paused = True
        if self._consumer is not None:
            self._consumer.pause(*_kafka(self._gate.open))

    def resume(self) -> None:
        self._paused = False
        if self._consumer is not None:
            self._consumer.resume(*_kafka(self._gate.open))

    def lag(self) -> dict[TopicPartition, int]:
        wanted = [tp for tp in self._gate.expected if tp.topic not in self._gate.missing]
        if wanted:
            with contextlib.suppress(SourceUnavailable):
                ends = self._brokers.offsets(dict.fromkeys(wanted, LATEST), committed=True)
                self._lag |= {tp: max(0, end - self._position(tp)) for tp, end in ends.items()}
        return {tp: lag for tp, lag in self._lag.items() if tp in self._gate.expected}

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

    def _assign(self, new: Iterable[TopicPartition] = ()) -> None:
        """Tell the consumer which partitions are open, and seek in the new ones."""
        if self._consumer is None:
            return
        self._consumer.assign(_kafka(sorted(self._gate.open)))
        for tp in new:
            self._consumer.seek(KafkaTopicPartition(*tp), self._gate.expected[tp])
            if self._paused:
                self._consumer.pause(KafkaTopicPartition(*tp))

    def _is_leftover(self, error: Exception) -> bool:
        """kafka-python stumbles once over what it had fetched of a partition that is no longer assigned."""
        what = error.args[0] if isinstance(error, KeyError) else None
        return isinstance(what, KafkaTopicPartition) and TopicPartition(*what) not in self._gate.open

    # --- records -------------------------------------------------------------------------------------------------

    def _take(self, tp: TopicPartition, found: Sequence[Any]) -> tuple[TopicPartition, list[Record]]:
        """Records as they lie in the log, none below the position, none of a partition behind the gate."""
        if tp not in self._gate.open:
            return tp, []
        topic, partition = tp
        expected = self._gate.expected[tp]
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
            self._gate.expected[tp] = records[-1].offset + 1
        return tp, records

    def _position(self, tp: TopicPartition) -> int:
        """The next offset to be fetched: beyond `_expected` after markers of transactions, which are no records."""
        expected = self._gate.expected[tp]
        if tp not in self._gate.open or self._consumer is None:
            return expected
        # KafkaConsumer.position() would also take, and lose, an error that is meant for poll()
        position = self._consumer._subscription.position(KafkaTopicPartition(*tp))
        return expected if position is None else max(expected, position.offset)

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
        self._gate.close_all()
        self._gate.failure = f"reading failed: {type(error).__name__}: {error}"

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
