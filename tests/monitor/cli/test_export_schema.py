"""The published schemas: up to date, true to the decoder, and satisfied by what the documents show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from monitor.cli.app import app
from monitor.intake.events import Record, Rejected
from monitor.intake.formats.base import TopicRules
from monitor.intake.formats.native import KNOWN_FIELDS, NativeFormat
from monitor.intake.formats.native_schema import native_event_schema
from monitor.intake.identity import Pseudonyms
from tests.json_schema import valid

if TYPE_CHECKING:
    from tests.monitor.cli.conftest import Place

ROOT = Path(__file__).parents[3]
FILES = {"event": "native-event.schema.json", "config": "modelwarden.schema.json"}
TS = "2026-11-20T08:00:00.120Z"
DOCUMENTED: list[dict[str, Any]] = [
    {"type": "prediction", "event_id": "p-1", "ts": TS, "model": "credit-risk", "model_version": "7", "client": "acme",
     "features": {"income": 0.3, "region": "EU"}, "prediction": "yes", "scores": {"yes": 0.81, "no": 0.19},
     "latency_ms": 12.4},
    {"type": "label", "event_id": "p-1", "ts": "2026-12-01T00:00:00Z", "model": "credit-risk", "label": "no",
     "source": "chargeback"},
    {"type": "access", "event_id": "a-1", "ts": TS, "principal": "acme", "source_ip": "203.0.113.9", "method": "POST",
     "resource": "/v1/models/credit-risk:predict", "status": 200, "bytes": 61, "latency_ms": 14,
     "user_agent": "python-httpx/0.28"},
    {"type": "metric", "event_id": "m-1", "ts": "2026-11-20T08:00:00Z", "series": "elb-requests", "value": 412},
    {"ts": 1795161600, "model": "m", "input": [[0.5, 1], [2, None]], "scores": [0.2, 0.8], "role": "shadow"},
    {"ts": 1795161600.5, "model": "m", "input": "AAAAAA==", "sample_weight": 2, "unknown": {}},
]  # fmt: skip
REFUSED: list[dict[str, Any]] = [
    {"model": "m"},
    {"ts": TS},
    {"ts": "yesterday", "model": "m"},
    {"ts": "2026-11-20T08:00:00", "model": "m"},
    {"ts": 1795161600123, "model": "m"},
    {"ts": True, "model": "m"},
    {"ts": TS, "model": "m", "type": "guess"},
    {"ts": TS, "model": ""},
    {"ts": TS, "model": "m" * 201},
    {"ts": TS, "model": "a\nb"},
    {"ts": TS, "model": "m@shadow"},
    {"ts": TS, "model": 7},
    {"ts": TS, "model": "m", "tenant": "a/b"},
    {"ts": TS, "model": "m", "features": [1, 2]},
    {"ts": TS, "model": "m", "input": 7},
    {"ts": TS, "type": "access", "model": "m"},
    {"ts": TS, "type": "label"},
    {"ts": TS, "type": "metric", "series": ""},
    {"ts": TS, "resource": "/"},
]


def decode(event: dict[str, Any]) -> None:
    rules = TopicRules("t", Pseudonyms(bytes(32)))
    NativeFormat().decode(Record("t", 0, 0, None, None, json.dumps(event).encode()), rules)


@pytest.mark.parametrize("name", FILES)
def test_the_published_files_are_up_to_date(place: Place, name: str) -> None:
    result = place.runner.invoke(app, ["export", "schema", name])
    assert result.exit_code == 0
    mend = f"write it anew: modelwarden export schema {name} > docs/schema/{FILES[name]}"
    assert (ROOT / "docs" / "schema" / FILES[name]).read_text(encoding="utf-8") == result.stdout, mend


@pytest.mark.parametrize("event", DOCUMENTED)
def test_documented_events_are_valid_and_decoded(event: dict[str, Any]) -> None:
    assert valid(event, native_event_schema())
    decode(event)


@pytest.mark.parametrize("event", REFUSED)
def test_what_the_decoder_refuses_is_not_valid(event: dict[str, Any]) -> None:
    assert not valid(event, native_event_schema())
    with pytest.raises(Rejected):
        decode(event)


def test_every_field_that_the_decoder_knows_is_described_and_no_other() -> None:
    definitions = native_event_schema()["$defs"].values()
    assert {name for d in definitions for name in d["properties"]} == KNOWN_FIELDS


def test_the_events_and_the_configuration_of_the_readme_are_valid() -> None:
    blocks = dict.fromkeys(("json", "yaml"), "")
    for language, text in re.findall(r"```(json|yaml)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        blocks[language] = text
    assert valid(json.loads(blocks["json"]), native_event_schema())
    schema = json.loads((ROOT / "docs" / "schema" / FILES["config"]).read_text())
    config = yaml.safe_load(blocks["yaml"])
    assert config["kafka"] and valid(config, schema)
    assert not valid({**config, "colour": "red"}, schema)
    assert not valid({**config, "limits": {"series": 0}}, schema)


def test_the_documented_configuration_is_valid() -> None:
    config = {
        "kafka": {"bootstrap_servers": ["kafka:9092"], "group": "modelwarden", "client": "kafka-python", "topics": [
            {"name": "predictions", "format": "native", "type": "prediction", "time": "event", "live": True,
             "start": "latest", "on_data_loss": "earliest", "client_from": ["field:client"], "keyed_by": "none"}]},
        "store": {"url": "postgresql+psycopg://h/d", "commit_interval": "10s", "retention": {"incidents": "400d"}},
        "budget": {"per": "30d", "drift": 1, "attack": 1, "traffic": 1},
        "models": {"auto": {"max": 200}, "credit-risk": {
            "owner": "risk-team", "budget": {"drift": 2}, "reference": "refs/credit.jsonl.gz", "reference_is": "file",
            "features": ["income", "region"], "classes": ["no", "yes"], "threshold": {"yes": 0.5},
            "importances": {"income": 0.4}, "services": {"k8fc37517": "svc-backfill"},
            "labels": {"max_delay": "60d", "max_bytes": "256MiB"}, "calibration": {"for": "12h"}, "season": "auto"}},
        "detectors": {"outlier_queries": {"enabled": True}},
        "receivers": {"am": {"type": "alertmanager", "urls": ["http://127.0.0.1:9093"]}},
        "overload": "lag", "api": {"listen": "127.0.0.1:9464"},
    }  # fmt: skip
    assert valid(config, json.loads((ROOT / "docs" / "schema" / FILES["config"]).read_text()))
