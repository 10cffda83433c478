"""Partitions side by side: nothing lost or reordered within one, times roughly in order, nobody waits for ever."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from monitor.intake.alignment import LONGEST, RUN, Aligner
from monitor.intake.events import Record
from monitor.intake.sources.base import TopicPartition

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


def records(tp: TopicPartition, times: Sequence[float | None]) -> list[Record]:
    return [Record(tp.topic, tp.partition, i, at, None, None) for i, at in enumerate(times)]


def taken(aligner: Aligner, now: float) -> list[Record]:
    return [record for _, run in aligner.take(now) for record in run]


def test_records_of_two_partitions_come_in_the_order_of_time() -> None:
    aligner = Aligner()
    aligner.own([A, B], 0.0)
    aligner.add(A, records(A, [float(i) for i in range(0, 400, 2)]), 0.1)
    assert taken(aligner, 0.1) == []
    aligner.add(B, records(B, [float(i) for i in range(1, 401, 2)]), 0.2)
    times = [r.timestamp or 0.0 for r in taken(aligner, 0.2)]
    times += [r.timestamp or 0.0 for r in taken(aligner, 9.0)]
    assert len(times) == 400
    assert max(early - late for i, early in enumerate(times) for late in times[i:]) <= 4 * RUN


def test_a_silent_partition_holds_nobody_up_for_long() -> None:
    aligner = Aligner()
    aligner.own([A, B], 0.0)
    aligner.add(A, records(A, [1.0, 2.0]), 0.0)
    assert taken(aligner, 0.9) == []
    assert len(taken(aligner, 1.1)) == 2


def test_one_partition_goes_straight_through() -> None:
    aligner = Aligner()
    aligner.own([A], 0.0)
    aligner.add(A, records(A, [3.0, 1.0, 2.0]), 0.0)
    assert [r.offset for r in taken(aligner, 0.0)] == [0, 1, 2]
    assert aligner.waiting == 0


def test_too_many_waiting_records_go_on() -> None:
    aligner = Aligner(most=100)
    aligner.own([A, B], 0.0)
    aligner.add(A, records(A, [float(i) for i in range(150)]), 0.0)
    assert len(taken(aligner, 0.0)) >= 50
    assert aligner.waiting <= 100


def test_owning_anew_forgets_what_waited() -> None:
    aligner = Aligner()
    aligner.own([A, B], 0.0)
    aligner.add(A, records(A, [1.0]), 0.0)
    aligner.own([A, B], 5.0)
    assert aligner.waiting == 0 and taken(aligner, 99.0) == []


def test_flushing_gives_what_waits_of_one_partition() -> None:
    aligner = Aligner()
    aligner.own([A, B], 0.0)
    aligner.add(A, records(A, [1.0, 2.0]), 0.0)
    assert [r.offset for r in aligner.flush(A)] == [0, 1]
    assert aligner.waiting == 0 and aligner.flush(B) == []


TIMES = st.lists(st.none() | st.floats(0, 100), max_size=60)


@given(TIMES, TIMES)
def test_nothing_is_lost_and_the_order_of_a_partition_is_kept(a: list[float | None], b: list[float | None]) -> None:
    aligner = Aligner()
    aligner.own([A, B], 0.0)
    aligner.add(A, records(A, a), 0.0)
    aligner.add(B, records(B, b), 0.0)
    found = taken(aligner, 10.0)
    for tp, times in ((A, a), (B, b)):
        assert [r.offset for r in found if r.partition == tp.partition] == list(range(len(times)))


def test_a_quiet_partition_does_not_wait_for_a_busy_one_that_is_hours_behind() -> None:
    aligner = Aligner()
    aligner.own([A, B], 0.0)
    aligner.add(B, records(B, [10_000.0, 10_001.0]), 0.0)
    waited = None
    for i in range(100):
        now = i * 0.1
        aligner.add(A, [Record("t", 0, i, float(i), None, None)], now)
        if waited is None and any(r.partition == 1 for r in taken(aligner, now)):
            waited = now
    assert waited is not None
    assert 4.9 <= waited <= LONGEST + 0.2


def test_partitions_of_a_keyed_topic_do_not_wait_for_each_other() -> None:
    aligner = Aligner(keyed={"t"})
    aligner.own([A, B], 0.0)
    aligner.add(B, records(B, [10_000.0, 10_001.0]), 0.0)
    assert [r.partition for r in taken(aligner, 0.0)] == [1, 1]
    aligner.add(A, records(A, [1.0]), 0.1)
    aligner.add(B, records(B, [10_002.0]), 0.1)
    assert len(taken(aligner, 0.1)) == 2


def test_of_keyed_topics_partitions_of_one_number_wait_for_each_other_and_all_for_others() -> None:
    labels = [TopicPartition("labels", i) for i in (0, 1)]
    other = TopicPartition("other", 0)
    aligner = Aligner(keyed={"t", "labels"})
    aligner.own([A, B, *labels], 0.0)
    aligner.add(A, records(A, [5.0]), 0.0)
    aligner.add(B, records(B, [5.0]), 0.0)
    aligner.add(labels[0], records(labels[0], [4.0, 6.0]), 0.0)
    assert [(r.topic, r.timestamp) for r in taken(aligner, 0.0)] == [("labels", 4.0), ("labels", 6.0)]
    assert [r.partition for r in taken(aligner, 1.1)] == [0, 1]  # a label of their models might have come till then
    aligner.own([A, B, other], 2.0)
    aligner.add(A, records(A, [1.0]), 2.0)
    assert taken(aligner, 2.0) == []
    aligner.add(other, records(other, [0.0]), 2.1)
    assert taken(aligner, 2.1) == []  # for its sister, which may have an older one
    assert [r.topic for r in taken(aligner, 3.05)] == ["other"]
    assert [r.topic for r in taken(aligner, 3.2)] == ["t"]


@given(TIMES, TIMES, TIMES)
def test_with_keyed_topics_too_nothing_is_lost(
    a: list[float | None], b: list[float | None], c: list[float | None]
) -> None:
    other = TopicPartition("other", 0)
    aligner = Aligner(keyed={"t"})
    aligner.own([A, B, other], 0.0)
    for tp, times in ((A, a), (B, b), (other, c)):
        aligner.add(tp, records(tp, times), 0.0)
    found = [*taken(aligner, 0.0), *taken(aligner, 2.0)]
    for tp, times in ((A, a), (B, b), (other, c)):
        assert [r.offset for r in found if (r.topic, r.partition) == tp] == list(range(len(times)))
