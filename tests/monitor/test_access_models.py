"""Accesses whose resource names a model: rates, errors and latency of that model, one incident with its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from detectors.traffic.subject import TrafficSettings
from monitor.intake.events import Record
from monitor.intake.formats.base import TopicRules, formats
from monitor.intake.identity import Pseudonyms
from monitor.intake.reader import Intake
from monitor.intake.resources import NamedModel, model_in
from monitor.metrics import Metrics
from monitor.pipeline import Pipeline, PipelineSettings
from monitor.state.codec import decode, encode
from monitor.state.unit import CommitUnit, StatePage
from monitor.traffic_watch import DETECTOR
from monitor.watch import WatchSettings

START, HOUR, TOPIC = 1_763_596_800.0, 3_600.0, "edge"


@pytest.mark.parametrize(
    ("resource", "model"),
    [
        ("/v1/models/credit-risk:predict", "credit-risk"),
        ("/v1/models/m/versions/7:predict", "m"),
        ("/v2/models/m/infer?x=/models/other", "m"),
        ("https://serve.example:8080/v2/models/a%20b/versions/1/infer", "a b"),
        ("/endpoints/m/invocations", "m"),
        ("/v1/models", None),
        ("/v1/models/", None),
        ("/v1/models/:predict", None),
        ("/v1/models/" + "m" * 201, None),
        ("/v1/models/a%00b", None),
        ("/mymodels/m", None),
        ("", None),
    ],
)
def test_the_model_of_a_resource(resource: str, model: str | None) -> None:
    assert model_in(resource) == (None if model is None else NamedModel(model, True))


def test_what_follows_predictions_may_be_anything() -> None:
    assert model_in("/predictions/resnet/2.0") == NamedModel("resnet", False)


def pipeline(**changes: Any) -> Pipeline:
    intakes = {TOPIC: Intake(formats()["native"], TopicRules(TOPIC, Pseudonyms(b"", plain=True)))}
    made = Pipeline(PipelineSettings(intakes, lambda model, tenant: WatchSettings(), **changes), Metrics())
    made.own(TOPIC, 0, 0)
    return made


def feed(p: Pipeline, events: Sequence[dict[str, Any]], size: int = 500) -> list[CommitUnit]:
    units = []
    for begin in range(0, len(events), size):
        some, first = events[begin : begin + size], p.positions()[TOPIC, 0]
        p.feed(TOPIC, 0, [Record(TOPIC, 0, first + i, None, None, msgspec.json.encode(e)) for i, e in enumerate(some)])
        p.tick(some[-1]["ts"])
        units.append(p.take_unit(some[-1]["ts"]))
    return units


def accesses(model: str, an_hour: int, failing_from: float = 99.0, seed: int = 1) -> list[dict[str, Any]]:
    """A day of them; half fail from an hour on."""
    rng = np.random.default_rng(seed)
    times = START + np.sort(rng.uniform(0, 24 * HOUR, 24 * an_hour))
    bad = (times >= START + failing_from * HOUR) & (rng.uniform(size=len(times)) < 0.5)
    resource = f"/v1/models/{model}:predict"
    return [
        {"type": "access", "ts": t, "resource": resource, "status": 500 if b else 200}
        for t, b in zip(times.tolist(), bad.tolist(), strict=True)
    ]


def merged(*streams: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted((e for stream in streams for e in stream), key=lambda e: e["ts"])


def incidents(units: Sequence[CommitUnit]) -> dict[str, Any]:
    return {i.id: i for unit in units for i in unit.incidents}


def stored(units: Sequence[CommitUnit]) -> list[StatePage]:
    last = {(p.subject, p.detector, p.page): p for unit in units for p in unit.pages}
    return [p._replace(arrays=decode(encode(p.arrays, p.version), p.version)) for p in last.values()]


@pytest.fixture(scope="module")
def failing() -> list[dict[str, Any]]:
    """Model b fails from the 22nd hour on."""
    return merged(accesses("a", 300), accesses("b", 720, 22.0, seed=2))


@pytest.fixture(scope="module")
def whole(failing: list[dict[str, Any]]) -> list[CommitUnit]:
    return feed(pipeline(), failing)


def test_errors_of_one_model_are_its_incident(whole: list[CommitUnit], failing: list[dict[str, Any]]) -> None:
    found = incidents(whole).values()
    (own,) = [i for i in found if i.model is not None]
    assert (own.kind, own.subject, own.model, own.severity) == ("error_burst", "model:/b", "b", "warning")
    assert [(s.type, s.id) for s in own.subjects] == [("model", "b")] and own.held_by == (f"access:{TOPIC}",)
    assert START + 22 * HOUR < own.opened_at < START + 22.5 * HOUR
    assert {i.subject for i in found} <= {"model:/b", f"access:{TOPIC}"}
    assert sum(u.access_events.get(TOPIC, 0) for u in whole) == len(failing)


@pytest.mark.parametrize("at", [9_000, 22_700])
def test_a_restart_goes_on_with_each_model(failing: list[dict[str, Any]], whole: list[CommitUnit], at: int) -> None:
    at = at // 500 * 500
    first = feed(pipeline(), failing[:at])
    again = pipeline()
    again.book.__init__(i for i in incidents(first).values() if i.status != "resolved")  # type: ignore[misc]
    again.own(TOPIC, 0, at)
    pages = stored(first)
    subjects = {p.subject for p in pages if p.detector == DETECTOR}
    assert subjects == {f"access:{TOPIC}", f"access:{TOPIC}//a", f"access:{TOPIC}//b"}
    for subject in sorted(subjects):
        again.restore_traffic(subject, [p for p in pages if p.subject == subject], None)
    second = feed(again, failing[at:])
    assert incidents(first) | incidents(second) == incidents(whole)


def test_a_model_whose_accesses_cannot_be_restored_starts_anew(failing: list[dict[str, Any]]) -> None:
    units = feed(pipeline(), failing)
    live = [i for i in incidents(units).values() if i.status != "resolved"]
    (own,) = [i for i in live if i.model == "b"]
    again = pipeline()
    again.book.__init__(live)  # type: ignore[misc]
    again.restore_traffic(f"access:{TOPIC}//b", (), None, "checksum")
    assert again.book.get(own.id) is None
    feed(again, accesses("b", 1))
    assert f"access:{TOPIC}//b" in again.traffic._watches


def test_what_all_models_show_after_one_of_them_is_no_second_page() -> None:
    units = feed(pipeline(), accesses("a", 720, 22.0))
    found = {i.subject: i for i in incidents(units).values()}
    assert found["model:/a"].severity == "warning" and found[f"access:{TOPIC}"].severity == "info"


def test_predictions_and_accesses_of_a_model_are_one_incident() -> None:
    surge = [e for e in accesses("a", 2_500, seed=5) if e["ts"] > START + 22 * HOUR]
    calls = merged(accesses("a", 720), surge)
    events = merged(calls, [{"type": "prediction", "ts": e["ts"] + 1.0, "model": "a", "client": "c"} for e in calls])
    p = pipeline()
    found = [i for i in incidents(feed(p, events)).values() if i.model == "a" and i.kind == "traffic_anomaly"]
    (told,) = [i for i in found if i.severity == "warning"]
    assert told.held_by in ((f"access:{TOPIC}", "traffic"), ("traffic", f"access:{TOPIC}"))
    later = [e | {"ts": e["ts"] + 24 * HOUR} for e in accesses("a", 720, seed=7)][:6_000]
    later = merged(later, [{"type": "prediction", "ts": e["ts"] + 1.0, "model": "a", "client": "c"} for e in later])
    feed(p, later)
    assert p.book.get(told.id) is None  # it closes when both are as they were


def test_names_that_are_tried_out_make_no_watches() -> None:
    p = pipeline(max_models=3)
    tried = [{"type": "access", "ts": START + i, "resource": f"/v1/models/t{i}", "status": 404} for i in range(50)]
    tried += [{"type": "access", "ts": START + i, "resource": f"/v1/models/u{i}"} for i in range(50)]
    tried += [{"type": "access", "ts": START + i, "resource": f"/predictions/{i}", "status": 200} for i in range(50)]
    feed(p, [*tried, *accesses("a", 1), *accesses("b", 1)])
    assert {s for s in p.traffic._watches if s.startswith("access:")} == {
        f"access:{TOPIC}", f"access:{TOPIC}//a", f"access:{TOPIC}//b"
    }  # fmt: skip
    known = {"type": "prediction", "ts": START, "model": "resnet"}
    call = {"type": "access", "ts": START, "resource": "/predictions/resnet", "status": 503}
    feed(p, [known, call, *(a for k in range(9) for a in accesses(f"m{k}", 1))])
    assert sum(s.startswith(f"access:{TOPIC}/") for s in p.traffic._watches) == 3
    assert f"access:{TOPIC}//resnet" in p.traffic._watches


def test_the_budget_of_a_model_holds_for_its_accesses() -> None:
    own = WatchSettings(traffic=TrafficSettings(budget=7.0))
    p = pipeline()
    p.settings = PipelineSettings(p.settings.intakes, lambda model, tenant: own)
    feed(p, accesses("a", 1))
    assert p.traffic._watches[f"access:{TOPIC}//a"].traffic.settings.budget == 7.0
    assert p.traffic._watches[f"access:{TOPIC}"].traffic.settings.budget == 1.0
