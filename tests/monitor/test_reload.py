"""Reading the configuration again: what changes, what waits for a restart, what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

from monitor.config import config_json_schema, load_config
from monitor.reload import reload_config

BASE = """
kafka: {bootstrap_servers: ["kafka:9092"], topics: [{name: predictions}]}
store: {url: "sqlite:///m.db", commit_interval: 10s}
models: {credit-risk: {features: [income]}}
receivers: {am: {type: alertmanager, urls: ["http://127.0.0.1:9093"]}}
"""


def written(directory: Path, text: str) -> Path:
    path = directory / "modelwarden.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_may_change_changes_and_is_named(tmp_path: Path) -> None:
    old = load_config(written(tmp_path, BASE))
    text = BASE.replace("10s", "5s").replace("[income]", "[income, age]") + "budget: {drift: 3}\n"
    path = written(tmp_path, text + "detectors: {field_rule: {enabled: false}}\n")
    outcome = reload_config(old, path)
    assert outcome.config is not None, outcome.errors
    assert set(outcome.changed) == {
        "store.commit_interval", "models.credit-risk.features", "budget.drift", "detectors.field_rule",
    }  # fmt: skip
    assert outcome.refused == ()
    assert outcome.config.budget.drift == 3
    assert outcome.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_needs_a_restart_keeps_its_value_and_the_rest_changes(tmp_path: Path) -> None:
    old = load_config(written(tmp_path, BASE))
    text = (
        BASE.replace("kafka:9092", "other:9092").replace("m.db", "n.db") + 'api: {listen: "127.0.0.1:1"}\nnotify: off\n'
    )
    outcome = reload_config(old, written(tmp_path, text))
    assert outcome.config is not None, outcome.errors
    assert set(outcome.refused) == {"kafka.bootstrap_servers", "store.url", "api.listen"}
    assert outcome.changed == ("notify",)
    assert outcome.config.kafka == old.kafka
    assert outcome.config.store.url == old.store.url
    assert outcome.config.api == old.api
    assert not outcome.config.notify
    assert outcome.config.file == old.file


def test_a_file_that_is_not_valid_is_refused_with_every_problem(tmp_path: Path) -> None:
    old = load_config(written(tmp_path, BASE))
    outcome = reload_config(old, written(tmp_path, BASE + "budgets: {}\nnotify: maybe\n"))
    assert outcome.config is None
    assert len(outcome.errors) == 2
    assert any("budgets" in error for error in outcome.errors)
    assert reload_config(old, tmp_path / "gone.yaml").config is None
    assert reload_config(old, written(tmp_path, "notify: on\n")).config is None  # no topics


def test_an_unchanged_file_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, BASE)
    outcome = reload_config(load_config(path), path)
    assert (outcome.changed, outcome.refused, outcome.errors) == ((), (), ())


def test_the_schema_says_that_nothing_below_a_fixed_key_may_change() -> None:
    schema = config_json_schema()
    kafka, topic = schema["$defs"]["Kafka"]["properties"], schema["$defs"]["Topic"]["properties"]
    assert {field["x-reload"] for field in [*kafka.values(), *topic.values()]} == {False}
    assert schema["$defs"]["Api"]["properties"]["listen"]["x-reload"] is False
    assert schema["$defs"]["Store"]["properties"]["commit_interval"]["x-reload"] is True
    assert schema["$defs"]["Budget"]["properties"]["drift"]["x-reload"] is True
