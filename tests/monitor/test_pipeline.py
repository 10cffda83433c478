"""The pipeline alone: offsets, dead letters, cuts, replay along the recorded trail, isolation, learning, limits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import msgspec
import pytest
from prometheus_client import generate_latest

from detectors import base
from detectors.base import Batch, Detector, Finding, Page, Views
from monitor.commands import ERASE, RESOLVE, SILENCE
from monitor.demo.traffic import CreditTraffic
from monitor.intake.events import Reason, Record
from monitor.intake.formats.base import TopicRules, formats
from monitor.intake.identity import Pseudonyms
from monitor.intake.reader import Intake
from monitor.intake.sources.base import Loss
from monitor.metrics import Metrics
from monitor.own_health import QUIET_SECONDS
from monitor.pipeline import Pipeline, PipelineSettings
from monitor.references import ReferenceFileError, origin_of, read_reference, rows_of
from monitor.state.codec import decode, encode
from monitor.state.commands import Command
from monitor.state.unit import CommitUnit, Slice, StatePage, Tick
from monitor.watch import PROVISIONAL_ROWS, WatchSettings

START, RATE = 1_763_625_600.0, 100.0
TOPIC = "predictions"


def settings(**changes: Any) -> PipelineSettings:
    rules = TopicRules(TOPIC, Pseudonyms(b"", plain=True))
    made = PipelineSettings({TOPIC: Intake(formats()["native"], rules)}, lambda model, tenant: WatchSettings())
    return replace(made, **changes)


def pipeline(partitions: int = 1, **changes: Any) -> Pipeline:
    made = Pipeline(settings(**changes), Metrics())
    for partition in range(partitions):
        made.own(TOPIC, partition, 0)
    return made


def records(lines: Sequence[bytes], partition: int = 0, first: int = 0) -> list[Record]:
    return [Record(TOPIC, partition, first + i, None, None, line) for i, line in enumerate(lines)]


@pytest.fixture(scope="module")
def drifting() -> list[bytes]:
    credit = CreditTraffic(5)
    events = credit.events(3_000, START, RATE) + credit.events(1_500, START + 30, RATE, "income")
    return [msgspec.json.encode(e) for e in events]


def told(units: Sequence[CommitUnit]) -> list[Any]:
    last = {i.id: i for unit in units for i in unit.incidents}
    return [(i.id, i.kind, i.why, i.status, i.opened_at, i.measures) for i in last.values()]


def test_offsets_below_the_expected_one_are_dropped_and_gaps_are_counted(drifting: list[bytes]) -> None:
    p = pipeline()
    p.feed(TOPIC, 0, records(drifting[:100]))
    again = records(drifting[50:150], first=50)
    p.feed(TOPIC, 0, [*again[:70], *again[20:]])  # also within one call, as a source that went back would give them
    p.feed(TOPIC, 0, records(drifting[160:170], first=160))
    p.tick(1.0)
    (position,) = p.take_unit(1.0).positions
    assert (position.expected, position.next) == (0, 170)
    assert position.counts.received == position.counts.accepted == 160
    assert position.counts.gap == 10
    assert p.watches["model:/credit-risk"].predictions == 160


def test_records_that_cannot_be_read_are_dead_letters_and_the_stream_goes_on(drifting: list[bytes]) -> None:
    p = pipeline()
    bad = [b"", b"[1]", b"{", b'{"type": "prediction", "ts": "never", "model": "m"}', b'{"a": 1, "a": 2}']
    lines = [line for pair in zip(drifting[:5], bad, strict=True) for line in pair]
    p.feed(TOPIC, 0, records(lines))
    p.tick(1.0)
    unit = p.take_unit(1.0)
    assert [letter.reason for letter in unit.dead_letters] == [
        Reason.EMPTY, Reason.NOT_AN_OBJECT, Reason.NOT_JSON, Reason.BAD_TIME, Reason.DUPLICATE_KEY,
    ]  # fmt: skip
    counts = unit.positions[0].counts
    assert (counts.received, counts.accepted, counts.rejected) == (10, 5, 5)


def test_a_decoder_that_raises_costs_one_record(drifting: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    p = pipeline()
    native = p.settings.intakes[TOPIC].format
    whole = native.decode

    class Broken:
        name = "broken"

        def decode(self, record: Record, rules: TopicRules) -> Any:
            if record.offset == 3:
                raise RuntimeError("a bug")
            return whole(record, rules)

    intake = replace(p.settings.intakes[TOPIC], format=Broken())
    p.settings = replace(p.settings, intakes={TOPIC: intake})
    p.feed(TOPIC, 0, records(drifting[:10]))
    p.tick(1.0)
    unit = p.take_unit(1.0)
    assert [(d.offset, d.reason) for d in unit.dead_letters] == [(3, Reason.INTERNAL)]
    assert unit.positions[0].counts.accepted == 9


def feed_all(p: Pipeline, lines: Sequence[bytes], poll: int, tick: int) -> list[CommitUnit]:
    units = []
    for at in range(0, len(lines), poll):
        p.feed(TOPIC, 0, records(lines[at : at + poll], first=at))
        if (at // poll) % tick == tick - 1:
            p.tick(float(at))
            units.append(p.take_unit(float(at)))
    p.tick(1e6)
    return [*units, p.take_unit(1e6)]


def test_incidents_do_not_depend_on_polls_and_ticks(drifting: list[bytes]) -> None:
    first = told(feed_all(pipeline(), drifting, 1_000, 1))
    assert any(kind == "feature_drift" for _, kind, *_ in first)
    for poll, tick in ((1, 37), (77, 1), (333, 5), (5_000, 1)):
        assert told(feed_all(pipeline(), drifting, poll, tick)) == first


def replay(units: Sequence[CommitUnit], lines: Sequence[bytes], poll: int) -> list[CommitUnit]:
    """Feed the recorded trail again, each slice in polls of another size."""
    p, again = pipeline(), []
    for unit in units:
        for piece in unit.trail:
            if isinstance(piece, Tick):
                p.tick(piece.at, piece.listening)
                continue
            assert isinstance(piece, Slice)
            for at in range(piece.start, piece.stop, poll):
                stop = min(at + poll, piece.stop)
                p.feed(piece.topic, piece.partition, records(lines[at:stop], piece.partition, at))
        again.append(p.take_unit(unit.at))
    return again


def test_a_replay_along_the_trail_is_equal_to_the_byte(drifting: list[bytes]) -> None:
    units = feed_all(pipeline(), drifting, 230, 3)
    for poll in (1, 64, 10_000):
        again = replay(units, drifting, poll)
        assert told(again) == told(units)
        for one, other in zip(units, again, strict=True):
            assert one.trail == other.trail
            assert one.positions == other.positions
            assert [_bytes(p) for p in one.pages] == [_bytes(p) for p in other.pages]


def test_a_restart_between_any_two_commits_changes_nothing(drifting: list[bytes]) -> None:
    whole = feed_all(pipeline(), drifting, 500, 1)
    for stop in (1, 3, 6, 8):
        first = pipeline()
        before = []
        for at in range(0, 500 * stop, 500):
            first.feed(TOPIC, 0, records(drifting[at : at + 500], first=at))
            first.tick(float(at))
            before.append(first.take_unit(float(at)))
        stored = {(p.subject, p.detector, p.params_hash, p.page): p for unit in before for p in unit.pages}
        references = {r.subject: r for unit in before for r in unit.references}
        open_now = {i.id: i for unit in before for i in unit.incidents if i.status != "resolved"}
        second = Pipeline(settings(), Metrics(), open_now.values())
        pages = [p._replace(arrays=decode(encode(p.arrays, p.version), p.version)) for p in stored.values()]
        watch = second.listed_watch("credit-risk", "")
        reference = references["model:/credit-risk"]
        watch.use(watch.prepare(rows_of(reference), origin_of(reference)))
        second.restore(watch, pages, before[-1].subjects[0], {})
        position = before[-1].positions[0]
        second.own(TOPIC, 0, position.next, position.counts)
        after = []
        for at in range(500 * stop, len(drifting), 500):
            second.feed(TOPIC, 0, records(drifting[at : at + 500], first=at))
            second.tick(float(at))
            after.append(second.take_unit(float(at)))
        assert told([*before, *after]) == told(whole)
        assert after[-1].subjects == whole[-2].subjects


def test_a_model_without_a_reference_learns_one_whatever_the_cuts(drifting: list[bytes]) -> None:
    versions = set()
    for poll in (1, 99, 5_000):
        units = feed_all(pipeline(), drifting[: PROVISIONAL_ROWS + 400], poll, 1)
        (row,) = [r for unit in units for r in unit.references]
        assert row.origin == "live" and row.approved_at is None and row.meta == {"rows": PROVISIONAL_ROWS}
        versions.add(row.content_hash)
        last = [s for unit in units for s in unit.subjects][-1]
        assert last.state == "watching" and last.predictions == PROVISIONAL_ROWS + 400
    assert len(versions) == 1
    few = feed_all(pipeline(), drifting[:100], 10, 1)
    assert [s for unit in few for s in unit.subjects][-1].state == "calibrating"


def test_models_without_features_are_off_and_still_counted() -> None:
    line = msgspec.json.encode({"type": "prediction", "ts": START, "model": "m", "client": "a", "prediction": 1})
    p = pipeline()
    p.feed(TOPIC, 0, records([line] * 600))
    p.tick(1.0)
    row = p.take_unit(1.0).subjects[-1]
    assert (row.state, row.predictions, row.clients) == ("off", 600, 1)


def test_models_beyond_the_limit_are_one_incident_and_not_watched() -> None:
    lines = [msgspec.json.encode({"type": "prediction", "ts": START, "model": f"m{i}"}) for i in range(50)]
    lines.append(msgspec.json.encode({"type": "prediction", "ts": START, "model": "listed"}))
    p = pipeline(max_models=3, listed=frozenset({"listed"}))
    p.feed(TOPIC, 0, records(lines))
    p.tick(1.0)
    unit = p.take_unit(1.0)
    assert {s.model for s in unit.subjects if not s.unwatched} == {"m0", "m1", "m2", "listed"}
    passed_by = {s.model: s.predictions for s in unit.subjects if s.unwatched}
    assert passed_by == {f"m{i}": 1 for i in range(3, 50)}
    assert [(i.kind, i.severity) for i in unit.incidents] == [("monitor_health", "warning")]
    assert unit.positions[0].counts.accepted == 51


def test_listed_models_and_shadows_take_no_place_of_unknown_models() -> None:
    def line(model: str, **more: str) -> bytes:
        return msgspec.json.encode({"type": "prediction", "ts": START, "model": model} | more)

    p = pipeline(max_models=2, listed=frozenset({"a", "b"}))
    p.feed(TOPIC, 0, records([line("a"), line("b"), line("m0"), line("m0", role="shadow"), line("a", role="shadow")]))
    p.feed(TOPIC, 0, records([line("m1"), line("m2"), line("m2", role="shadow"), line("a", tenant="t")], first=5))
    assert set(p.watches) == {"model:/" + name for name in ("a", "b", "m0", "m0@shadow", "a@shadow", "m1")}


def test_too_many_models_stay_told_while_they_are_not_watched() -> None:
    p = pipeline(max_models=1)
    day = 86_400.0
    for i in range(4):
        lines = [msgspec.json.encode({"ts": START + i * day, "model": f"m{k}"}) for k in range(2)]
        p.feed(TOPIC, 0, records(lines, first=2 * i))
        p.tick(START + i * day)
        (incident,) = p.book.open()
        assert incident.cause == "unwatched"
    p.tick(START + 5 * day)
    assert not p.book.open()


def test_lost_records_are_counted_and_told(drifting: list[bytes]) -> None:
    p = pipeline()
    p.feed(TOPIC, 0, records(drifting[:10]))
    p.lose(Loss(TOPIC, 0, 10, 40, 30, 40), START)
    p.feed(TOPIC, 0, records(drifting[40:50], first=40))
    p.tick(1.0)
    unit = p.take_unit(1.0)
    (position,) = unit.positions
    assert (position.expected, position.next, position.counts.received, position.counts.gap) == (0, 50, 20, 30)
    (incident,) = unit.incidents
    assert incident.kind == "monitor_health" and incident.model is None
    assert incident.measures[0].observed == 30.0 and "30" in incident.why
    p.lose(Loss(TOPIC, 0, 50, 150, 100, 150), START + 60)
    p.tick(START + 61)
    (worse,) = p.take_unit(1.0).incidents
    assert worse.id == incident.id and worse.measures[0].observed == 130.0
    p.tick(START + 61 + QUIET_SECONDS)
    (closed,) = p.take_unit(1.0).incidents
    assert closed.id == incident.id and closed.status == "resolved"


def test_a_model_that_learns_says_how_far_it_is(drifting: list[bytes]) -> None:
    p = pipeline()
    p.feed(TOPIC, 0, records(drifting[:251]))
    p.tick(START + 3)
    learning = p.watches["model:/credit-risk"].learning
    assert (learning.rows, learning.of) == (251, PROVISIONAL_ROWS)
    assert learning.expected_end == pytest.approx(START + PROVISIONAL_ROWS / RATE, abs=1.0)


def test_a_shadow_deployment_is_watched_apart(drifting: list[bytes]) -> None:
    p = pipeline()
    shadow = [json.loads(line) | {"role": "shadow"} for line in drifting[:60]]
    p.feed(TOPIC, 0, records([*drifting[:40], *map(msgspec.json.encode, shadow)]))
    p.tick(1.0)
    counts = {s.subject: (s.model, s.predictions) for s in p.take_unit(1.0).subjects}
    assert counts == {"model:/credit-risk": ("credit-risk", 40), "model:/credit-risk@shadow": ("credit-risk", 60)}


def test_huge_events_are_not_learnt_from_without_bound() -> None:
    features = {f"f{i}": "x" * 250 for i in range(900)}
    line = msgspec.json.encode({"type": "prediction", "ts": START, "model": "m", "features": features})
    p = pipeline()
    p.feed(TOPIC, 0, records([line] * 100))
    p.tick(1.0)
    (row,) = p.take_unit(1.0).subjects
    assert (row.state, row.predictions) == ("off", 100)


def test_a_bad_record_inside_a_bad_record_is_one_dead_letter() -> None:
    p = pipeline()
    p.feed(TOPIC, 0, records([b'[{"a":1,"a":2}]', b'{"x":{"a":1,"a":2}, garbage', b'{"ts":1,"ts":2}']))
    p.tick(1.0)
    letters = p.take_unit(1.0).dead_letters
    assert len(letters) == 3 and letters[2].structure == {"ts": "number:3"}


def test_metrics_that_are_declared_are_also_set(drifting: list[bytes]) -> None:
    p = pipeline()
    p.feed(TOPIC, 0, records([*drifting[:600], b"broken"]))
    p.tick(1.0)
    text = generate_latest(p.metrics.registry).decode()
    for line in (
        'modelwarden_records_rejected_total{reason="not_json",topic="predictions"} 1.0',
        'modelwarden_predictions_total{model="credit-risk"} 600.0',
        'modelwarden_models_watched{state="watching"} 1.0',
        'modelwarden_account_alarms{account="drift",model="credit-risk"} 0.0',
    ):
        assert line in text


def test_labels_and_access_events_are_counted() -> None:
    label = {"type": "label", "ts": START, "model": "m", "event_id": "1", "label": "no"}
    access = {"type": "access", "ts": START, "resource": "/x", "source_ip": "203.0.113.9", "status": 200}
    p = pipeline()
    p.feed(TOPIC, 0, records([msgspec.json.encode(e) for e in (label, access, access)]))
    p.tick(1.0)
    unit = p.take_unit(1.0)
    assert unit.access_events == {TOPIC: 2}
    assert (unit.subjects[0].labels, unit.subjects[0].predictions) == (1, 0)


class Failing(Detector):
    """Raises at its second batch."""

    name = "failing"
    kind = "data_quality"
    scope = "model"
    inputs = frozenset({"features", "reference"})
    state_version = 1
    Params: ClassVar[type[Any]] = type("Params", (), {"__dataclass_fields__": {}})

    def __init__(self, context: base.Context, params: Any) -> None:
        super().__init__(context, params)
        self.batches = 0

    def update(self, batch: Batch, views: Views) -> Iterator[Finding]:
        self.batches += 1
        if self.batches == 2:
            raise RuntimeError("a bug in a detector")
        return iter(())

    def dirty(self) -> dict[str, Page]:
        return {}

    def restore(self, pages: Any) -> None:
        pass


def test_a_detector_that_raises_stops_alone_and_is_told(drifting: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = told(feed_all(pipeline(), drifting, 500, 1))
    monkeypatch.setattr("monitor.lineup.asdict", lambda params: {})
    base.registry()
    monkeypatch.setitem(base.REGISTRY, "failing", Failing)
    units = feed_all(pipeline(), drifting, 500, 1)
    health = [i for i in told(units) if i[1] == "monitor_health"]
    assert len(health) == 1 and "failing" in health[0][2]
    assert [i for i in told(units) if i[1] != "monitor_health"] == undisturbed


def test_references_name_the_file_and_the_line_of_a_mistake(tmp_path: Any) -> None:
    native, rules = formats()["native"], TopicRules("reference", Pseudonyms(b"", plain=True), model="m")
    good = tmp_path / "good.jsonl"
    good.write_text('{"features": {"a": 1}}\n\n{"type": "label", "label": 1}\n{"features": {"a": 2}}\n')
    assert [e.features for e in read_reference(good, native, rules)] == [{"a": 1}, {"a": 2}]
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"features": {"a": 1}}\n{"features": 3}\n')
    with pytest.raises(ReferenceFileError, match=r"bad\.jsonl:2"):
        read_reference(bad, native, rules)
    with pytest.raises(ReferenceFileError, match="no prediction rows"):
        read_reference(_empty(tmp_path), native, rules)
    with pytest.raises(ReferenceFileError, match="cannot be read"):
        read_reference(tmp_path / "missing.jsonl", native, rules)


def test_every_number_of_a_why_can_be_computed_from_the_events(drifting: list[bytes]) -> None:
    """The sentence of the drift: its means and its event count are those of the produced events."""
    units = feed_all(pipeline(), drifting, 1_000, 1)
    incident = next(i for unit in units for i in unit.incidents if i.kind == "feature_drift")
    measure = next(m for m in incident.measures if m.field == "income")
    events = [json.loads(line) for line in drifting]
    incomes = [e["features"]["income"] for e in events]
    times = [msgspec.convert(e["ts"], type=__import__("datetime").datetime).timestamp() for e in events]
    first = next(i for i, at in enumerate(times) if at >= measure.since - 1e-3)
    window = incomes[first : first + measure.n]
    assert measure.observed == pytest.approx(sum(window) / len(window), rel=1e-6)
    reference = incomes[:PROVISIONAL_ROWS]
    assert measure.expected == pytest.approx(sum(reference) / len(reference), rel=1e-6)


def _bytes(page: StatePage) -> tuple[str, str, bytes]:
    return page.detector, page.page, encode(page.arrays, page.version)


def _empty(directory: Any) -> Any:
    path = directory / "empty.jsonl"
    path.write_text("")
    return path


def test_a_task_that_keeps_failing_is_told_until_it_works_again() -> None:
    pipe = pipeline()
    pipe.task_trouble("retention", "no space", 3, 10.0)
    (incident,) = pipe.take_unit(10.0).incidents
    assert (incident.kind, incident.severity, incident.status) == ("monitor_health", "warning", "open")
    assert "retention: no space" in incident.why
    pipe.task_trouble("retention", "", 0, 20.0)
    (incident,) = pipe.take_unit(20.0).incidents
    assert incident.status == "resolved"


def test_a_condition_resolved_by_hand_is_told_again_when_it_happens_again() -> None:
    pipe = pipeline()
    pipe.task_trouble("retention", "no space", 3, 10.0)
    (incident,) = pipe.take_unit(10.0).incidents
    pipe.apply_command(Command(1, "ann", RESOLVE, {"incident": incident.id}, 0.0), lambda subject: [])
    assert not pipe.health.touch(incident.cause, 20.0)
    unit = pipe.take_unit(20.0)
    assert [i.status for i in unit.incidents] == ["resolved"] and len(unit.audit) == 1
    pipe.task_trouble("retention", "no space", 3, 30.0)
    (again,) = pipe.take_unit(30.0).incidents
    assert again.status == "open" and again.id != incident.id


def test_a_silence_ends_with_a_tick_and_is_committed_soon() -> None:
    pipe = pipeline()
    pipe.task_trouble("retention", "no space", 3, 10.0)
    pipe.tick(10.0)
    (incident,) = pipe.take_unit(10.0).incidents
    silence = Command(1, "ann", SILENCE, {"incident": incident.id, "seconds": 60}, 0.0)
    pipe.apply_command(silence, lambda subject: [])
    assert [i.status for i in pipe.take_unit(11.0).incidents] == ["silenced"]
    pipe.tick(69.0)
    assert not pipe.urgent
    pipe.tick(70.0)
    assert pipe.urgent and [i.status for i in pipe.take_unit(70.0).incidents] == ["open"]


def test_an_erasure_is_in_the_next_commit() -> None:
    pipe, name = pipeline(), "c_" + "a2" * 13
    pipe.apply_command(Command(1, "ann", ERASE, {"pseudonym": name}, 0.0), lambda subject: [])
    unit = pipe.take_unit(1.0)
    assert unit.erased == [name] and [a.action for a in unit.audit] == [ERASE]
