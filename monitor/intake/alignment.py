"""Partitions side by side: records of several partitions are handed on in the order of the broker's time.

A consumer that catches up gets thousands of records of one partition, then thousands of the next. Where clients are
spread over partitions by key, that is a population that changes with every fetch, and a change in time comes once per
partition: statistics of a model need its events roughly in the order in which they happened.

Best effort: a partition that has been silent for `patience` seconds holds nobody up, and beyond `most` waiting
records (or so many bytes) they are handed on whatever comes. No partition waits longer than `longest` seconds for
others: while a busy one catches up, the few events of a quiet model are judged all the same. Nothing is reordered
within a partition, and nothing is kept that was handed on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

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
    ) -> None:
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
            full = self.waiting > self._most or self._bytes > self._most_bytes
            overdue = any(now - self._since[tp] >= self._longest for tp in heads)
            if not heads or (self._must_wait(now) and not full and not overdue):
                return
            oldest = min(heads, key=lambda tp: (heads[tp], tp))
            others = min((at for tp, at in heads.items() if tp != oldest), default=float("inf"))
            self._since[oldest] = now
            yield oldest, self._gone(_run(self._waiting[oldest], others))

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

    def _must_wait(self, now: float) -> bool:
        """Whether a partition that has given records lately has none here: its next may be the oldest."""
        return any(not queue and now - self._heard[tp] < self._patience for tp, queue in self._waiting.items())


def _run(queue: deque[Record], until: float) -> list[Record]:
    """The next records of one partition: all up to the time `until`, and a few more."""
    run = [queue.popleft()]
    while queue and (len(run) < RUN or _time(queue) <= until):
        run.append(queue.popleft())
    return run


def _time(queue: deque[Record]) -> float:
    at = queue[0].timestamp
    return float("-inf") if at is None else at
