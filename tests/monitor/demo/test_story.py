from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from itertools import takewhile
from typing import Any

import numpy as np
import pytest

from alerts.taxonomy import kinds
from monitor.demo.attacks import CLIENTS, RATE, Copy, boundary, campaign, extraction
from monitor.demo.story import ENDS, LABEL_SECONDS, LABELLED, SENTENCES, STORY, Script, Stage, Timeline
from monitor.demo.traffic import CreditTraffic, answer

START = 1_800_000_000.0


def played(*stages: Stage, seconds: float) -> tuple[Script, list[tuple[float, dict[str, Any]]]]:
    traffic = CreditTraffic(1)
    script = Script(traffic, Timeline(stages), traffic.reference(500))
    messages = takewhile(lambda m: (m.at or 0.0) < START + seconds, script.messages(START, 350.0))
    everything = [(m, json.loads(m.value)) for m in messages]
    times = [m.at or 0.0 for m, _ in everything]
    assert times == sorted(times)
    labels = [e for _, e in everything if e["type"] == "label"]
    seen = [(m, e) for m, e in everything if e["type"] == "prediction"]
    assert {e["event_id"] for e in labels} <= {e["event_id"] for _, e in seen}
    assert [m.key for m, _ in seen] == [e["client"].encode() for _, e in seen]
    times = [m.at or 0.0 for m, _ in seen]
    assert len({e["event_id"] for _, e in seen}) == len(seen)
    return script, [(at - START, event) for at, (_, event) in zip(times, seen, strict=True)]


def test_the_stages_come_in_order_and_come_round_again() -> None:
    timeline = Timeline((Stage("honest", 10.0), Stage("drift", 5.0), Stage("honest", 20.0)))
    numbers = [timeline.at(t) for t in (0.0, 9.9, 10.0, 14.9, 15.0, 34.9, 35.0, 45.0, 50.0)]
    assert numbers == [0, 0, 1, 1, 2, 2, 3, 4, 5]
    assert [timeline.stage(n).name for n in numbers[-3:]] == ["honest", "drift", "honest"]
    assert timeline.begins("drift") == 10.0 and timeline.events() == ["drift"]


def test_the_whole_story_has_every_stage_and_an_end_for_each() -> None:
    assert {s.name for s in STORY} == set(SENTENCES) == {"honest", *ENDS}
    assert {kind for kind, _ in ENDS.values()} <= set(kinds())
    assert sum(s.seconds for s in STORY) < 120


def test_messages_drift_when_the_timeline_says_so() -> None:
    _, events = played(Stage("honest", 4.0), Stage("drift", 4.0), Stage("honest", 4.0), seconds=12.0)
    assert len(events) == pytest.approx(12 * 350, rel=0.1)
    income: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for at, event in events:
        income[int(at // 4)].append(event["features"]["income"])
    before, during, after = (sum(v) / len(v) for v in income.values())
    assert during / before == pytest.approx(0.7, abs=0.05)
    assert after / before == pytest.approx(1.0, abs=0.06)


def test_labels_come_late_and_agree_with_the_scores() -> None:
    traffic = CreditTraffic(1)
    script = Script(traffic, Timeline((Stage("honest", 60.0),)), traffic.reference(10))
    made = [json.loads(m.value) for m in takewhile(lambda m: (m.at or 0) < START + 40, script.messages(START, 350.0))]
    predictions = {e["event_id"]: e for e in made if e["type"] == "prediction"}
    labels = [e for e in made if e["type"] == "label"]
    late = [seconds(e["ts"]) - seconds(predictions[e["event_id"]]["ts"]) for e in labels]
    assert min(late) >= 0.5 * LABEL_SECONDS - 0.01 and max(late) <= 1.5 * LABEL_SECONDS + 0.01
    assert len(labels) / len(predictions) == pytest.approx(LABELLED * (1 - LABEL_SECONDS / 40), abs=0.05)
    said = [predictions[e["event_id"]]["scores"]["yes"] for e in labels]
    assert np.mean([e["label"] == "yes" for e in labels]) == pytest.approx(np.mean(said), abs=0.05)


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_the_fault_sends_a_number_as_text() -> None:
    _, events = played(Stage("honest", 2.0), Stage("fault", 2.0), seconds=4.0)
    types = Counter((int(at // 2), type(e["features"]["utilisation"]).__name__) for at, e in events)
    assert types[0, "str"] < 0.15 * types[0, "float"] and types[1, "float"] < 0.15 * types[1, "str"]


@pytest.mark.parametrize("attack", list(CLIENTS))
def test_an_attacker_asks_no_faster_than_an_honest_client_and_gets_the_model_s_answers(attack: str) -> None:
    stage = Stage(attack, 8.0)  # type: ignore[arg-type]
    script, events = played(Stage("honest", 2.0), stage, seconds=10.0)
    by = Counter(e["client"] for _, e in events)
    name = CLIENTS[attack]  # type: ignore[index]
    assert by[name] == pytest.approx(8 * RATE, rel=0.15)
    honest = sorted((n for c, n in by.items() if c != name), reverse=True)
    assert by[name] < honest[5]
    for _, event in events:
        if event["client"] == name:
            assert event["scores"]["yes"] == answer(event["features"])
            assert (event["prediction"] == "yes") == (event["scores"]["yes"] >= 0.5)
    assert [c.client for c in script.campaigns.values()] == [name]


def test_the_copy_that_extraction_fits_agrees_with_the_model() -> None:
    copy = Copy()
    loop = extraction(np.random.default_rng(1), copy)
    for _ in range(101):
        next(loop)
    honest = [row["features"] for row in CreditTraffic(3).reference(1_000)]
    assert copy.agreement(honest) > 0.9


def test_the_boundary_walk_ends_granted_and_close_to_what_was_refused() -> None:
    rows = [row["features"] for row in CreditTraffic(3).reference(200)]
    loop = boundary(np.random.default_rng(1), rows)
    asked = [next(loop) for _ in range(90)]
    scores = [answer(q) for q in asked]
    assert max(scores[:10]) > 0.5 and sum(0.45 < s < 0.55 for s in scores[-40:]) > 20


def test_a_membership_probe_repeats_training_rows() -> None:
    rows = [row["features"] for row in CreditTraffic(3).reference(200)]
    made = campaign("membership", rows, 1)
    assert sum(made.next() in rows for _ in range(100)) > 50
