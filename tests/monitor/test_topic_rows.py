from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.demo.produce import Message, produce
from monitor.demo.traffic import CreditTraffic
from tests.components.kafka import KafkaBroker

START = 1_763_600_000.0
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def config(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A topic with 100 seconds of predictions of two models, ten a second, and a record that is none."""
    topic = kafka.create_topic("stretch", 2)
    events = CreditTraffic(3).events(1_000, START, 10.0) + CreditTraffic(4, model="other").events(100, START, 1.0)
    messages = [Message(e["client"].encode(), msgspec.json.encode(e)) for e in events]
    produce(kafka.bootstrap_servers, topic, [*messages, Message(b"x", b"no event")])
    file = tmp_path_factory.mktemp("stretch") / "modelwarden.yaml"
    topics = f"[{{name: {topic}, type: prediction, live: false}}]"
    file.write_text(
        f'kafka: {{bootstrap_servers: ["{kafka.bootstrap_servers}"], topics: {topics}}}\n', encoding="utf-8"
    )
    yield file
    kafka.delete_topic(topic)


def build(config: Path, *arguments: str) -> tuple[int, str, str]:
    options = ["--topic", "stretch", "--from", "1990-02-01T00:00:00Z", "--config", str(config), *arguments]
    result = RUNNER.invoke(app, ["reference", "build", "--model", "credit-risk", *options])
    return result.exit_code, result.stdout, result.stderr


def test_all_predictions_of_the_model_become_rows_without_identifiers(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    code, said, errors = build(config, "--out", str(out), "--output", "json")
    assert code == 0, errors
    assert json.loads(said)["rows"] == 1_000
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 1_000 and json.loads(said)["teaches"].startswith("noise")
    assert all(set(r) <= {"model_version", "features", "prediction", "scores", "ts"} for r in rows)


def test_a_stretch_with_nothing_of_the_model_is_told(config: Path) -> None:
    code, _, errors = build(config, "--to", "1990-03-01T00:00:00Z")
    assert code == 1 and "no prediction of credit-risk between 1990-02-01" in errors


def test_a_topic_that_is_not_configured_is_told(config: Path) -> None:
    options = ["--topic", "nowhere", "--config", str(config)]
    result = RUNNER.invoke(app, ["reference", "build", "--model", "m", *options])
    assert result.exit_code == 1 and "nowhere is not a topic of the configuration; it has stretch" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "m"], "Give either FILE or --topic"),
        (["rows.jsonl", "--model", "m", "--topic", "t"], "Give either FILE or --topic"),
        (["rows.jsonl", "--model", "m", "--from", "2026-01-01T00:00:00Z"], "belong to --topic"),
        (["--model", "m", "--topic", "t", "--from", "yesterday"], "2026-11-20T08:00:00Z"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments: list[str], said: str) -> None:
    result = RUNNER.invoke(app, ["reference", "build", *arguments])
    assert result.exit_code == 2 and said in result.stderr
