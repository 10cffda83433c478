"""Topics of which the configuration says `keyed_by: model`: whether all records of a model are in one partition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from monitor.intake.events import Event

MOST: Final = 10_000
"""Models remembered of one topic: names come from records. Further ones are not checked."""


class Split(NamedTuple):
    """A model that was seen in a partition other than its last one; `partitions` are all it was seen in, ascending."""

    topic: str
    tenant: str
    model: str
    partitions: tuple[int, ...]


class KeyedTopics:
    """Where models were last seen, topic by topic, since the session began."""

    def __init__(self, topics: Iterable[str]) -> None:
        self._last: dict[str, dict[tuple[str, str], int]] = {topic: {} for topic in topics}
        self._all: dict[tuple[str, str, str], set[int]] = {}

    def __contains__(self, topic: str) -> bool:
        return topic in self._last

    def see(self, topic: str, partition: int, events: Iterable[Event]) -> Iterator[Split]:
        """Events of one record of such a topic; what is in the wrong place, as often as it changes."""
        last = self._last[topic]
        for event in events:
            model = event.model
            if model is None:
                continue
            key = (event.tenant, model)
            before = last.get(key)
            if before == partition:
                continue
            if before is not None:
                seen = self._all.setdefault((topic, *key), {before})
                seen.add(partition)
                yield Split(topic, *key, tuple(sorted(seen)))
            if before is not None or len(last) < MOST:
                last[key] = partition
