"""Rows of a reference from a stretch of a topic: what was predicted between two times, as the daemon would read it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from monitor.assembly import topic_rules
from monitor.config import Config, Topic
from monitor.daemon import kafka_source
from monitor.intake.events import Event, EventType, Record, Rejected
from monitor.intake.formats.base import Format, TopicRules, formats
from monitor.intake.identity import Pseudonyms
from monitor.intake.sources.base import Source, SourceError, TopicPartition
from monitor.references import MAX_ROWS, ReferenceFileError
from monitor.watch import slim

_IDLE: Final = 15.0
"""Seconds without a record after which the brokers are taken to have no more to say."""
_MANY: Final = 1_000


def topic_rows(
    config: Config, topic: str, model: str, tenant: str, begin: float, end: float, progress: Callable[[int], None]
) -> list[Event]:
    """Predictions of a model between the epoch seconds `begin` and `end`, at most 50,000, without identifiers.

    Nothing is committed: the daemon's group does not move. ReferenceFileError when the topic is not configured, holds
    no predictions or has none of this model in that time; SourceError when the brokers refuse.
    """
    wanted = next((t for t in config.need_kafka().topics if t.name == topic), None)
    if wanted is None:
        known = ", ".join(t.name for t in config.need_kafka().topics)
        raise ReferenceFileError(f"{topic} is not a topic of the configuration; it has {known}")
    if wanted.type in ("request", "response"):
        raise ReferenceFileError(
            f"{topic} holds {wanted.type}s, which make rows only when joined: build the reference from a file"
        )
    source = kafka_source(_from(config, wanted, begin))
    try:
        rows = _read(source, config, wanted, (model, tenant), (begin, end), progress)
    finally:
        source.close()
    if not rows:
        raise ReferenceFileError(f"{topic}: no prediction of {model} between {_text(begin)} and {_text(end)}")
    return rows


def _read(
    source: Source,
    config: Config,
    topic: Topic,
    of: tuple[str, str],
    span: tuple[float, float],
    progress: Callable[[int], None],
) -> list[Event]:
    source.cluster_id()
    partitions = source.discover()
    if not partitions:
        raise SourceError(source.condition or f"topic {topic.name} does not exist")
    source.own({tp: source.resolve_start(tp, True) for tp in partitions})
    rules, format_ = topic_rules(topic, config, Pseudonyms(b"", plain=True)), formats()[topic.format]
    rows: list[Event] = []
    open_: set[TopicPartition] = set(partitions)
    heard = time.monotonic()
    while open_ and len(rows) < MAX_ROWS and time.monotonic() - heard < _IDLE:
        polled = source.poll(0.5, _MANY)
        if not polled.records:
            lag = source.lag()
            open_ = {tp for tp in open_ if lag.get(tp, 0) > 0}
            continue
        heard = time.monotonic()
        for tp, records in polled.records:
            for record in records:
                if record.timestamp is not None and record.timestamp > span[1]:
                    open_.discard(tp)  # the log is in the order of the broker's time
                    break
                rows += _wanted(format_, record, rules, of, span)
        progress(min(len(rows), MAX_ROWS))
    return rows[:MAX_ROWS]


def _wanted(
    format_: Format, record: Record, rules: TopicRules, of: tuple[str, str], span: tuple[float, float]
) -> list[Event]:
    """The rows of one record that belong to the reference; a record that cannot be read has none."""
    try:
        events = format_.decode(record, rules).events
    except Rejected:
        return []
    return [
        slim(e)
        for e in events
        if e.type is EventType.PREDICTION
        and not e.shadow
        and (e.model, e.tenant) == of
        and span[0] <= e.time <= span[1]
    ]


def _from(config: Config, topic: Topic, begin: float) -> Config:
    """The configuration with this topic only, beginning there."""
    start = topic.model_copy(update={"start": datetime.fromtimestamp(begin, UTC)})
    kafka = config.need_kafka().model_copy(update={"topics": (start,)})
    return config.model_copy(update={"kafka": kafka})


def _text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
