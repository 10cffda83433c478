"""Questions to the brokers apart from reading, by confluent-kafka's admin client (see kafka_admin for kafka-python's).

The client is made without a connection and answers by futures, so no thread is needed: each wait has an end. What
the brokers say about logins and connections reaches `_on_error` only while `poll` of the client runs.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any, NamedTuple

import structlog
from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka import admin as kafka_admin

from monitor.intake.sources.base import SourceError, SourceUnavailable, TopicPartition

log = structlog.get_logger(__name__)
_untyped: Any = kafka_admin
_spec = _untyped.OffsetSpec
EARLIEST: Any = _spec.earliest()
LATEST: Any = _spec.latest()
CHECK_SECONDS = 2.0
_STEP_SECONDS = 0.1
REFUSED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,  # a name that no topic can have
    }
)
"""Codes of errors that waiting does not mend."""
_MISSING = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"


class Topic(NamedTuple):
    """What the brokers say about a topic. `id` changes when it is made again; None of brokers that give none."""

    id: str | None
    partitions: list[int]


def at_time(milliseconds: int) -> Any:
    """The first offset not before a time, for `Brokers.offsets`."""
    return _spec.for_timestamp(milliseconds)


class Brokers:
    """One admin client; `timeout` is how many seconds a question may take."""

    def __init__(self, options: Mapping[str, Any], timeout: float) -> None:
        self._servers = options["bootstrap.servers"]
        self._timeout = timeout
        self._admin: Any = _untyped.AdminClient({**options, "error_cb": self._on_error})
        self._said: KafkaError | None = None
        self.trouble: str | None = None
        """Why no broker answers, as of the last question or check; None while one does."""
        self._check: Future[Any] | None = None
        self._checked = -math.inf
        self._hint: Future[Any] | None = None
        self._latest: tuple[str, Mapping[TopicPartition, int]] | None = None

    def cluster_id(self) -> str:
        """Id of the cluster. SourceUnavailable, SourceError as for all questions."""
        return str(self._ask({0: self._describe()})[0].cluster_id or "unknown")

    def topics(self, names: Iterable[str]) -> dict[str, Topic]:
        """The topics of these names that exist. None is made by asking."""
        wanted = list(names)
        if not wanted:
            return {}
        futures = self._client().describe_topics(TopicCollection(wanted), request_timeout=self._timeout)
        found: dict[str, Topic] = {}
        for name, answer in self._ask(futures).items():
            if isinstance(answer, KafkaError):
                if answer.code() not in _MISSING:
                    raise SourceUnavailable(f"topic {name}: {answer.str()}")
                continue
            known = str(answer.topic_id) if answer.topic_id is not None else _NO_ID
            found[name] = Topic(None if known == _NO_ID else known, sorted(p.id for p in answer.partitions))
        return found

    def offsets(self, at: Mapping[TopicPartition, Any], committed: bool = False) -> dict[TopicPartition, int]:
        """Offsets by time, -1 where no record is so late; of the partitions that have a leader now.

        `committed`: the end is where the first open transaction begins.
        """
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        specs = {KafkaTopicPartition(*tp): spec for tp, spec in at.items()}
        futures = self._client().list_offsets(specs, isolation_level=level, request_timeout=self._timeout)
        answers = self._ask({TopicPartition(tp.topic, tp.partition): future for tp, future in futures.items()})
        return {tp: int(a.offset) for tp, a in answers.items() if not isinstance(a, KafkaError)}

    def offset(self, tp: TopicPartition, spec: Any, committed: bool = False) -> int:
        """One offset. SourceUnavailable if it is not to be had."""
        found = self.offsets({tp: spec}, committed)
        if tp not in found:
            raise SourceUnavailable(f"{tp} has no leader, or does not exist")
        return found[tp]

    def ranges(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """First and next offset of each partition that has a leader now. SourceUnavailable if no broker answers."""
        wanted = list(partitions)
        begins = self.offsets(dict.fromkeys(wanted, EARLIEST))
        ends = self.offsets(dict.fromkeys(begins, LATEST)) if begins else {}
        return {tp: (begins[tp], end) for tp, end in ends.items()}

    def check(self) -> None:
        """Ask, every other second at most and without waiting, whether a broker answers: `trouble` says so then."""
        if self._admin is None:
            return
        self._admin.poll(0)
        if self._check is not None and self._check.done():
            check, self._check = self._check, None
            with contextlib.suppress(SourceUnavailable):
                self._answer(check)
        if self._check is None and time.monotonic() - self._checked > CHECK_SECONDS:
            self._checked = time.monotonic()
            self._check = self._describe()

    def commit(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """Write next offsets to a group without members, some time soon. Of several calls the last one counts."""
        self._latest = group, positions
        self.pump()

    def pump(self) -> None:
        """Send the offsets that wait for those before them to be written."""
        if self._hint is not None and self._hint.done():
            hint, self._hint = self._hint, None
            try:
                failed = next((tp.error for tp in hint.result().topic_partitions if tp.error), None)
            except KafkaException as error:
                failed = error.args[0]
            if failed is not None:
                log.debug("group offsets not written", reason=str(failed))
        if self._latest is None or self._hint is not None or self._admin is None:
            return
        (group, positions), self._latest = self._latest, None
        offsets = [KafkaTopicPartition(*tp, at) for tp, at in positions.items()]
        try:
            request = [ConsumerGroupTopicPartitions(group, offsets)]
            (self._hint,) = self._admin.alter_consumer_group_offsets(request, request_timeout=self._timeout).values()
        except Exception as error:  # whatever it is, it is only a hint
            log.debug("group offsets not written", group=group, reason=str(error))

    def close(self) -> None:
        """Wait a second for offsets that are being written, then let go of the client."""
        deadline = time.monotonic() + 1.0
        while self._hint is not None and (left := deadline - time.monotonic()) > 0:
            wait([self._hint], left)
            self.pump()
        self._admin = self._latest = None

    def _client(self) -> Any:
        if self._admin is None:
            raise SourceError("the source is closed")
        return self._admin

    def _describe(self) -> Future[Any]:
        future: Future[Any] = self._client().describe_cluster(request_timeout=self._timeout)
        return future

    def _ask(self, futures: Mapping[Any, Future[Any]]) -> dict[Any, Any]:
        """The answers, or a KafkaError where the brokers say so; one that is refused ends the wait."""
        deadline = time.monotonic() + self._timeout
        pending = set(futures.values())
        while pending and (left := deadline - time.monotonic()) > 0:
            pending = wait(pending, min(left, _STEP_SECONDS), FIRST_EXCEPTION).not_done
            self._client().poll(0)
            if self._said is not None and self._said.code() in REFUSED:
                said, self._said = self._said, None
                raise refusal("kafka", said)
        if pending:
            raise SourceUnavailable(self._no_answer(f"within {self._timeout:g} s"))
        return {name: self._answer(future, str(name)) for name, future in futures.items()}

    def _answer(self, future: Future[Any], place: str = "kafka") -> Any:
        try:
            answer = future.result()
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if error.code() in REFUSED:
                raise refusal(place, error) from exception
            if not _is_answer(error):
                raise SourceUnavailable(self._no_answer(error.str())) from exception
            answer = error
        self.trouble = self._said = None
        return answer

    def _no_answer(self, why: str) -> str:
        reason = self._said.str() if self._said is not None else why
        self.trouble = f"no broker of {self._servers} answers ({reason})"
        return self.trouble

    def _on_error(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # it says less than the error before it
            self._said = error


def _is_answer(error: KafkaError) -> bool:
    """Whether it came from a broker, or from what a broker said about a topic."""
    silent = (KafkaError.REQUEST_TIMED_OUT, KafkaError.NETWORK_EXCEPTION)
    known = (KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC)
    return (error.code() > 0 and error.code() not in silent) or error.code() in known


def refusal(place: str, error: KafkaError) -> SourceError:
    """What to raise for an error of REFUSED."""
    return SourceError(
        f"{place}: the brokers refuse this client ({error.name()}: {error.str()}). Check kafka.security and its rights"
    )
