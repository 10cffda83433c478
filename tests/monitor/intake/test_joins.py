"""The join in columns against a plain one, event by event: any order, any cuts, restarts anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import Page
from monitor.intake import early
from monitor.intake.joins import NONE, NUMBER, TEXT, Answers, Asked, Joined, JoinSettings, LabelJoin, Told, id_keys
from monitor.intake.pending import ROW_BYTES, SEGMENT, Pending
from monitor.state.codec import decode, encode

DELAY = 100.0


@dataclass(frozen=True)
class Step:
    """A prediction (`label` None) or a label of event `id`."""

    id: str | None
    time: float
    answer: float | None
    label: float | None = None


@dataclass
class Plain:
    """What the join should do, one event after the other."""

    held: dict[str, Step] = field(default_factory=dict)
    labels: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, list[Step]] = field(default_factory=dict)
    joined: list[tuple[float, float, float]] = field(default_factory=list)
    corrected: int = 0
    duplicates: int = 0
    late: int = 0
    unusable: int = 0

    def take(self, step: Step) -> None:
        if step.label is None:
            self.predict(step)
        elif step.answer is not None:
            if step.id in self.labels:
                self.correct(step)
            else:
                self.join(step, step.answer, known=step.id in self.held)
        elif step.id is None:
            self.unusable += 1
        elif step.id not in self.held:
            self.waiting.setdefault(step.id, []).append(step)
        else:
            self.told(step)

    def predict(self, step: Step) -> None:
        if step.id is None:
            return
        if step.id in self.held:
            self.duplicates += 1
            return
        self.held[step.id] = step
        for label in self.waiting.pop(step.id, []):
            self.told(label)

    def told(self, step: Step) -> None:
        assert step.id is not None
        asked = self.held[step.id]
        if step.time - asked.time > DELAY:
            self.late += 1
        elif step.id in self.labels:
            self.correct(step)
        else:
            assert asked.answer is not None
            self.join(step, asked.answer, known=True)

    def correct(self, step: Step) -> None:
        assert step.id is not None and step.label is not None
        self.corrected += 1
        self.labels[step.id] = float(step.label != (step.answer if step.answer is not None else self.answer(step.id)))

    def join(self, step: Step, answer: float, known: bool) -> None:
        assert step.label is not None
        self.joined.append((step.time, answer, step.label))
        key = step.id if known and step.id is not None else f"alone {len(self.joined)}"
        self.labels[key] = float(step.label != answer)

    def answer(self, id: str) -> float:
        found = self.held[id].answer
        assert found is not None
        return found

    @property
    def counts(self) -> tuple[int, ...]:
        wrong = int(sum(self.labels.values()))
        return len(self.joined), self.corrected, self.duplicates, self.late, self.unusable, wrong


def columns(steps: list[Step]) -> tuple[Asked, Told]:
    asked = [s for s in steps if s.label is None]
    told = [s for s in steps if s.label is not None]
    before, seen = [], 0
    for step in steps:
        seen += step.label is None
        if step.label is not None:
            before.append(seen)
    n = len(asked)
    return Asked(
        id_keys([s.id for s in asked]),
        np.array([s.time for s in asked], np.float64),
        np.array([s.answer or 0.0 for s in asked], np.float64),
        np.full(n, NUMBER, np.uint8),
        np.zeros(n),
        np.ones(n),
        np.zeros(n, np.int64),
        np.zeros(n, np.uint16),
    ), Told(
        id_keys([s.id for s in told]),
        np.array(before, np.int64),
        np.array([s.time for s in told], np.float64),
        np.array([s.label for s in told], np.float64),
        np.full(len(told), NUMBER, np.uint8),
        np.ones(len(told)),
        np.array([s.answer or 0.0 for s in told], np.float64),
        np.array([NONE if s.answer is None else NUMBER for s in told], np.uint8),
    )


class Stored:
    """A join whose pages go through the codec, as commits do."""

    def __init__(self, max_bytes: int = 2**20) -> None:
        self.settings = JoinSettings(DELAY, max_bytes)
        self.join = LabelJoin(self.settings)
        self.bytes: dict[str, bytes] = {}
        self.written = 0

    def commit(self) -> None:
        for name, page in self.join.dirty().items():
            self.bytes[name] = encode(page, 1)
            self.written += len(self.bytes[name])

    def restart(self, max_bytes: int | None = None) -> None:
        self.commit()
        pages: dict[str, Page] = {name: decode(data, 1) for name, data in self.bytes.items()}
        if max_bytes is not None:
            self.settings = JoinSettings(DELAY, max_bytes)
        self.join = LabelJoin(self.settings)
        self.join.restore(pages)


def told(joined: Joined) -> list[tuple[float, float, float]]:
    return list(zip(joined.time.tolist(), joined.answer.tolist(), joined.label.tolist(), strict=True))


ids = st.one_of(st.none(), st.sampled_from([f"e{i}" for i in range(8)]))
answers = st.sampled_from([0.0, 1.0, 2.0])
predictions = st.builds(Step, ids, st.floats(0, 90), answers)
labels = st.builds(Step, ids, st.floats(0, 250), st.one_of(st.none(), st.none(), answers), answers)


@given(st.lists(st.one_of(predictions, labels), max_size=60), st.data())
@settings(max_examples=300, deadline=None)
def test_it_joins_as_a_plain_join_does_whatever_the_cuts_and_restarts(steps: list[Step], data: Any) -> None:
    plain, stored, found, at = Plain(), Stored(), [], 0
    for step in steps:
        plain.take(step)
    while at < len(steps):
        size = data.draw(st.integers(1, len(steps)))
        found += told(stored.join.add(*columns(steps[at : at + size]), watermark=90.0))
        at += size
        if data.draw(st.booleans()):
            stored.restart()
    c = stored.join.counts
    assert found == plain.joined
    assert (c.matched, c.corrected, c.duplicates, c.late, c.unusable, c.wrong) == plain.counts
    assert len(stored.join.early) == sum(map(len, plain.waiting.values()))


def rows(first: int, n: int, time: float = 0.0) -> list[Step]:
    return [Step(f"p{i}", time + i * 1e-6, float(i % 2)) for i in range(first, first + n)]


def test_many_pending_predictions_are_all_found_after_a_restart() -> None:
    stored, n = Stored(64 * 2**20), 40_000
    for begin in range(0, n, 1_000):
        stored.join.add(*columns(rows(begin, 1_000)), watermark=1.0)
        stored.commit()
    stored.restart()
    answers = [Step(f"p{i}", 1.0, None, 1.0) for i in range(0, n, 7)]
    joined = stored.join.add(*columns(answers), watermark=1.0)
    assert joined.answer.tolist() == [float(i % 2) for i in range(0, n, 7)]
    stored.restart()
    again = stored.join.add(*columns(answers), watermark=1.0)
    assert len(again) == 0 and stored.join.counts.corrected == len(answers)


def test_beyond_the_bound_a_sample_is_kept_and_its_labels_weigh_more() -> None:
    stored, n = Stored(8 * SEGMENT * ROW_BYTES), 33_000
    for begin in range(0, n, 1_000):
        stored.join.add(*columns(rows(begin, 1_000)), watermark=1.0)
    pending = stored.join.pending
    assert pending.rate >= 3 and pending.rows <= 8 * SEGMENT
    stored.restart()
    joined = stored.join.add(*columns([Step(f"p{i}", 1.0, None, 1.0) for i in range(n)]), watermark=1.0)
    assert len(joined) == pending.rows
    assert abs(joined.weight.sum() / n - 1) < 0.1  # each label stands for as many as were left out
    counts = stored.join.counts
    assert counts.matched + counts.unsampled + len(stored.join.early) == n and counts.late == 0


def test_old_predictions_leave_and_the_sample_grows_again() -> None:
    stored = Stored(8 * SEGMENT * ROW_BYTES)
    stored.join.add(*columns(rows(0, 32 * SEGMENT)), watermark=1.0)
    assert stored.join.pending.rate > 0
    for time in np.arange(1, 40) * DELAY:
        stored.join.add(*columns(rows(int(1e6 + time), 10, time)), watermark=float(time))
        stored.restart()
    assert stored.join.pending.rate == 0
    assert stored.join.pending.rows < 2 * SEGMENT and stored.join.pending.expired > SEGMENT


def test_a_commit_writes_what_changed_only() -> None:
    stored = Stored(64 * 2**20)
    stored.join.add(*columns(rows(0, 20_000)), watermark=1.0)
    stored.commit()
    whole, stored.written = stored.written, 0
    stored.join.add(*columns([*rows(20_000, 10), Step("p5", 1.0, None, 0.0)]), watermark=1.0)
    stored.commit()
    assert stored.written < whole / 20
    stored.written = 0
    stored.commit()
    assert stored.written == 0


def test_another_bound_takes_the_same_predictions() -> None:
    for before, after in ((2**20, 2**24), (2**24, 2**20)):
        stored = Stored(before)
        stored.join.add(*columns(rows(0, 10_000)), watermark=1.0)
        stored.restart(after)
        stored.restart()
        joined = stored.join.add(*columns([Step(f"p{i}", 1.0, None, 1.0) for i in range(10_000)]), watermark=1.0)
        assert len(joined) == 10_000


def test_early_labels_are_bounded_and_given_up_in_time() -> None:
    stored = Stored()
    n = early.CAPACITY + 100
    stored.join.add(*columns([Step(f"x{i}", 0.0, None, 1.0) for i in range(n)]), watermark=0.0)
    assert len(stored.join.early) == early.CAPACITY and stored.join.unmatched == 100
    stored.restart()
    joined = stored.join.add(*columns([Step("x50", 0.0, 1.0), Step(f"x{n - 1}", 0.0, 1.0)]), watermark=1.0)
    assert len(joined) == 1
    stored.join.add(*columns([]), watermark=1.0 + early.WAIT_SECONDS)
    assert len(stored.join.early) == 0 and stored.join.unmatched == n - 1


WAIT = early.WAIT_SECONDS
LONG = [
    *[Step("first", 0.0, None, 1.0), Step("first", 100.0, 0.0)],  # before any prediction: waits from the first
    *[Step("near", 0.0, None, 1.0), Step("far", 0.0, None, 1.0), Step("x", WAIT, 0.0), Step("near", 9.0, 0.0)],
    *[Step("y", WAIT + 101.0, 0.0), Step("far", 9.0, 0.0), Step("late", 0.0, None, 1.0)],
    *[Step(f"z{i}", i * WAIT, 0.0) for i in range(5)],
    *[Step("late", 1.0, 0.0), Step("last", 0.0, None, 1.0), Step("last", 9 * WAIT, 0.0)],
]


@given(st.lists(st.integers(1, len(LONG)), min_size=len(LONG), max_size=len(LONG)), st.booleans())
@settings(max_examples=60, deadline=None)
def test_early_labels_wait_by_the_time_when_they_came_whatever_the_cuts(sizes: list[int], restart: bool) -> None:
    stored, newest, at, matched = Stored(), 0.0, 0, 0
    for size in sizes:
        part = LONG[at : at + size]
        matched += len(stored.join.add(*columns(part), watermark=newest))
        newest = max([newest, *(s.time for s in part if s.label is None)])
        at += size
        if restart:
            stored.restart()
    assert matched == 3  # first, near and last
    assert stored.join.unmatched == 2 and len(stored.join.early) == 0


def test_a_lost_page_costs_its_rows_only() -> None:
    stored = Stored()
    stored.join.add(*columns(rows(0, 4 * SEGMENT)), watermark=1.0)
    stored.commit()
    del stored.bytes["seg1"]
    stored.restart()
    joined = stored.join.add(*columns([Step(f"p{i}", 1.0, None, 1.0) for i in range(4 * SEGMENT)]), watermark=1.0)
    assert len(joined) == 3 * SEGMENT


def test_ids_made_to_stay_in_every_sample_do_not_fill_the_store() -> None:
    pending = Pending(8 * SEGMENT)
    keys = np.arange(1, 14 * SEGMENT, dtype=np.uint64)
    n = len(keys)
    zeros = np.zeros(n)
    pending.append(
        {"key": keys, "time": zeros, "answer": zeros, "score": zeros, "weight": zeros, "version": zeros, "kind": zeros}
    )
    assert pending.rows <= 8 * SEGMENT


def test_classes_are_equal_however_they_are_written() -> None:
    answer = Answers().one
    assert answer(1) == answer("1") == answer(1.0) == answer("1.0")
    assert answer("1_0") != answer("10") and answer("x" * 500) == answer("x" * 500) != answer("x" * 501)
    assert answer("yes") != answer("no") and answer("yes")[1] == TEXT
    assert answer(True) == answer("true")
    for nothing in (None, [1], {"a": 1}, float("nan"), 10**400):
        assert answer(nothing) == (0.0, NONE)
    assert answer("\ud800")[1] == TEXT


def test_ids_are_hashed_with_the_key_of_the_installation() -> None:
    ids = ["p-1", None, "p-2"]
    plain, mine, other = id_keys(ids), id_keys(ids, b"mine"), id_keys(ids, b"other")
    assert plain[1] == mine[1] == 0
    assert len({int(k[0]) for k in (plain, mine, other)}) == 3
    assert (id_keys(ids, b"mine") == mine).all()
