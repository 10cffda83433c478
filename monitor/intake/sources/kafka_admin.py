"""Questions to the brokers apart from reading: which cluster, which partitions, which offsets.

They go through kafka-python's admin client, on connections of its own: a question on the consumer's connection would
wait behind a fetch. The admin client's calls block for as long as a connection takes, so each is made in a thread,
and the caller waits for a fixed time at most.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import structlog
from kafka import KafkaAdminClient
from kafka import TopicPartition as KafkaTopicPartition
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.protocol.consumer import IsolationLevel, OffsetSpec
from kafka.structs import OffsetAndMetadata

from monitor.intake.sources.base import SourceError, SourceUnavailable, TopicPartition

log = structlog.get_logger(__name__)
T = TypeVar("T")
EARLIEST = int(OffsetSpec.EARLIEST)
LATEST = int(OffsetSpec.LATEST)
CHECK_SECONDS = 2.0
_THREADS = 3  # one each for questions, checks and hints, so that none waits for another
_MOVED = (kafka_errors.NotCoordinatorError, kafka_errors.UnknownBrokerIdError)
_SILENT = (kafka_errors.RequestTimedOutError, kafka_errors.NetworkExceptionError)
REFUSED = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.KafkaConfigurationError,
)
"""Errors of kafka-python that waiting does not mend."""


class Topic(NamedTuple):
    """What the brokers say about a topic. `id` changes when it is made again; None of brokers that give none."""

    id: uuid.UUID | None
    partitions: list[int]


class Brokers:
    """One admin client, made at the first question and made again when it is of no use any more."""

    def __init__(self, options: Mapping[str, Any], timeout: float) -> None:
        known = {name: value for name, value in options.items() if name in KafkaAdminClient.DEFAULT_CONFIG}
        limit = int(timeout * 1000)
        self._options = known | {"request_timeout_ms": limit, "bootstrap_timeout_ms": int(0.8 * limit)}
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(_THREADS, "kafka-admin")
        self._lock = threading.Lock()
        self._admin: Any = None
        self._closed = False
        self.trouble: str | None = None
        """Why no broker answers, as of the last question or check; None while one does."""
        self._question: Future[Any] | None = None
        self._check: Future[Any] | None = None
        self._checked = -math.inf
        self._hint: Future[None] | None = None
        self._latest: Mapping[TopicPartition, int] | None = None

    def cluster_id(self) -> str:
        """Id of the cluster. SourceUnavailable, SourceError as for all questions."""
        return str(self._ask(lambda admin: admin.describe_cluster()["cluster_id"]) or "unknown")

    def topics(self, names: Iterable[str]) -> dict[str, Topic]:
        """The topics of these names that exist. None is made by asking."""
        found: dict[str, Topic] = {}
        for topic in self._ask(lambda admin: admin.describe_topics(list(names))):
            error = kafka_errors.for_code(topic["error_code"])
            if error is kafka_errors.NoError:
                found[topic["name"]] = Topic(
                    topic.get("topic_id"), sorted(p["partition_index"] for p in topic["partitions"])
                )
            elif issubclass(error, REFUSED) or error is kafka_errors.InvalidTopicError:
                raise refusal(f"topic {topic['name']}", error())
            elif error is not kafka_errors.UnknownTopicOrPartitionError:
                raise SourceUnavailable(f"topic {topic['name']}: {_text(error())}")
        return found

    def offsets(self, at: Mapping[TopicPartition, int], committed: bool = False) -> dict[TopicPartition, int]:
        """Offsets by time: EARLIEST, LATEST or milliseconds since the epoch; -1 where no record is so late.

        `committed`: the end is where the first open transaction begins. SourceUnavailable if one is not to be had.
        """
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        specs = {KafkaTopicPartition(*tp): when for tp, when in at.items()}
        found = self._ask(lambda admin: admin.list_partition_offsets(specs, level))
        return {TopicPartition(*tp): answer.offset for tp, answer in found.items()}

    def ranges(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """First and next offset of each partition that has a leader now. SourceUnavailable if no broker answers."""
        wanted = list(partitions)
        try:
            begins = self.offsets(dict.fromkeys(wanted, EARLIEST))
            ends = self.offsets(dict.fromkeys(wanted, LATEST))
        except _NotThisOne:
            if len(wanted) == 1:
                return {}
            return {tp: limits for one in wanted for tp, limits in self.ranges([one]).items()}
        return {tp: (begins[tp], ends[tp]) for tp in wanted}

    def check(self) -> None:
        """Find out in the background, every other second at most, whether a broker answers: `trouble` says so then."""
        idle = self._check is None or self._check.done()
        if idle and time.monotonic() - self._checked > CHECK_SECONDS and not self._closed:
            self._checked = time.monotonic()
            self._check = self._threads.submit(self._call, lambda admin: admin.describe_topics([]))

    def commit(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """Write next offsets to a group without members, some time soon. Of several calls the last one counts."""
        self._latest = positions
        if not self._closed and (self._hint is None or self._hint.done()):
            self._hint = self._threads.submit(self._commit, group)

    def close(self) -> None:
        """Wait a second for a commit that is under way, then let go of the client and its threads."""
        if self._closed:
            return
        if self._hint is not None:
            with contextlib.suppress(Exception):
                self._hint.result(1.0)
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        _take_down(self._admin)

    def _commit(self, group: str) -> None:
        while (positions := self._latest) is not None:
            self._latest = None
            offsets = {KafkaTopicPartition(*tp): OffsetAndMetadata(at, "", -1) for tp, at in positions.items()}
            admin = None
            try:
                admin = self._client()
                answers = admin.alter_group_offsets(group, offsets)
                failed = next((e() for e in answers.values() if e is not kafka_errors.NoError), None)
                if failed is not None:
                    raise failed
            except Exception as error:  # whatever it is, it is only a hint
                log.debug("group offsets not written", group=group, reason=_text(error))
                if isinstance(error, _MOVED):
                    self._forget(admin)  # it remembers a group's coordinator for good

    def _ask(self, call: Callable[[Any], T]) -> T:
        """What `call` says to the admin client, in due time."""
        if self._closed:
            raise SourceError("the source is closed")
        if self._question is not None and not self._question.done():
            raise SourceUnavailable(self._no_answer(f"for more than {self._timeout:g} s"))
        self._question = question = self._threads.submit(self._call, call)
        try:
            return question.result(self._timeout)
        except TimeoutError:
            raise SourceUnavailable(self._no_answer(f"within {self._timeout:g} s")) from None
        except REFUSED as error:
            raise refusal("kafka", error) from error
        except kafka_errors.KafkaError as error:
            kind = _NotThisOne if _is_answer(error) else SourceUnavailable
            raise kind(self.trouble or _text(error)) from error

    def _call(self, call: Callable[[Any], T]) -> T:
        try:
            answer = call(self._client())
        except kafka_errors.KafkaError as error:
            if _is_answer(error):
                self.trouble = None
            else:
                self._no_answer(_text(error))
            raise
        self.trouble = None
        return answer

    def _client(self) -> Any:
        with self._lock:
            if self._admin is None:
                self._admin = connect(KafkaAdminClient, self._options)
            if self._closed:
                _take_down(self._admin)
            return self._admin

    def _forget(self, admin: Any) -> None:
        with self._lock:
            if self._admin is admin:
                self._admin = None
        _take_down(admin)

    def _no_answer(self, why: str) -> str:
        self.trouble = f"no broker of {', '.join(self._options['bootstrap_servers'])} answers ({why})"
        return self.trouble


class _NotThisOne(SourceUnavailable):
    """The brokers answer, but one partition has no leader or does not exist."""


def connect(make: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """A client of kafka-python. One that fails to connect leaves its thread and sockets behind: they are taken down."""
    networks: list[KafkaNetClient] = []
    faults: list[Exception] = []

    def network(**configs: Any) -> KafkaNetClient:
        net = NetworkSelector(**configs)
        networks.append(KafkaNetClient(net, _Connections(faults, net, **configs), **configs))
        return networks[-1]

    try:
        return make(kafka_client=network, **options)
    except BaseException as error:
        for left in networks:
            with contextlib.suppress(Exception):
                left.close()
        refused = next((fault for fault in faults if isinstance(fault, REFUSED)), None)
        if refused is not None and isinstance(error, kafka_errors.KafkaError):
            raise refused from error
        raise


class _Connections(KafkaConnectionManager):  # type: ignore[misc]
    """Keeps why connections failed: the search for a first broker only says that it found none."""

    def __init__(self, faults: list[Exception], net: NetworkSelector, **configs: Any) -> None:
        self._faults = faults
        super().__init__(net, **configs)

    async def _build_transport(self, *place: Any, **how: Any) -> Any:
        """3.0.12 drops what came with the end of a connection: a refused login is told just before it."""
        transport = await super()._build_transport(*place, **how)
        receive = transport._sock_recv

        def receive_all() -> tuple[bytes, Exception | None]:
            data, error = receive()
            return (data, None) if data else (data, error)  # the end is still there at the next call

        transport._sock_recv = receive_all
        return transport

    async def _connect(self, node: Any, conn: Any, **how: Any) -> None:
        await super()._connect(node, conn, **how)
        fault = conn.init_future.exception
        if isinstance(fault, Exception):
            self._faults[:] = [fault, *self._faults[:9]]


def _is_answer(error: Exception) -> bool:
    """Whether a broker said so; a request that timed out looks the same to kafka-python."""
    return isinstance(error, kafka_errors.BrokerResponseError) and not isinstance(error, _SILENT)


def refusal(place: str, error: Exception) -> SourceError:
    """What to raise for an error of REFUSED."""
    return SourceError(f"{place}: the brokers refuse this client ({_text(error)}). Check kafka.security and its rights")


def _take_down(admin: Any) -> None:
    if admin is not None:
        with contextlib.suppress(Exception):
            admin.close()


def _text(error: BaseException) -> str:
    """The error with its name, which kafka-python's own texts mostly begin with."""
    name, text = type(error).__name__, str(error)
    return text if name in text else f"{name}: {text}".removesuffix(": ")
