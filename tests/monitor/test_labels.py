"""Labels through the pipeline: joined, counted, shown, and the same whatever polls, cuts and restarts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import generate_latest

from detectors.base import LabelBatch
from monitor.intake.joins import Asked, JoinSettings, Told
from monitor.labels import ModelLabels
from monitor.metrics import Metrics
from monitor.panel import Panel
from monitor.pipeline import Pipeline
from monitor.references import origin_of, rows_of
from monitor.state.codec import decode, encode
from monitor.state.store import open_store
from monitor.state.unit import CommitUnit, StatePage
from monitor.watch import PROVISIONAL_ROWS, WatchSettings
from tests.monitor.test_pipeline import START, TOPIC, feed_all, pipeline, records, replay, settings, told

MODEL = "model:/credit-risk"


def line(**event: Any) -> bytes:
    return msgspec.json.encode(event)


def prediction(i: int, **more: Any) -> bytes:
    answer = "yes" if i % 3 == 0 else "no"
    fields = {"event_id": f"p{i}", "ts": START + i, "model": "credit-risk", "model_version": str(i % 2)}
    features = {"income": float(np.sin(i)), "age": float(i % 60)}
    scores = {"yes": 0.8, "no": 0.2} if answer == "yes" else {"yes": 0.3, "no": 0.7}
    return line(type="prediction", **fields, features=features, prediction=answer, scores=scores, **more)


def label(i: int, value: Any, ts: float | None = None) -> bytes:
    when = START + i + 60 if ts is None else ts
    return line(type="label", event_id=f"p{i}", ts=when, model="credit-risk", label=value)


def truth(i: int) -> str:
    return "no" if i % 10 == 0 else "yes" if i % 3 == 0 else "no"


@pytest.fixture(scope="module")
def mixed() -> list[bytes]:
    """Predictions and labels in a random order that keeps most labels after their predictions."""
    rng = np.random.default_rng(3)
    n = 3_000
    events = [(float(i), prediction(i)) for i in range(n)]
    events += [(i + float(rng.exponential(200) - 20), label(i, truth(i))) for i in range(n) if i % 11]
    events += [(i + 500.0, label(i, "yes", START + i + 500)) for i in range(0, n, 50)]
    events += [(i + 5.0, prediction(i)) for i in range(0, n, 77)]
    return [data for _, data in sorted(events, key=lambda e: e[0])]


class Ear:
    """Hears what detectors are given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[LabelBatch] = []
        whole = Panel.detect_labels

        def hear(panel: Panel, batch: LabelBatch, report: Any) -> None:
            self.batches.append(batch)
            whole(panel, batch, report)

        monkeypatch.setattr(Panel, "detect_labels", hear)

    def take(self) -> list[tuple[Any, ...]]:
        rows = [
            (b.start + i, b.identity.at(i), b.event_ids[i], *(float(c[i]) for c in (b.time, b.asked, b.clock, b.error)),
             int(b.position[i]), b.versions[b.version[i]], b.classes[b.answer[i]], b.classes[b.label[i]])
            for b in self.batches
            for i in range(len(b))
        ]  # fmt: skip
        self.batches.clear()
        return rows


