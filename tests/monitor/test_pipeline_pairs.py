"""Two topics that are one log: predictions carry the place of their response, state is pages, nothing is in clear."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from monitor.intake.columns import Place
from monitor.intake.events import Event, Reason, Record
from monitor.intake.formats.base import TopicRules, formats
from monitor.intake.identity import Pseudonyms
from monitor.intake.pairing import PairingRules
from monitor.intake.reader import Intake
from monitor.metrics import Metrics
from monitor.pipeline import Pipeline, PipelineSettings
from monitor.state.codec import encode
from monitor.state.unit import ObsoletePages, Slice, StatePage, Tick
from monitor.watch import Watch, WatchSettings

AT = 1_763_625_600.0
NAMES = Pseudonyms(bytes(32))
Seen = list[tuple[Event, Place]]


def pipeline(format: str = "oip-v2") -> Pipeline:
    rules, form = PairingRules("in"), formats()[format]
    client = ("header:x-client-id",)
    intakes = {
        "in": Intake(form, TopicRules("in", NAMES, type="request", client_from=client), rules),
        "out": Intake(form, TopicRules("out", NAMES, type="response"), rules),
    }
    made = Pipeline(PipelineSettings(intakes, lambda model, tenant: WatchSettings(features=("a", "b"))), Metrics())
    made.begin(AT)
    made.own("in", 0, 0)
    made.own("out", 0, 10)
    return made


def request(offset: int, key: str, rows: int = 1) -> Record:
    data = [[i + 0.5, i + 1.5] for i in range(rows)]
    body = {"inputs": [{"name": "x", "shape": [rows, 2], "datatype": "FP32", "data": data}]}
    return Record("in", 0, offset, AT, key.encode(), json.dumps(body).encode(), [("X-Client-Id", b"canary-client")])


def response(offset: int, key: str, rows: int = 1) -> Record:
    output = {"name": "predict", "shape": [rows], "datatype": "INT64", "data": list(range(rows))}
    body = {"model_name": "m", "model_version": "v3", "outputs": [output]}
    return Record("out", 0, offset, AT + 0.5, key.encode(), json.dumps(body).encode())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Every prediction that reaches a watch, with its place."""
    found: Seen = []
    whole = Watch.add_prediction

    def add(self: Watch, event: Event, place: Place) -> bool:
        found.append((event, place))
        return whole(self, event, place)

    monkeypatch.setattr(Watch, "add_prediction", add)
    return found


@pytest.mark.parametrize("response_first", [False, True])
def test_rows_carry_the_place_of_their_response(seen: Seen, response_first: bool) -> None:
    p = pipeline()
    feeds: list[tuple[str, Record]] = [("in", request(0, "k", 2)), ("out", response(10, "k", 2))]
    for topic, record in reversed(feeds) if response_first else feeds:
        p.feed(topic, 0, [record])
    assert [place for _, place in seen] == [("out", 0, 10, 0), ("out", 0, 10, 1)]
    (first, second) = (event for event, _ in seen)
    assert (first.time, first.event_id, first.prediction, first.latency_ms) == (AT + 0.5, "k/0", 0, 500.0)
    assert second.features == {"a": 1.5, "b": 2.5} and second.client == NAMES.client("canary-client")
    p.tick(AT + 1)
    unit = p.take_unit(AT + 1)
    assert {s.topic: s.counts.accepted for s in unit.positions} == {"in": 1, "out": 1}
    assert [s.predictions for s in unit.subjects] == [2]


def test_a_pair_that_does_not_fit_is_one_dead_letter(seen: Seen) -> None:
    p = pipeline()
    p.feed("in", 0, [request(0, "k", 2)])
    p.feed("out", 0, [response(10, "k", 3)])
    p.tick(AT + 1)
    unit = p.take_unit(AT + 1)
    (letter,) = unit.dead_letters
    assert (letter.topic, letter.offset, letter.row, letter.reason) == ("out", 10, -1, Reason.BAD_FIELD)
    assert {s.topic: (s.counts.accepted, s.counts.rejected) for s in unit.positions} == {"in": (1, 0), "out": (0, 1)}
    assert not seen


