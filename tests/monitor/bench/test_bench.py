from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from detectors.base import registry
from monitor.bench.traffic import events, rows
from monitor.cli.app import app
from tests.components.kafka import KafkaBroker


def test_events_have_as_many_features_as_asked_for_and_clients_by_zipf() -> None:
    made = [(key, json.loads(value)) for key, value in events(5_000, 20, 1.8e9, 1_000.0)]
    assert {len(e["features"]) for _, e in made} == {20}
    assert all(key.decode() == e["client"] for key, e in made)
    busiest = sum(e["client"] == "client-0" for _, e in made) / len(made)
    assert 0.07 < busiest < 0.14 and len({e["client"] for _, e in made}) > 1_000


def test_equal_seeds_give_equal_rows() -> None:
    assert rows(50, 7, 3) == rows(50, 7, 3) != rows(50, 7, 4)


def test_without_a_broker_it_says_what_to_name() -> None:
    result = CliRunner().invoke(app, ["bench", "--bootstrap-servers", "127.0.0.1:1", "--events", "1000"])
    assert result.exit_code == 1 and "--bootstrap-servers HOST:PORT" in result.stderr


def test_it_measures_every_stage_through_a_real_broker(kafka: KafkaBroker, tmp_path: Path) -> None:
    servers = kafka.bootstrap_servers
    result = CliRunner().invoke(
        app, ["bench", "--bootstrap-servers", servers, "--events", "3000", "--features", "5", "--output", "json"]
    )
    assert result.exit_code == 0, result.stderr
    sources = json.loads(result.stdout)["sources"]
    assert "kafka-python" in [s["source"] for s in sources]
    for source in sources:
        assert source["events"] == 3_000 and source["ratio"] == pytest.approx(
            source["all_us"] / source["poll_us"], rel=0.02
        )
        assert set(source["detectors"]) <= set(registry()) and source["detectors"]["predictive_drift"] > 0
        for stage in ("poll_us", "decode_us", "columns_us", "views_us", "naming_us", "commit_us", "all_us"):
            assert source[stage] >= 0
        assert source["all_us"] > source["poll_us"] and source["bytes_written_per_event"] > 0
    with kafka.admin() as admin:
        assert not [name for name in admin.list_topics() if name.startswith("modelwarden-bench")]