def test_detectors_hear_the_same_whatever_polls_and_ticks(mixed: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    ear = Ear(monkeypatch)
    feed_all(pipeline(), mixed, 1_000, 1)
    first = ear.take()
    assert len(first) > 2_000
    assert [row[0] for row in first] == list(range(len(first)))
    for poll, tick in ((1, 37), (77, 1), (333, 5), (10_000, 1)):
        feed_all(pipeline(), mixed, poll, tick)
        assert ear.take() == first


def test_a_replay_with_labels_is_equal_to_the_byte(mixed: list[bytes]) -> None:
    units = feed_all(pipeline(), mixed, 230, 3)
    for poll in (1, 64, 10_000):
        again = replay(units, mixed, poll)
        for one, other in zip(units, again, strict=True):
            assert [_bytes(p) for p in one.pages] == [_bytes(p) for p in other.pages]
            assert one.subjects == other.subjects


@pytest.mark.parametrize("stop", [1, 4, 9])
def test_a_restart_joins_what_was_pending(mixed: list[bytes], stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ear = Ear(monkeypatch)
    whole = feed_all(pipeline(), mixed, 500, 1)
    heard = ear.take()
    first, before = pipeline(), []
    for at in range(0, 500 * stop, 500):
        before.append(_feed(first, mixed, at))
    second = _restarted(before)
    after = [_feed(second, mixed, at) for at in range(500 * stop, len(mixed), 500)]
    assert ear.take() == heard
    assert after[-1].subjects == whole[-2].subjects
    assert told([*before, *after]) == told(whole)


def _feed(p: Pipeline, lines: Sequence[bytes], at: int) -> CommitUnit:
    p.feed(TOPIC, 0, records(lines[at : at + 500], first=at))
    p.tick(float(at))
    return p.take_unit(float(at))


def _restarted(units: Sequence[CommitUnit]) -> Pipeline:
    stored = {(p.detector, p.params_hash, p.page): p for unit in units for p in unit.pages}
    references = [r for unit in units for r in unit.references]
    open_now = {i.id: i for unit in units for i in unit.incidents if i.status != "resolved"}
    made = Pipeline(settings(), Metrics(), open_now.values())
    watch = made.listed_watch("credit-risk", "")
    if references:
        watch.use(watch.prepare(rows_of(references[-1]), origin_of(references[-1])))
    pages = [p._replace(arrays=decode(encode(p.arrays, p.version), p.version)) for p in stored.values()]
    made.restore(watch, pages, units[-1].subjects[0], {})
    position = units[-1].positions[0]
    made.own(TOPIC, 0, position.next, position.counts)
    return made


def test_pages_that_cannot_be_read_are_said_and_the_rest_goes_on(mixed: list[bytes]) -> None:
    first = pipeline()
    units = [_feed(first, mixed, at) for at in range(0, 2_000, 500)]
    for unit in units:
        unit.pages = [
            p._replace(arrays={"pending": np.zeros(2)}) if (p.detector, p.page) == ("watch.labels", "head") else p
            for p in unit.pages
        ]
    second = _restarted(units)
    second.tick(1.0)
    unit = second.take_unit(1.0)
    assert any(i.kind == "monitor_health" and "watch.labels" in i.why for i in unit.incidents)
    assert second.watches[MODEL].row().labels_matched == units[-1].subjects[0].labels_matched > 0
    later = [_feed(second, mixed, at) for at in range(2_000, len(mixed), 500)]
    assert later[-1].subjects[0].labels_matched > units[-1].subjects[0].labels_matched


def test_status_and_metrics_count_what_became_of_labels() -> None:
    n = PROVISIONAL_ROWS + 500
    lines = [prediction(i) for i in range(n)]
    lines += [label(i, truth(i)) for i in range(100)]
    lines += [label(0, "yes"), label(1, "yes"), prediction(7), label(3, None), label(99_999, "no")]
    lines += [label(2, "no", START + 61 * 86_400.0)]
    lines += [line(type="label", event_id="q", ts=START, model="credit-risk", label="yes", prediction="no")]
    p = pipeline()
    p.feed(TOPIC, 0, records(lines))
    p.tick(1.0)
    (row,) = p.take_unit(1.0).subjects
    assert (row.labels, row.labels_matched, row.predictions) == (106, 101, n + 1)
    text = generate_latest(p.metrics.registry).decode()
    for name, value in {
        "labels_matched_total": 101, "labels_corrected_total": 2, "labels_unmatched_total": 2,
        "predictions_duplicate_total": 1, "labels_waiting": 1, "predictions_pending": n, "label_sample_rate": 1,
    }.items():  # fmt: skip
        assert f'modelwarden_{name}{{model="credit-risk"}} {float(value)}' in text
    assert 'modelwarden_label_lag_seconds{model="credit-risk",quantile="0.5"} 60.0' in text
    # of the first hundred 0, 30, 60 and 90 are wrong; p0 was corrected to right, p1 to wrong; q is wrong
    assert f'modelwarden_label_error_ratio{{model="credit-risk"}} {5 / 101}' in text
    covered = [row for row in text.splitlines() if row.startswith("modelwarden_label_coverage")]
    assert covered == []  # nothing is an hour old
    p.feed(TOPIC, 0, records([prediction(n + 7_200)], first=len(lines)))
    p.tick(2.0)
    assert (
        'modelwarden_label_coverage{model="credit-risk",older_than="1h"}'
        in generate_latest(p.metrics.registry).decode()
    )


def test_predictions_beyond_the_bound_are_sampled_and_shown() -> None:
    p = pipeline(watch=lambda model, tenant: WatchSettings(labels=JoinSettings(max_bytes=1)))
    p.feed(TOPIC, 0, records([prediction(i) for i in range(10_000)]))
    p.feed(TOPIC, 0, records([label(i, "no") for i in range(10_000)], first=10_000))
    p.tick(1.0)
    text = generate_latest(p.metrics.registry).decode()
    rate = float(next(x for x in text.splitlines() if x.startswith("modelwarden_label_sample_rate")).split()[-1])
    assert rate <= 0.25 and "modelwarden_labels_unsampled_total" in text


def test_a_million_pending_predictions_survive_a_restart(tmp_path: Path) -> None:
    n = 1_000_000
    keys = np.random.default_rng(1).integers(1, 2**64, n, dtype=np.uint64)
    answer = np.arange(n) % 5
    joined = ModelLabels(MODEL, JoinSettings(), ())
    store = open_store(f"sqlite:///{tmp_path}/state.db", "g", create=True)
    lease = store.acquire_lease("a", 60.0)
    assert lease is not None
    for begin in range(0, n, 100_000):
        rows = slice(begin, begin + 100_000)
        joined.join.add(_asked(keys[rows], answer[rows]), _told(keys[:0], answer[:0]), 0.0)
        pages = [StatePage(MODEL, "watch.labels", "", name, 1, page) for name, page in joined.dirty().items()]
        store.commit(CommitUnit(at=1.0, pages=pages), lease)
    store.close()
    store = open_store(f"sqlite:///{tmp_path}/state.db", "g")
    began = time.process_time()
    again = ModelLabels(MODEL, JoinSettings(), ())
    again.restore({p.page: p.arrays for p in store.load_pages(MODEL)})
    assert time.process_time() - began < 10
    store.close()
    pending = again.join.pending
    held = sum(column.nbytes for column in pending._columns.values()) + pending._table.nbytes + pending._marks.nbytes
    assert pending.rows == n and held <= 56 * 2**20
    found = again.join.add(_asked(keys[:0], answer[:0]), _told(keys[::7], answer[::7]), 0.0)
    assert len(found) == len(keys[::7]) and (found.answer == answer[::7]).all()
    assert again.join.counts.wrong == 0


def _asked(keys: Any, answer: Any) -> Asked:
    n = len(keys)
    return Asked(
        keys, np.zeros(n), answer.astype(np.float64), np.ones(n, np.uint8), np.zeros(n), np.ones(n), np.zeros(n, int),
        np.zeros(n, np.uint16),
    )  # fmt: skip


def _told(keys: Any, answer: Any) -> Told:
    n = len(keys)
    nothing = np.zeros(n, np.uint8)
    label = answer.astype(np.float64)
    return Told(keys, np.zeros(n, int), np.zeros(n), label, nothing + 1, np.ones(n), np.zeros(n), nothing)


def test_scores_stand_in_for_a_missing_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    ear = Ear(monkeypatch)
    lines = [prediction(i) for i in range(PROVISIONAL_ROWS)]
    bare = {"type": "prediction", "ts": START, "model": "credit-risk", "features": {"income": 1.0}}
    lines += [line(**bare, event_id="s", scores={"yes": 0.9, "no": 0.1}), line(**bare, event_id="n")]
    lines += [
        line(type="label", event_id=i, ts=START + 9, model="credit-risk", label="no", model_version="v") for i in "sn"
    ]
    feed_all(pipeline(), lines, 10_000, 1)
    (batch,) = ear.batches
    assert batch.error.tolist() == [1.0] and batch.score.tolist() == [np.float32(0.9)]
    assert batch.event_ids == ("s",) and batch.versions[batch.version[0]] == "v"


def _bytes(page: StatePage) -> tuple[str, str, bytes]:
    return page.detector, page.page, encode(page.arrays, page.version)
