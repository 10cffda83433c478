"""A model judged by a sample: which events, what still sees all of them, and that a replay makes the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import msgspec
import numpy as np
import pytest

from detectors.base import Batch, Category, Finding, Identity, Numeric
from monitor.demo.traffic import CreditTraffic
from monitor.intake.columns import build_batch, infer_schema
from monitor.intake.events import Event, EventType, Record
from monitor.intake.formats.base import TopicRules, formats
from monitor.intake.identity import Pseudonyms
from monitor.intake.reader import Intake
from monitor.metrics import Metrics
from monitor.pipeline import Pipeline, PipelineSettings
from monitor.sampling import Sampling, in_whole, is_in_sample
from monitor.state.codec import decode, encode
from monitor.state.rows import Trail, packed_trail, unpacked_trail
from monitor.state.unit import CommitUnit, Sampled, Slice, StatePage, Tick
from monitor.watch import PROVISIONAL_ROWS, WatchSettings

START, RATE, TOPIC, SUBJECT = 1_763_625_600.0, 100.0, "predictions", "model:/credit-risk"


def pipeline() -> Pipeline:
    rules = TopicRules(TOPIC, Pseudonyms(b"", plain=True))
    made = Pipeline(
        PipelineSettings({TOPIC: Intake(formats()["native"], rules)}, lambda model, tenant: WatchSettings()), Metrics()
    )
    made.own(TOPIC, 0, 0)
    return made


def records(lines: Sequence[bytes], first: int) -> list[Record]:
    return [Record(TOPIC, 0, first + i, None, None, line) for i, line in enumerate(lines)]


@pytest.fixture(scope="module")
def drifting() -> list[bytes]:
    credit = CreditTraffic(5)
    events = credit.events(2_000, START, RATE) + credit.events(1_500, START + 20, RATE, "income")
    return [msgspec.json.encode(e) for e in events]


def feed(p: Pipeline, lines: Sequence[bytes], rates: dict[int, int], first: int = 0) -> Iterator[CommitUnit]:
    """Records in polls of 250, each followed by a tick and a commit; `rates` by offset."""
    for at in range(first, len(lines), 250):
        if at in rates:
            p.sample(SUBJECT, rates[at])
        p.feed(TOPIC, 0, records(lines[at : at + 250], at))
        p.tick(START + at)
        yield p.take_unit(START + at)


def replay(units: Sequence[CommitUnit], lines: Sequence[bytes], poll: int) -> Iterator[CommitUnit]:
    p = pipeline()
    for unit in units:
        for piece in unpacked_trail(packed_trail(unit.trail)):
            if isinstance(piece, Tick):
                p.tick(piece.at, piece.listening)
            elif isinstance(piece, Sampled):
                p.sample(piece.subject, piece.one_in)
            else:
                for at in range(piece.start, piece.stop, poll):
                    p.feed(TOPIC, 0, records(lines[at : min(at + poll, piece.stop)], at))
        yield p.take_unit(unit.at)


def content(page: StatePage) -> tuple[str, str, str, bytes]:
    return page.subject, page.detector, page.page, encode(page.arrays, page.version)


def kinds(units: Sequence[CommitUnit]) -> list[str]:
    return sorted({i.id: i.kind for unit in units for i in unit.incidents}.values())


def test_a_replay_along_the_trail_samples_the_same_events(drifting: list[bytes]) -> None:
    units = list(feed(pipeline(), drifting, {1_000: 2, 1_500: 4, 3_000: 1}))
    assert sum(isinstance(e, Sampled) for unit in units for e in unit.trail) == 3
    assert "feature_drift" in kinds(units)
    for poll in (7, 5_000):
        again = list(replay(units, drifting, poll))
        for one, other in zip(units, again, strict=True):
            assert (one.trail, one.positions, one.subjects) == (other.trail, other.positions, other.subjects)
            assert one.incidents == other.incidents
            assert [content(p) for p in one.pages] == [content(p) for p in other.pages]


def test_everything_is_counted_and_what_is_not_judged_is_told(drifting: list[bytes]) -> None:
    p = pipeline()
    units = list(feed(p, drifting, {1_000: 4}))
    last = units[-1].subjects[-1]
    assert last.predictions == len(drifting) and last.sample_rate == 0.25
    assert abs(last.unjudged - 0.75 * 2_500) < 4 * np.sqrt(2_500 * 0.25 * 0.75)
    whole = list(feed(pipeline(), drifting, {}))[-1].subjects[-1]
    assert (last.clients, last.watermark) == (whole.clients, whole.watermark) and whole.unjudged == 0
    value = p.metrics.registry.get_sample_value
    assert value("modelwarden_sample_rate", {"model": "credit-risk"}) == 0.25
    assert value("modelwarden_predictions_unjudged_total", {"model": "credit-risk"}) == last.unjudged
    (told,) = [i for i in p.book.open() if i.kind == "monitor_health"]
    assert told.why.startswith(f"{SUBJECT}: events come too fast, a share of 0.25 of them is judged (before: 1)")
    p.sample(SUBJECT, 1)
    assert not [i for i in p.book.open() if i.kind == "monitor_health"]


def test_a_restart_goes_on_with_the_sample(drifting: list[bytes]) -> None:
    whole = list(feed(pipeline(), drifting, {1_000: 4}))
    first = pipeline()
    before = list(feed(first, drifting[:2_000], {1_000: 4}))
    stored = {(p.subject, p.detector, p.params_hash, p.page): p for unit in before for p in unit.pages}
    pages = [p._replace(arrays=decode(encode(p.arrays, p.version), p.version)) for p in stored.values()]
    second = pipeline()
    watch = second.listed_watch("credit-risk", "")
    panel = first.watches[SUBJECT].panel
    assert panel is not None and first.watches[SUBJECT]._schema is not None
    rows = [formats()["native"].decode(r, TopicRules(TOPIC, Pseudonyms(b"", plain=True))).events[0]
            for r in records(drifting[:PROVISIONAL_ROWS], 0)]  # fmt: skip
    watch.use(watch.prepare(rows, "live"))
    second.restore(watch, [p for p in pages if p.subject == SUBJECT], before[-1].subjects[0], {})
    second.own(TOPIC, 0, 2_000)
    after = list(feed(second, drifting, {}, 2_000))
    assert after[-1].subjects[0] == whole[-1].subjects[0]

    def drift(units: list[CommitUnit]) -> set[str]:
        return {i.id for u in units for i in u.incidents if i.kind == "feature_drift"}

    assert drift(after) == drift(whole) != set()


def test_exact_rules_see_every_event(drifting: list[bytes]) -> None:
    broken = [msgspec.json.decode(line) for line in drifting[:2_000]]
    for event in broken[1_500:]:
        del event["features"]["income"]
    lines = [msgspec.json.encode(event) for event in broken]

    def vanished(rates: dict[int, int]) -> list[Any]:
        units = list(feed(pipeline(), lines, rates))
        last = {i.id: i for unit in units for i in unit.incidents if "field_rule" in i.detectors}
        return [(i.opened_at, i.subjects[0]) for i in last.values()]

    assert vanished({1_000: 16}) == vanished({}) != []


def test_a_sample_is_uniform_nested_and_the_same_whatever_the_cut() -> None:
    n = 40_000
    identity = Identity(("a", "b"), np.arange(n, dtype=np.int32) % 2, np.arange(n) % 3, np.arange(n), np.zeros(n, int))
    finer = np.ones(n, bool)
    for one_in in (2, 4, 16):
        kept = is_in_sample(identity, one_in)
        assert abs(kept.mean() - 1 / one_in) < 4 * np.sqrt(1 / one_in / n)
        parts = [is_in_sample(identity.part(slice(at, at + 333)), one_in) for at in range(0, n, 333)]
        assert (np.concatenate(parts) == kept).all() and not (kept & ~finer).any()
        pairs = np.corrcoef(kept[:-1], kept[1:])[0, 1]
        assert abs(pairs) < 4 / np.sqrt(n)
        finer = kept
    assert is_in_sample(Identity((), np.zeros(0, np.int32), *[np.zeros(0, np.int64)] * 3), 4).shape == (0,)


def test_part_of_a_batch_is_the_batch_of_its_events() -> None:
    rng = np.random.default_rng(3)
    events = [
        Event(
            EventType.PREDICTION, START + i, event_id=f"e{i}", client=[None, "a", "b", "c"][int(rng.integers(4))],
            model_version=str(i % 2), segment=[None, "eu"][i % 2], prediction="yes", scores={"yes": 0.7, "no": 0.3},
            features={"x": float(i), "k": "uvw"[i % 3]} | ({"more": 1} if i in (5, 60) else {}),
        )
        for i in range(80)
    ]  # fmt: skip
    places = [("t", i % 2, i, 0) for i in range(80)]
    schema = infer_schema([e for e in events if "more" not in (e.features or {})])
    whole = build_batch("s", 100, events, places, schema)
    rows = np.array([2, 3, 5, 11, 40, 79])
    part = whole.part(rows, 4)
    same = build_batch("s", 100, [events[i] for i in rows], [places[i] for i in rows], schema)
    assert part.one_in == 4 and part.new_fields[0][0] == "more" and part.new_fields[0][1].tolist() == [2]
    names = [None if c < 0 else part.clients[c] for c in part.client]
    assert names == [events[i].client for i in rows] and set(part.clients) == {n for n in names if n}
    for field in fields(Batch):
        mine, other = getattr(part, field.name), getattr(same, field.name)
        if isinstance(other, np.ndarray) and field.name != "client":
            np.testing.assert_array_equal(mine, other)
        elif isinstance(other, Numeric):
            np.testing.assert_array_equal(mine.values, other.values)
            np.testing.assert_array_equal(mine.status, other.status)
        elif isinstance(other, Category):
            np.testing.assert_array_equal(mine.codes, other.codes)
        elif isinstance(other, Identity):
            assert [mine.at(i) for i in range(6)] == [other.at(i) for i in range(6)]
    assert len(whole.part(np.zeros(0, np.int64), 2)) == 0


def test_what_is_found_in_a_sample_stands_at_its_event() -> None:
    finding = Finding("d", "k", "drift", "info", 0.0, 2, 102, (), 0.0, ())
    rows = np.array([4, 7, 9])
    assert [(f.row, f.position) for f in (in_whole(finding, rows, 100),)] == [(9, 109)]
    assert in_whole(replace(finding, row=-1, position=0), rows, 100).row == -1
    sampling = Sampling()
    sampling.restore(None)
    assert (sampling.one_in, sampling.unjudged) == (1, 0)


def test_a_trail_with_samples_is_what_was_written() -> None:
    trail: Trail = [Slice("t", 0, 3, 9), Sampled("model:/a", 2), Tick(1.5), Tick(2.5, False), Sampled("model:/b", 16)]
    assert unpacked_trail(packed_trail(trail)) == trail
    assert "subjects" not in packed_trail([Tick(1.0)])
