"""Partitions side by side: records of several partitions are handed on in the order of the broker's time.

A consumer that catches up gets thousands of records of one partition, then thousands of the next. Where clients are
spread over partitions by key, that is a population that changes with every fetch, and a change in time comes once per
partition: statistics of a model need its events roughly in the order in which they happened.

Best effort: a partition that has been silent for `patience` seconds holds nobody up, and beyond `most` waiting
records (or so many bytes) they are handed on whatever comes. No partition waits longer than `longest` seconds for
others: while a busy one catches up, the few events of a quiet model are judged all the same. Nothing is reordered
within a partition, and nothing is kept that was handed on.

Partitions of topics that are keyed by model share no model, so the order between them need not be restored: one waits
only for topics that are not keyed, and for the partition of the same number of other keyed topics, where one
partitioner puts the labels or requests of its models. A slow or idle partition then holds up its own models alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator

from monitor.intake.events import Record
from monitor.intake.sources.base import TopicPartition

PATIENCE = 1.0
LONGEST = 5.0
MOST = 20_000
MOST_BYTES = 64 * 1024 * 1024
RUN = 16
"""Records of one partition handed on at a time: finer order costs more than it tells."""


class Aligner:
    """Records that were polled and wait for those of other partitions. `now` is a monotonic clock in seconds."""

    def __init__(
        self,
        patience: float = PATIENCE,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
        longest: float = LONGEST,
        keyed: Container[str] = (),
    ) -> None:
        self._keyed = keyed
        self._rivals: dict[TopicPartition, tuple[TopicPartition, ...]] = {}
        """Of each partition: those whose records may be of the same models."""
        self._longest = longest
        self._patience = patience
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self.waiting = 0
        """Records polled and not yet handed on."""
        self._waiting: dict[TopicPartition, deque[Record]] = {}
        self._heard: dict[TopicPartition, float] = {}
        self._since: dict[TopicPartition, float] = {}
        """Since when a partition's first record has been waiting."""

    def own(self, partitions: Iterable[TopicPartition], now: float) -> None:
        """Begin with these partitions. What waited is forgotten: the source gives it again from its position."""
        self._waiting = {tp: deque() for tp in partitions}
        self._heard = dict.fromkeys(self._waiting, now)
        self._since = dict.fromkeys(self._waiting, now)
        self._rivals = {tp: tuple(o for o in self._waiting if self._are_rivals(tp, o)) for tp in self._waiting}
        self.waiting = self._bytes = 0

    def add(self, tp: TopicPartition, records: Iterable[Record], now: float) -> None:
        """Records of one partition, in the order of their offsets."""
        queue = self._waiting.setdefault(tp, deque())
        if not queue:
            self._since[tp] = now
        for record in records:
            queue.append(record)
            self.waiting += 1
            self._bytes += len(record.value or b"")
        self._heard[tp] = now

    def take(self, now: float) -> Iterator[tuple[TopicPartition, list[Record]]]:
        """Runs of records that may go on: the partition whose next record is the oldest comes first."""
        while True:
            heads = {tp: _time(queue) for tp, queue in self._waiting.items() if queue}
            tp = self._next(heads, now)
            if tp is None:
                return
            others = min((heads[o] for o in self._rivals.get(tp, ()) if o in heads), default=float("inf"))
            self._since[tp] = now
            yield tp, self._gone(_run(self._waiting[tp], others))

    def flush(self, tp: TopicPartition) -> list[Record]:
        """What waits of one partition, out of turn: its log goes on elsewhere, and these come before that."""
        queue = self._waiting.get(tp, deque())
        records = list(queue)
        queue.clear()
        return self._gone(records)

    def _gone(self, records: list[Record]) -> list[Record]:
        self.waiting -= len(records)
        self._bytes -= sum(len(r.value or b"") for r in records)
        return records

    def _next(self, heads: dict[TopicPartition, float], now: float) -> TopicPartition | None:
        """The partition whose next record is the oldest of those that need not wait; None where all must."""
        if not heads:
            return None
        full = self.waiting > self._most or self._bytes > self._most_bytes
        if full or any(now - self._since[tp] >= self._longest for tp in heads):
            return min(heads, key=lambda tp: (heads[tp], tp))
        free = (tp for tp in heads if not self._must_wait(tp, heads, now))
        return min(free, key=lambda tp: (heads[tp], tp), default=None)

    def _must_wait(self, tp: TopicPartition, heads: dict[TopicPartition, float], now: float) -> bool:
        """Whether a rival has an older record, or has given some lately and has none here: its next may be older."""
        mine = heads[tp], tp
        return any(
            (heads[o], o) < mine if o in heads else now - self._heard[o] < self._patience
            for o in self._rivals.get(tp, ())
        )

    def _are_rivals(self, one: TopicPartition, other: TopicPartition) -> bool:
        if one == other:
            return False
        keyed = one.topic in self._keyed and other.topic in self._keyed
        return not keyed or one.partition == other.partition


def _run(queue: deque[Record], until: float) -> list[Record]:
    """The next records of one partition: all up to the time `until`, and a few more."""
    run = [queue.popleft()]
    while queue and (len(run) < RUN or _time(queue) <= until):
        run.append(queue.popleft())
    return run


def _time(queue: deque[Record]) -> float:
    at = queue[0].timestamp
    return float("-inf") if at is None else at
