"""What a source of records is: partitions with offsets, owned by name, read by polling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from monitor.intake.events import Record


class SourceError(Exception):
    """Reading cannot go on until somebody mends something. The text names the place and the mend."""


class SourceUnavailable(Exception):
    """No answer for now: a broker is down or a leader is being elected. Trying again later is enough."""


class TopicPartition(NamedTuple):
    """One log with offsets of its own."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass(frozen=True, slots=True)
class SourceTopic:
    """A topic to read. `start` is "latest", "earliest" or a time in epoch seconds: the first record not before it."""

    name: str
    start: str | float = "latest"
    on_data_loss: Literal["earliest", "stop"] = "earliest"

    def __post_init__(self) -> None:
        if isinstance(self.start, str):
            valid = self.start in ("latest", "earliest")
        else:
            valid = math.isfinite(self.start) and self.start >= 0
        if not valid:
            raise ValueError(f"{self.name}: start is {self.start!r}; it must be latest, earliest or epoch seconds")


class Loss(NamedTuple):
    """A position that is not in the log any more.

    `expected` is the offset that was due, `first_available` the first that the log has, `lost` the number of records
    known to be gone unread, `followed` the offset at which reading goes on. Of a log that was deleted and made again
    the unread records of the old one cannot be counted: `lost` is then the number of the new log's that are gone.
    """

    topic: str
    partition: int
    expected: int
    first_available: int
    lost: int
    followed: int


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought. Losses come before the records of the same partition that follow them."""

    records: list[tuple[TopicPartition, list[Record]]] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    finished: bool = False
    """Nothing will ever follow: all is read of a source that has an end."""


class Source(Protocol):
    """Records of a fixed list of topics. One thread uses it.

    A source keeps no offsets beyond its own life: whoever reads says where to begin (`own`), and drops nothing but
    what it is told. While the brokers are away, `poll`, `discover`, `lag` and `hint` go on without an error and
    `condition` says so; `cluster_id` and `resolve_start` raise SourceUnavailable instead, because a start that is
    guessed would be a wrong one.
    """

    @property
    def condition(self) -> str | None:
        """What keeps records from coming, as a sentence for the operator; None while all is well."""

    def cluster_id(self) -> str:
        """Name of the cluster whose offsets these are. May block for seconds; raises SourceUnavailable, SourceError."""

    def discover(self) -> list[TopicPartition]:
        """All partitions that the topics have now, in order; of an unreachable cluster those known last.

        A topic that does not exist is waited for, never made, and named in `condition`. May block for seconds; raises
        SourceError when a topic may not be read.
        """

    def resolve_start(self, tp: TopicPartition, first_start: bool) -> int:
        """The offset at which a partition without a stored offset begins.

        On the first start of its topic that follows the topic's `start`. A partition that appears later
        (`first_start` False, or its topic was seen missing by this source) begins at its first offset. May block for
        seconds; raises SourceUnavailable, SourceError.
        """

    def own(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read exactly these partitions, each from its offset; what was owned before and is not named is let go.

        This is the gate: of a partition that was not named no record is handed out, and none below its offset. A
        partition that is named with the offset it has reached goes on undisturbed. Never blocks; that an offset is
        outside the log is found by the next `poll`.
        """

    def poll(self, timeout: float, max_records: int) -> Polled:
        """At most `max_records` records in the order of their offsets, after at most about `timeout` seconds.

        It takes some seconds longer when a position must be looked up with a broker that does not answer. An offset
        above the expected one (a transaction's marker, a compacted record) is handed out as it is. A position outside
        the log is a Loss, or raises SourceError where the topic says `stop`, again at each poll.
        """

    def pause(self) -> None:
        """Hand out nothing until `resume`; partitions and positions are kept, and `poll` keeps connections alive."""

    def resume(self) -> None:
        """End a pause."""

    def lag(self) -> dict[TopicPartition, int]:
        """Records between the position and the end of each owned partition, as known last. May block for seconds."""

    def hint(self, positions: Mapping[TopicPartition, int]) -> None:
        """Publish next offsets for tools that show lag. Best effort: does not block, raises nothing, proves nothing."""

    def close(self) -> None:
        """Let go of everything; again is harmless."""


def settle(
    topic: SourceTopic, tp: TopicPartition, expected: int, begin: int, end: int, anew: bool | None
) -> Loss | None:
    """Whether position `expected` is in a log that has offsets `begin` to `end` (exclusive), or what is lost.

    `anew`: whether the log was made again since the position was valid; None: not known, and then a position beyond
    the end is taken for that. A log that is known to be the same and ends early was truncated (an unclean election):
    reading goes on at its end, for what is before was read. Raises SourceError where the topic says `stop`.
    """
    if not anew and begin <= expected <= end:
        return None
    if anew or (anew is None and expected > end):
        followed, lost, what = begin, begin, f"the topic was made again and now has offsets {begin} to {end}"
    elif expected > end:
        followed, lost, what = end, 0, f"the log was truncated to offset {end}"
    else:
        followed, lost = begin, begin - expected
        what = f"{lost} records were deleted before they were read; the first available offset is {begin}"
    if topic.on_data_loss == "stop":
        raise SourceError(
            f"topic {tp.topic}, partition {tp.partition}: offset {expected} is due, but {what}. "
            f"Set `on_data_loss: earliest` for this topic to go on at offset {followed}"
        )
    return Loss(tp.topic, tp.partition, expected, begin, lost, followed)
