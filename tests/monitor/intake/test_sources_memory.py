"""What the memory twin adds, and the rule for positions outside the log."""

from __future__ import annotations

import pytest

from monitor.intake.sources.base import Loss, SourceError, SourceTopic, SourceUnavailable, TopicPartition, settle
from monitor.intake.sources.memory import MemoryBroker, MemorySource

TP = TopicPartition("t", 0)
GO_ON = SourceTopic("t", on_data_loss="earliest")
STOP = SourceTopic("t", on_data_loss="stop")


@pytest.mark.parametrize(
    ("expected", "begin", "end", "anew", "loss"),
    [
        (5, 0, 9, None, None),
        (0, 0, 0, None, None),
        (9, 0, 9, False, None),
        (3, 3, 9, None, None),
        (2, 3, 9, None, Loss("t", 0, 2, 3, 1, 3)),
        (2, 3, 9, False, Loss("t", 0, 2, 3, 1, 3)),
        (10, 3, 9, None, Loss("t", 0, 10, 3, 3, 3)),
        # the same log, cut short: what lies before its end was read
        (10, 3, 9, False, Loss("t", 0, 10, 3, 0, 9)),
        # another log, however long it is
        (5, 0, 9, True, Loss("t", 0, 5, 0, 0, 0)),
        (5, 2, 9, True, Loss("t", 0, 5, 2, 2, 2)),
    ],
)
def test_settle(expected: int, begin: int, end: int, anew: bool | None, loss: Loss | None) -> None:
    assert settle(GO_ON, TP, expected, begin, end, anew) == loss
    if loss is None:
        assert settle(STOP, TP, expected, begin, end, anew) is None
    else:
        with pytest.raises(SourceError, match=rf"topic t, partition 0: offset {expected} .* at offset {loss.followed}"):
            settle(STOP, TP, expected, begin, end, anew)


@pytest.mark.parametrize("start", ["newest", "", float("nan"), -1.0])
def test_a_start_that_is_none_is_refused(start: str | float) -> None:
    with pytest.raises(ValueError, match="start is"):
        SourceTopic("t", start)


def test_a_broker_that_is_away_is_a_condition_and_no_error() -> None:
    broker = MemoryBroker()
    broker.create_topic("t")
    broker.produce("t", 0, b"x")
    source = MemorySource(broker, [SourceTopic("t", "earliest")])
    source.own({tp: source.resolve_start(tp, True) for tp in source.discover()})
    broker.available = False
    assert source.condition == "no broker answers"
    assert source.discover() == [TP]
    assert source.poll(0, 10).records == []
    source.hint({TP: 1})
    assert broker.hinted == {}
    for question in (source.cluster_id, lambda: source.resolve_start(TP, True)):
        with pytest.raises(SourceUnavailable):
            question()
    broker.available = True
    assert source.condition is None
    assert [len(records) for _, records in source.poll(0, 10).records] == [1]
    source.hint({TP: 1})
    assert broker.hinted == {TP: 1}


def test_a_loss_is_told_before_another_topic_stops() -> None:
    broker = MemoryBroker()
    for name in ("a", "b"):
        broker.create_topic(name)
        for _ in range(5):
            broker.produce(name, 0, b"x")
        broker.delete_records_before(name, 0, 4)
    source = MemorySource(broker, [SourceTopic("a"), SourceTopic("b", on_data_loss="stop")])
    source.own({TopicPartition("b", 0): 0, TopicPartition("a", 0): 1})
    assert source.poll(0, 10).losses == [Loss("a", 0, 1, 4, 3, 4)]
    with pytest.raises(SourceError, match="topic b"):
        source.poll(0, 10)


def test_a_busy_partition_starves_no_other() -> None:
    broker = MemoryBroker()
    broker.create_topic("t", 3)
    for partition in range(3):
        for _ in range(50):
            broker.produce("t", partition, b"x")
    source = MemorySource(broker, [SourceTopic("t")])
    source.own({TopicPartition("t", p): 0 for p in range(3)})
    seen = {tp.partition for _ in range(3) for tp, _ in source.poll(0, 10).records}
    assert seen == {0, 1, 2}
