"""The pipeline over files: what is found, in what order, and that how the lines lie in files does not matter."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from alerts.render import incident_json
from monitor.backtest import run_backtest
from monitor.config import parse_config
from monitor.demo.traffic import CreditTraffic, write_events
from monitor.intake.sources.base import SourceError
from monitor.references import ReferenceFileError

START = 1_763_625_600.0
Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def traffic() -> tuple[Events, Events, Events]:
    """Reference rows, honest events, and events of which the last 2,000 have lower incomes."""
    simulated = CreditTraffic(5)
    honest = simulated.events(3_000, START, 50.0)
    return simulated.reference(3_000), honest, honest + simulated.events(2_000, START + 100, 50.0, "income")


@pytest.fixture
def reference(tmp_path: Path, traffic: tuple[Events, Events, Events]) -> Path:
    path = tmp_path / "reference.jsonl.gz"
    write_events(path, traffic[0])
    return path


def written(path: Path, events: Sequence[Any]) -> Path:
    write_events(path, events)
    return path


def test_a_drift_is_one_incident_and_honest_traffic_none(
    tmp_path: Path, reference: Path, traffic: tuple[Events, Events, Events]
) -> None:
    found = run_backtest([written(tmp_path / "drift.jsonl", traffic[2])], reference)
    assert [(i.kind, i.model) for i in found.incidents] == [("feature_drift", "credit-risk")]
    incident = found.incidents[0]
    assert "income" in {s.id for s in incident.subjects}
    assert {s.type for s in incident.subjects} == {"feature"}  # all clients have moved: nobody is to blame
    assert incident.opened_at > START + 60
    assert (found.records, found.rejected, found.models) == (5_000, {}, {"model:/credit-risk": "watching"})
    quiet = run_backtest([written(tmp_path / "honest.jsonl", traffic[1])], reference)
    assert quiet.incidents == [] and quiet.records == 3_000


def test_a_drift_that_is_one_clients_doing_names_it(tmp_path: Path, reference: Path) -> None:
    simulated = CreditTraffic(5)
    busiest, events = simulated.clients[0], simulated.events(6_000, START, 50.0)
    for event in events[3_000:]:
        if event["client"] == busiest:
            event["features"]["income"] = round(event["features"]["income"] / 1.6, -1)
    (incident,) = run_backtest([written(tmp_path / "one.jsonl", events)], reference).incidents
    assert (incident.kind, incident.severity) == ("feature_drift", "warning")
    assert [s.id for s in incident.subjects if s.type == "client"] == [busiest]
    assert f"client {busiest} makes" in incident.why and "% of the change with" in incident.why


def test_a_why_compares_with_what_is_usual_at_the_hour(tmp_path: Path) -> None:
    """Orders swing by 2 around 12 each day: at their peak 14 is usual, and 15 is one too many, not three."""
    noise = random.Random(1)

    def event(i: int, more: float) -> dict[str, Any]:
        time = START + i * 86_400 / 1_500  # begins at 08:00 UTC
        orders = 12 + 2 * math.sin(2 * math.pi * i / 1_500) + noise.gauss(0, 1) + more
        return {
            "model": "shop",
            "ts": time,
            "features": {"orders": orders, "age": noise.gauss(40, 9)},
            "prediction": "a",
        }

    reference = written(tmp_path / "days.jsonl", [event(i, 0.0) for i in range(-6_000, 0)])
    later = written(tmp_path / "later.jsonl", [event(i, float(i >= 3_300)) for i in range(3_420)])  # two hours
    (incident,) = run_backtest([later], reference).incidents
    assert incident.why.startswith("orders: mean 1")
    assert " is usual at these hours, 12 over the whole reference)" in incident.why
    told = {e["statistic"]: e["expected"] for e in incident_json(incident)["evidence"] if e["stream"] == "orders:mean"}
    assert told["mean"] == pytest.approx(13.9, abs=0.2) and told["whole_reference"] == pytest.approx(12.0, abs=0.1)


def test_one_file_or_several_packed_or_not_give_the_same_detections(
    tmp_path: Path, reference: Path, traffic: tuple[Events, Events, Events]
) -> None:
    whole = run_backtest([written(tmp_path / "a.jsonl", traffic[2])], reference)
    parts = [written(tmp_path / "b.jsonl.gz", traffic[2][:2_500]), written(tmp_path / "c.jsonl", traffic[2][2_500:])]
    split = run_backtest(parts, reference)

    def seen(incidents: Sequence[Any]) -> list[Any]:
        return [(i.kind, i.opened_at, i.subjects, i.measures, i.why, i.status) for i in incidents]

    assert seen(split.incidents) == seen(whole.incidents) and whole.incidents
    again = run_backtest([tmp_path / "a.jsonl"], reference)
    assert again.incidents == whole.incidents


def test_resolved_incidents_are_shown_in_their_last_state_ordered_by_time(
    tmp_path: Path, reference: Path, traffic: tuple[Events, Events, Events]
) -> None:
    broken = [e | {"features": {k: v for k, v in e["features"].items() if k != "income"}} for e in traffic[1]]
    times = {e["event_id"]: e for e in traffic[1]}
    later = CreditTraffic(5).events(3_000, START + 200, 50.0)
    found = run_backtest([written(tmp_path / "e.jsonl", [*broken[:1_500], *later])], reference)
    vanished = [i for i in found.incidents if i.kind == "data_quality"]
    assert len(vanished) == 1 and vanished[0].status == "resolved"
    assert vanished[0].resolved_at is not None and vanished[0].resolved_at > vanished[0].opened_at
    assert vanished[0].subjects[0].trigger_event_id in times
    opened = [i.opened_at for i in found.incidents]
    assert opened == sorted(opened)


def test_every_model_gets_the_reference(
    tmp_path: Path, reference: Path, traffic: tuple[Events, Events, Events]
) -> None:
    other = [e | {"model": "other", "tenant": "t"} for e in traffic[2]]
    mixed = [event for pair in zip(traffic[1], other, strict=False) for event in pair] + other[3_000:]
    found = run_backtest([written(tmp_path / "two.jsonl", mixed)], reference)
    assert found.models == {"model:/credit-risk": "watching", "model:t/other": "watching"}
    assert {(i.model, i.tenant) for i in found.incidents} == {("other", "t")}


def test_without_a_reference_the_first_events_teach_one(tmp_path: Path, traffic: tuple[Events, Events, Events]) -> None:
    few = run_backtest([written(tmp_path / "few.jsonl", traffic[1][:100])])
    assert few.models == {"model:/credit-risk": "calibrating"} and few.incidents == []
    more = run_backtest([written(tmp_path / "more.jsonl", traffic[1])])
    assert more.models == {"model:/credit-risk": "watching"}


def test_bad_lines_are_counted_by_reason_and_stop_nothing(
    tmp_path: Path, reference: Path, traffic: tuple[Events, Events, Events]
) -> None:
    lines = [json.dumps(e).encode() for e in traffic[2]]
    lines[100:100] = [b"nonsense", b"", b'{"model": "credit-risk"}', b"[1]", b'{"ts": 1, "ts": 2, "model": "m"}']
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join(lines))
    found = run_backtest([path], reference)
    assert found.records == 5_005
    assert found.rejected == {"not_json": 1, "empty": 1, "bad_time": 1, "not_an_object": 1, "duplicate_key": 1}
    clean = run_backtest([written(tmp_path / "clean.jsonl", traffic[2])], reference)
    assert [(i.kind, i.why) for i in found.incidents] == [(i.kind, i.why) for i in clean.incidents]


def test_the_type_given_holds_for_events_that_do_not_say_theirs(
    tmp_path: Path, traffic: tuple[Events, Events, Events]
) -> None:
    untyped = [{k: v for k, v in e.items() if k != "type"} for e in traffic[1][:50]]
    path = written(tmp_path / "untyped.jsonl", untyped)
    assert run_backtest([path]).models == {"model:/credit-risk": "calibrating"}
    refused = run_backtest([written(tmp_path / "typed.jsonl", traffic[1][:50])], type="label")
    assert refused.rejected == {"bad_type": 50}


def test_events_that_name_no_model_are_those_of_the_model_given(
    tmp_path: Path, traffic: tuple[Events, Events, Events]
) -> None:
    labels = [{"type": "label", "event_id": e["event_id"], "ts": e["ts"], "label": "no"} for e in traffic[1][:600]]
    path = written(tmp_path / "labels.jsonl", [*traffic[1][:600], *labels])
    assert run_backtest([path]).rejected["no_subject"] == 600
    assert run_backtest([path], model="credit-risk").rejected.total() == 0


def test_a_configuration_gives_models_their_settings(
    tmp_path: Path, reference: Path, traffic: tuple[Events, Events, Events]
) -> None:
    path = written(tmp_path / "drift.jsonl", traffic[2])
    text = f"models: {{credit-risk: {{reference: {reference.name}, features: [age, region]}}}}\n"
    found = run_backtest([path], config=parse_config(text, tmp_path / "modelwarden.yaml"))
    assert found.models == {"model:/credit-risk": "watching"}
    assert "feature_drift" not in {i.kind for i in found.incidents}  # age and region do not move
    off = "detectors: {predictive_drift: {enabled: false}}\n"
    assert run_backtest([path], reference, config=parse_config(off, tmp_path / "m.yaml")).incidents == []


def test_files_that_cannot_be_read_are_named_with_their_line(
    tmp_path: Path, reference: Path, traffic: tuple[Events, Events, Events]
) -> None:
    good = written(tmp_path / "good.jsonl", traffic[1][:100])
    with pytest.raises(SourceError, match=r"gone\.jsonl does not exist"):
        run_backtest([good, tmp_path / "gone.jsonl"], reference)
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(good.read_bytes())[:-400])
    with pytest.raises(SourceError, match=r"torn\.jsonl\.gz, line \d+: "):
        run_backtest([torn], reference)
    bad = tmp_path / "bad-reference.jsonl"
    bad.write_bytes(good.read_bytes() + b"nonsense\n")
    with pytest.raises(ReferenceFileError, match=r"bad-reference\.jsonl:101: not_json"):
        run_backtest([good], bad)
    bare = written(tmp_path / "bare.jsonl", [{"prediction": "yes"}] * 10)
    with pytest.raises(ReferenceFileError, match=r"bare\.jsonl: no reference for credit-risk: "):
        run_backtest([good], bare)


def test_progress_is_told_in_bytes(tmp_path: Path, traffic: tuple[Events, Events, Events]) -> None:
    path = written(tmp_path / "e.jsonl", traffic[1])
    told: list[tuple[int, int]] = []
    run_backtest([path], progress=lambda done, total: told.append((done, total)))
    size = path.stat().st_size
    assert told[-1] == (size, size) and [d for d, _ in told] == sorted(d for d, _ in told)