def test_halves_without_a_pairing_are_refused(seen: Seen) -> None:
    p = pipeline()
    intake = p.settings.intakes["in"]
    p.settings = PipelineSettings({"in": Intake(intake.format, intake.rules)}, p.settings.watch)
    p.feed("in", 0, [request(0, "k")])
    assert [d.reason for d in p.take_unit(AT).dead_letters] == [Reason.BAD_TYPE]


def test_state_waits_in_pages_without_identifiers_and_comes_back(seen: Seen) -> None:
    p = pipeline()
    p.feed("in", 0, [request(0, "k")])
    p.tick(AT + 1)
    pages = p.take_unit(AT + 1).pages
    assert {page.subject for page in pages} == {"pairing:in"}
    assert all(b"canary" not in encode(page.arrays, page.version) for page in pages)
    again = pipeline()
    other = StatePage("model:/m", "x", "", "all", 1, {})
    assert again.restore_pairings([*pages, other], {}) == [other]
    again.feed("out", 0, [response(10, "k")])
    assert len(seen) == 1


def test_a_replay_along_the_trail_is_equal_to_the_byte() -> None:
    rng = random.Random(8)
    logs = {"in": [request(i, f"k{i}", 1 + i % 3) for i in range(600)]}
    logs["out"] = [response(10 + i, f"k{i}", 1 + i % 3) for i in range(600)]
    for log in logs.values():
        log[:] = [r for r in log if rng.random() > 0.1]  # gaps
    first, units = pipeline(), []
    begin = {"in": 0, "out": 0}
    for step in range(120):
        topic = rng.choice(["in", "out"])
        first.feed(topic, 0, logs[topic][begin[topic] : begin[topic] + 9])
        begin[topic] += 9
        if step % 10 == 9:
            first.tick(AT + step)
            units.append(first.take_unit(AT + step))
    for poll in (1, 50):
        again = pipeline()
        for unit in units:
            for piece in unit.trail:
                if isinstance(piece, Tick):
                    again.tick(piece.at)
                    continue
                assert isinstance(piece, Slice)
                records = [r for r in logs[piece.topic] if piece.start <= r.offset < piece.stop]
                for at in range(0, len(records), poll):
                    again.feed(piece.topic, 0, records[at : at + poll])
            other = again.take_unit(unit.at)
            assert other.trail == unit.trail and other.positions == unit.positions
            assert [(p.page, encode(p.arrays, 1)) for p in other.pages] == [
                (p.page, encode(p.arrays, 1)) for p in unit.pages
            ]


@pytest.mark.parametrize("broken", ["version", "content", "damaged"])
def test_halves_that_cannot_be_read_are_told(seen: Seen, broken: str) -> None:
    p = pipeline()
    p.feed("in", 0, [request(0, "k")])
    p.tick(AT + 1)
    pages: list[Any] = p.take_unit(AT + 1).pages
    again = pipeline()
    if broken == "version":
        again.restore_pairings([page._replace(version=9) for page in pages], {})
    elif broken == "content":
        bad = {"halves": np.frombuffer(b"no halves", np.uint8)}
        again.restore_pairings([p if p.page == "counts" else p._replace(arrays=bad) for p in pages], {})
    else:
        again.restore_pairings([], {"pairing:in": "checksum"})
    again.feed("out", 0, [response(10, "k")])
    again.tick(AT + 2)
    unit = again.take_unit(AT + 2)
    assert unit.obsolete == ([] if broken == "damaged" else [ObsoletePages("pairing:in", "pairing", "")])
    (incident,) = unit.incidents
    assert (incident.kind, incident.severity) == ("monitor_health", "info") and not seen


def test_pages_of_a_pairing_that_is_not_configured_any_more_are_deleted() -> None:
    p = pipeline()
    p.feed("in", 0, [request(0, "k")])
    p.tick(AT + 1)
    pages = [page._replace(subject="pairing:gone") for page in p.take_unit(AT + 1).pages]
    again = pipeline()
    assert again.restore_pairings(pages, {"pairing:lost": "checksum", "model:/m": "checksum"}) == []
    again.tick(AT + 2)
    unit = again.take_unit(AT + 2)
    assert [o.subject for o in unit.obsolete] == ["pairing:gone", "pairing:lost"] and not unit.incidents
