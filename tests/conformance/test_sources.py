"""What every source must do, on each kind of broker: one suite for Kafka, the embedded broker, memory and files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from monitor.intake.sources.base import Loss, SourceError, SourceTopic, TopicPartition
from tests.conformance.source_worlds import (
    ConfluentWorld,
    FileWorld,
    KafkaWorld,
    MemoryWorld,
    MockWorld,
    RawName,
    TailWorld,
    World,
    begin,
    discover,
    embedded,
    new_name,
    nothing,
    read,
    read_losses,
)

WORLDS: dict[str, type[World]] = {
    "memory": MemoryWorld,
    "file": FileWorld,
    "tail": TailWorld,
    "mock": MockWorld,
    "kafka": KafkaWorld,
    "confluent": ConfluentWorld,
}


def able(*features: str) -> pytest.MarkDecorator:
    """Run with every world that has these features."""
    return pytest.mark.parametrize("world", [n for n, w in WORLDS.items() if w.can.issuperset(features)], indirect=True)


@pytest.fixture(scope="module")
def mock_servers() -> Iterator[str]:
    pytest.importorskip("confluent_kafka")
    with embedded() as servers:
        yield servers


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        if request.param == "memory":
            yield MemoryWorld(stack)
        elif request.param == "file":
            yield FileWorld(stack, tmp_path)
        elif request.param == "tail":
            yield TailWorld(stack, tmp_path)
        elif request.param == "mock":
            yield MockWorld(stack, request.getfixturevalue("mock_servers"))
        elif request.param == "confluent":
            yield ConfluentWorld(stack, request.getfixturevalue("kafka"))
        else:
            yield KafkaWorld(stack, request.getfixturevalue("kafka"))


def fill(world: World, topic: str, partition: int, count: int, first: int = 0) -> None:
    for i in range(first, first + count):
        world.produce(topic, partition, b'{"n": %d}' % i)


# --- start ---------------------------------------------------------------------------------------------------------


@able()
def test_earliest_reads_all_there_is(world: World) -> None:
    topic = world.create(1)
    fill(world, topic, 0, 3)
    source = world.source(SourceTopic(topic, "earliest"))
    assert begin(source)[TopicPartition(topic, 0)] == 0
    assert [r.offset for r in read(source, 3)] == [0, 1, 2]


@able("end")
def test_latest_reads_what_comes_after(world: World) -> None:
    topic = world.create(1)
    fill(world, topic, 0, 3)
    source = world.source(SourceTopic(topic, "latest"))
    assert begin(source)[TopicPartition(topic, 0)] == 3
    assert nothing(source, 0.2)
    fill(world, topic, 0, 2, first=3)
    assert [r.value for r in read(source, 2)] == [b'{"n": 3}', b'{"n": 4}']


@able("times")
def test_a_time_is_the_first_record_not_before_it(world: World) -> None:
    topic = world.create(1)
    base = time.time() - 1000
    for i in range(5):
        world.produce(topic, 0, b"%d" % i, timestamp=base + 10 * i)
    tp = TopicPartition(topic, 0)
    for start, offset in ((base - 1, 0), (base + 20, 2), (base + 20.5, 3), (base + 500, 5)):
        source = world.source(SourceTopic(topic, start))
        assert source.resolve_start(tp, True) == offset
        assert source.resolve_start(tp, False) == 0


@able("late")
def test_a_new_partition_appears_and_begins_at_its_first_offset(world: Any) -> None:
    topic = world.create(1)
    source = world.source(SourceTopic(topic, "latest"))
    starts = begin(source)
    world.add_partitions(topic, 3)
    fill(world, topic, 2, 4)
    found = discover(source, 3)
    assert found == [TopicPartition(topic, p) for p in range(3)]
    assert nothing(source)
    positions = starts | {tp: source.resolve_start(tp, False) for tp in found[1:]}
    assert positions[found[2]] == 0
    source.own(positions)
    assert [(r.partition, r.offset) for r in read(source, 4)] == [(2, i) for i in range(4)]


@able("late")
def test_a_missing_topic_is_waited_for_said_and_not_made(world: Any) -> None:
    topic = new_name()
    source = world.source(SourceTopic(topic, "latest"))
    assert source.discover() == []
    assert topic in str(source.condition)
    assert nothing(source)
    assert source.discover() == []
    world.create(1, topic)
    fill(world, topic, 0, 2)
    assert discover(source, 1) == [TopicPartition(topic, 0)]
    assert source.condition is None
    # it appeared later, so what was written before it was found counts
    assert begin(source) == {TopicPartition(topic, 0): 0}
    assert len(read(source, 2)) == 2


@able("end")
def test_a_cluster_has_one_name(world: World) -> None:
    topic = world.create(1)
    first, second = (world.source(SourceTopic(topic)) for _ in range(2))
    assert first.cluster_id() == second.cluster_id() != ""


# --- the gate ------------------------------------------------------------------------------------------------------


@able()
def test_nothing_comes_before_own(world: World) -> None:
    topic = world.create(2)
    fill(world, topic, 0, 3)
    fill(world, topic, 1, 3)
    source = world.source(SourceTopic(topic, "earliest"))
    assert source.discover()
    assert nothing(source)
    source.own({TopicPartition(topic, 1): 1})
    assert [(r.partition, r.offset) for r in read(source, 2)] == [(1, 1), (1, 2)]
    assert nothing(source)


@able()
def test_own_seeks_forward_and_back(world: World) -> None:
    topic = world.create(1)
    fill(world, topic, 0, 6)
    source = world.source(SourceTopic(topic))
    tp = TopicPartition(topic, 0)
    source.own({tp: 4})
    assert [r.offset for r in read(source, 2)] == [4, 5]
    source.own({tp: 1})
    assert [r.offset for r in read(source, 2, max_records=2)] == [1, 2]
    source.own({tp: 5})
    assert [r.offset for r in read(source, 1)] == [5]


@able()
def test_own_with_the_reached_offset_goes_on_undisturbed(world: World) -> None:
    topic = world.create(2)
    fill(world, topic, 0, 4)
    fill(world, topic, 1, 4)
    source = world.source(SourceTopic(topic))
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    source.own({first: 0})
    assert [r.offset for r in read(source, 2, max_records=2)] == [0, 1]
    source.own({first: 2, second: 3})
    assert sorted((r.partition, r.offset) for r in read(source, 3)) == [(0, 2), (0, 3), (1, 3)]


@able()
def test_a_partition_that_is_not_named_is_let_go(world: World) -> None:
    topic = world.create(2)
    fill(world, topic, 0, 2)
    fill(world, topic, 1, 2)
    source = world.source(SourceTopic(topic))
    source.own({TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0})
    source.own({TopicPartition(topic, 1): 0})
    assert [r.partition for r in read(source, 2)] == [1, 1]
    assert nothing(source)
    assert source.lag() == {TopicPartition(topic, 1): 0}


@able()
def test_a_foreign_topic_cannot_be_owned(world: World) -> None:
    source = world.source(SourceTopic(world.create(1)))
    with pytest.raises(ValueError, match="other"):
        source.own({TopicPartition("other", 0): 0})


@able("end")
def test_records_below_the_position_are_dropped(world: Any) -> None:
    """A batch is stored and sent as a whole: the client must drop what lies before the position."""
    topic = world.create(1)
    if isinstance(world, MockWorld):
        for i in range(20):
            world._producer.send(topic, b"%d" % i, partition=0)
        world._producer.flush()
    else:
        fill(world, topic, 0, 20)
    source = world.source(SourceTopic(topic))
    source.own({TopicPartition(topic, 0): 13})
    assert [r.offset for r in read(source, 7)] == list(range(13, 20))


# --- records -------------------------------------------------------------------------------------------------------


@able("records")
def test_keys_headers_times_and_null_values_are_carried(world: World) -> None:
    topic = world.create(1)
    at = round(time.time() - 60, 3)
    world.produce(topic, 0, b"v", b"k", [("model", b"m"), ("model", b"n"), ("empty", b"")], at)
    world.produce(topic, 0, None, b"tombstone", (), at + 1)
    world.produce(topic, 0, b"", None, (), at - 1)
    source = world.source(SourceTopic(topic, "earliest"))
    begin(source)
    first, second, third = read(source, 3)
    assert (first.key, first.value) == (b"k", b"v")
    assert [r.timestamp for r in (first, second, third)] == pytest.approx([at, at + 1, at - 1], abs=1e-4)
    assert [tuple(h) for h in first.headers] == [("model", b"m"), ("model", b"n"), ("empty", b"")]
    assert (second.key, second.value, tuple(second.headers)) == (b"tombstone", None, ())
    assert (third.key, third.value) == (None, b"")


@able()
@pytest.mark.parametrize("max_records", [1, 7, 1000])
def test_poll_sizes_do_not_change_content_or_order(world: World, max_records: int) -> None:
    topic = world.create(3)
    sizes = (40, 0, 25)
    for partition, count in enumerate(sizes):
        fill(world, topic, partition, count)
    source = world.source(SourceTopic(topic, "earliest"))
    begin(source)
    records = read(source, sum(sizes), max_records)
    for partition, count in enumerate(sizes):
        found = [(r.offset, r.value) for r in records if r.partition == partition]
        assert found == [(i, b'{"n": %d}' % i) for i in range(count)]


@able("wire")
def test_header_names_that_are_not_utf8_cost_only_those_headers(world: Any) -> None:
    """Anybody who writes to the topic can make them. Many: the interpreter runs a repeated call in another way."""
    bad = [(RawName(name), b"x") for name in (b"\xff", b"", b"\xc3(", b"\xed\xa0\x80", b"\xff" * 300)]
    topic = world.create(1)
    for i in range(600):
        headers = [*bad[: i % 6], ("n", b"%d" % i), *bad[i % 6 :], ("m", b"")]
        world._producer.send(topic, b"\xff%d" % i, b"\xff", headers=headers if i % 3 else [], partition=0)
    world._producer.flush()
    source = world.source(SourceTopic(topic, "earliest"))
    begin(source)
    for i, record in enumerate(read(source, 600)):
        assert (record.key, record.value) == (b"\xff", b"\xff%d" % i)
        expected = [("n", b"%d" % i), ("m", b"")] if i % 3 else []
        assert [h for h in record.headers if h[0]] == expected
    assert source.condition is None


@able("gap")
def test_offsets_above_the_expected_one_are_handed_out_as_they_are(world: Any) -> None:
    topic = world.create(1)
    fill(world, topic, 0, 2)
    world.gap(topic, 0)
    fill(world, topic, 0, 1, first=2)
    world.gap(topic, 0)
    source = world.source(SourceTopic(topic, "earliest"))
    begin(source)
    assert [(r.offset, r.value) for r in read(source, 3)] == [(0, b'{"n": 0}'), (1, b'{"n": 1}'), (4, b'{"n": 2}')]
    assert nothing(source)
    # two offsets at the end are no records, and nothing to wait for
    assert source.lag() == {TopicPartition(topic, 0): 0}
    source.own({TopicPartition(topic, 0): 5})
    assert nothing(source)


# --- losses --------------------------------------------------------------------------------------------------------


@able("delete")
def test_deleted_before_the_start_goes_on_at_the_first_available(world: Any) -> None:
    topic = world.create(2)
    fill(world, topic, 0, 10)
    fill(world, topic, 1, 3)
    world.delete_before(topic, 0, 6)
    source = world.source(SourceTopic(topic, on_data_loss="earliest"))
    source.own({TopicPartition(topic, 0): 2, TopicPartition(topic, 1): 0})
    assert read_losses(source, 1) == [Loss(topic, 0, expected=2, first_available=6, lost=4, followed=6)]
    assert sorted((r.partition, r.offset) for r in read(source, 7)) == [
        *((0, i) for i in range(6, 10)),
        *((1, i) for i in range(3)),
    ]


@able("delete")
def test_deleted_while_reading_goes_on_at_the_first_available(world: Any) -> None:
    topic = world.create(1)
    fill(world, topic, 0, 2)
    source = world.source(SourceTopic(topic, "earliest"))
    begin(source)
    assert len(read(source, 2)) == 2
    source.pause()
    fill(world, topic, 0, 8, first=2)
    world.delete_before(topic, 0, 7)
    assert nothing(source, 0.2)
    source.own({TopicPartition(topic, 0): 2})
    source.resume()
    records = losses = 0
    deadline = time.monotonic() + 20
    while records < 3 and time.monotonic() < deadline:
        polled = source.poll(0.2, 100)
        if polled.losses:
            assert polled.losses == [Loss(topic, 0, 2, 7, 5, 7)] and records == 0
            losses += 1
        records += sum(len(found) for _, found in polled.records)
    assert (records, losses) == (3, 1)


@able("delete")
def test_deleted_with_stop_says_where_and_how_much_each_time(world: Any) -> None:
    topic = world.create(1)
    fill(world, topic, 0, 10)
    world.delete_before(topic, 0, 6)
    source = world.source(SourceTopic(topic, on_data_loss="stop"))
    source.own({TopicPartition(topic, 0): 2})
    for _ in range(2):
        with pytest.raises(SourceError) as caught:
            read(source, 1)
        for part in (f"topic {topic}, partition 0", "offset 2", "4 records", "offset is 6", "on_data_loss: earliest"):
            assert part in str(caught.value)


@able("end")
def test_a_position_beyond_the_end_is_another_topic_of_that_name(world: World) -> None:
    topic = world.create(1)
    fill(world, topic, 0, 3)
    source = world.source(SourceTopic(topic))
    source.own({TopicPartition(topic, 0): 50})
    assert read_losses(source, 1) == [Loss(topic, 0, expected=50, first_available=0, lost=0, followed=0)]
    assert [r.offset for r in read(source, 3)] == [0, 1, 2]
    stopping = world.source(SourceTopic(topic, on_data_loss="stop"))
    stopping.own({TopicPartition(topic, 0): 50})
    with pytest.raises(SourceError, match="offset 50 is due, but the topic was made again"):
        read(stopping, 1)


@able("end")
def test_a_position_at_the_end_is_no_loss(world: World) -> None:
    topic = world.create(1)
    fill(world, topic, 0, 3)
    source = world.source(SourceTopic(topic, on_data_loss="stop"))
    source.own({TopicPartition(topic, 0): 3})
    assert nothing(source)
    fill(world, topic, 0, 1)
    assert [r.offset for r in read(source, 1)] == [3]


@able("recreate")
@pytest.mark.parametrize("refill", [2, 9])
def test_a_topic_made_again_while_reading_begins_anew(world: Any, refill: int) -> None:
    """With fewer and with more records than were read of the old one."""
    topic = world.create(1)
    fill(world, topic, 0, 5)
    source = world.source(SourceTopic(topic, "earliest"))
    begin(source)
    assert len(read(source, 5)) == 5
    world.delete(topic)
    assert source.discover() == []
    assert topic in str(source.condition)
    world.create(1, topic)
    fill(world, topic, 0, refill, first=100)
    assert discover(source, 1) == [TopicPartition(topic, 0)]
    assert read_losses(source, 1) == [Loss(topic, 0, expected=5, first_available=0, lost=0, followed=0)]
    assert [r.value for r in read(source, refill)] == [b'{"n": %d}' % i for i in range(100, 100 + refill)]
    assert source.condition is None


# --- the rest ------------------------------------------------------------------------------------------------------


@able()
def test_pause_and_resume_keep_the_position(world: World) -> None:
    topic = world.create(2)
    fill(world, topic, 0, 6)
    fill(world, topic, 1, 2)
    source = world.source(SourceTopic(topic))
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    source.own({first: 0})
    assert [r.offset for r in read(source, 2, max_records=2)] == [0, 1]
    source.pause()
    assert nothing(source)
    source.own({first: 2, second: 0})
    assert nothing(source)
    source.resume()
    assert sorted((r.partition, r.offset) for r in read(source, 6)) == [*((0, i) for i in range(2, 6)), (1, 0), (1, 1)]


@able("end")
def test_lag_counts_what_is_left(world: World) -> None:
    topic = world.create(2)
    fill(world, topic, 0, 5)
    fill(world, topic, 1, 1)
    source = world.source(SourceTopic(topic))
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    source.own({first: 1, second: 0})
    assert source.lag() == {first: 4, second: 1}
    read(source, 5)
    assert source.lag() == {first: 0, second: 0}
    fill(world, topic, 1, 3, first=1)
    assert source.lag() == {first: 0, second: 3}


@able()
def test_a_hint_never_raises_and_close_is_idempotent(world: World) -> None:
    topic = world.create(1)
    fill(world, topic, 0, 1)
    source = world.source(SourceTopic(topic, "earliest"))
    begin(source)
    read(source, 1)
    source.hint({TopicPartition(topic, 0): 1})
    source.close()
    source.close()
    source.hint({TopicPartition(topic, 0): 1})
    with pytest.raises(SourceError, match="closed"):
        source.poll(0, 1)


@able()
def test_a_source_that_never_read_can_be_closed(world: World) -> None:
    source = world.source(SourceTopic(world.create(1)))
    source.close()
    source.close()
