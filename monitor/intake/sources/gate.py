"""What the two Kafka clients share: which partitions are open, at which offset, and what to say meanwhile.

A partition is open when its position is known to be in the log; until then it waits, and its records are not read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Protocol

from monitor.intake.sources.base import Loss, SourceError, SourceTopic, SourceUnavailable, TopicPartition, settle

SILENCE_SECONDS: Final = 2.0
"""Without a record for this long, the brokers are asked whether they are there."""
RETRY_SECONDS: Final = 1.0


class TopicView(Protocol):
    """A topic as the brokers describe it; a topic that was made again has another id."""

    @property
    def id(self) -> object | None: ...

    @property
    def partitions(self) -> Collection[int]: ...


class BrokersView(Protocol):
    """What the gate asks of brokers; both questions raise SourceUnavailable."""

    trouble: str | None

    def topics(self, names: Iterable[str]) -> Mapping[str, TopicView]: ...

    def ranges(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]: ...

    def check(self) -> None: ...


class Gate:
    """Owned partitions and their positions. `assign` tells the client that `open` changed, and what is new in it."""

    def __init__(
        self,
        topics: Mapping[str, SourceTopic],
        brokers: BrokersView,
        assign: Callable[[Sequence[TopicPartition]], None],
        connect: Callable[[], None] = lambda: None,
    ) -> None:
        self._topics = topics
        self._brokers = brokers
        self._assign = assign
        self._connect = connect
        """Called before partitions open; raises SourceUnavailable."""
        self.expected: dict[TopicPartition, int] = {}
        self.open: set[TopicPartition] = set()
        self.missing: set[str] = set()
        self.late: set[str] = set()
        """Topics that were seen missing: they are read from their first record."""
        self.failure: str | None = None
        """What broke reading, until it goes on."""
        self._waiting: set[TopicPartition] = set()
        self._ids: dict[TopicPartition, object] = {}
        self._found: list[TopicPartition] = []
        self._heard = time.monotonic()
        self._retry_at = 0.0

    @property
    def condition(self) -> str | None:
        """As of Source."""
        if self.failure is not None or self._brokers.trouble is not None:
            return self._brokers.trouble or self.failure
        if self.missing:
            return f"waiting for topics that do not exist: {', '.join(sorted(self.missing))}"
        stuck = sorted(self._waiting) if self._retry_at else []
        return f"waiting for partitions that are not available: {', '.join(map(str, stuck))}" if stuck else None

    def discover(self) -> list[TopicPartition]:
        """As of Source. A topic that is gone or was made again closes its partitions."""
        try:
            topics = self._brokers.topics(self._topics)
        except SourceUnavailable:
            return list(self._found)
        self.missing = self._topics.keys() - topics.keys()
        self.late |= self.missing
        self._found = [
            TopicPartition(name, p) for name in self._topics if name in topics for p in topics[name].partitions
        ]
        ids = {tp: topics[tp.topic].id for tp in self._found}
        self.recheck([tp for tp in self.open if tp not in ids or self._ids.get(tp) not in (None, ids[tp])])
        return list(self._found)

    def own(self, positions: Mapping[TopicPartition, int]) -> None:
        """As of Source."""
        wanted = {TopicPartition(*tp): offset for tp, offset in positions.items()}
        for tp in wanted:
            if tp.topic not in self._topics:
                raise ValueError(f"{tp.topic} is not a topic of this source")
        stay = {tp for tp in self.open if wanted.get(tp) == self.expected[tp]}
        self.expected = wanted
        self.open, self._waiting = stay, wanted.keys() - stay
        self._retry_at = 0.0
        self._assign(())

    def admit(self) -> list[Loss]:
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
            self._retry_at = time.monotonic() + RETRY_SECONDS
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
        self.open.update(new)
        self._retry_at = time.monotonic() + RETRY_SECONDS if self._waiting and not refusals else 0.0
        self._assign(new)
        if refusals and not losses:
            raise refusals[0]
        return losses

    def recheck(self, partitions: Iterable[TopicPartition], after: float = 0.0) -> None:
        """Close the gate of partitions until their position has been looked up again, `after` seconds from now."""
        closed = self.open.intersection(partitions)
        if closed:
            self._close(closed, after)
            self._assign(())

    def close_all(self) -> None:
        """Close every partition: the client is gone, and another one is tried after a while."""
        self._close(set(self.open), RETRY_SECONDS)

    def listen(self, heard: bool, paused: bool) -> None:
        """Silence is an idle topic or a broker that is gone; an empty poll does not say which."""
        now = time.monotonic()
        if heard:
            self._heard, self._brokers.trouble = now, None
        elif now - self._heard > SILENCE_SECONDS and not paused:
            self._brokers.check()

    def _close(self, closed: set[TopicPartition], after: float) -> None:
        self.open -= closed
        self._waiting |= closed
        self._retry_at = time.monotonic() + after if after else 0.0

    def _settle(self, tp: TopicPartition, begin: int, end: int, topic_id: object | None) -> Loss | None:
        known = self._ids.get(tp)
        anew = None if known is None or topic_id is None else known != topic_id
        loss = settle(self._topics[tp.topic], tp, self.expected[tp], begin, end, anew)
        if loss is not None:
            self.expected[tp] = loss.followed
        if topic_id is not None:
            self._ids[tp] = topic_id
        return loss
