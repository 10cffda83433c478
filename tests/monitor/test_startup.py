"""Starts that find something wrong: a bad reference, another reference, state of another build. The daemon goes on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from alerts.incidents import Incident
from monitor.assembly import key_path
from monitor.commands import APPROVE, apply_without_daemon
from monitor.config import Config
from monitor.demo.traffic import CreditTraffic, write_events
from monitor.in_use import contents_in_use
from monitor.intake.identity import derive_key, load_or_create_key
from monitor.intake.sources.memory import MemoryBroker
from monitor.references import TRAINING, rows_of
from monitor.state.store import open_store
from tests.crash.runner import configuration, fill, run

START = 1_763_625_600.0
SUBJECT = "model:/credit-risk"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    write_events(tmp_path / "reference.jsonl", CreditTraffic(3).reference(500))
    return configuration(tmp_path)


def start(config: Config, n: int, broker: MemoryBroker | None = None) -> MemoryBroker:
    """Run a daemon to the end of n further honest events."""
    events = [msgspec.json.encode(e) for e in CreditTraffic(3).events(n, START, 100.0)]
    if broker is None:
        broker = MemoryBroker()
        fill(broker, events, 1)
    else:
        for event in events:
            broker.produce("predictions", 0, event)
    assert run(config, broker, None) == 0
    return broker


def health(config: Config) -> list[Incident]:
    store = open_store(config.store.url.url, "crash")
    found = [i for i in store.incidents() if i.kind == "monitor_health"]
    store.close()
    return found


def state(config: Config) -> str:
    store = open_store(config.store.url.url, "crash")
    (model,) = store.status()["models"]
    store.close()
    return str(model["state"])


@pytest.mark.parametrize(
    "content", [None, "not json\n", '{"features": {}}\n', ""], ids=["missing", "bad", "bare", "empty"]
)
def test_a_model_with_an_unusable_reference_is_off_and_said(
    config: Config, tmp_path: Path, content: str | None
) -> None:
    reference = tmp_path / "reference.jsonl"
    good = reference.read_bytes()
    reference.unlink()
    if content is not None:
        reference.write_text(content)
    broker = start(config, 300)
    (incident,) = health(config)
    assert incident.status == "open" and incident.severity == "warning" and state(config) == "off"

    reference.write_bytes(good)
    start(config, 300, broker)
    assert [i.status for i in health(config)] == ["resolved"] and state(config) == "watching"


def test_an_approved_reference_stays_in_force_when_the_file_breaks_or_changes(config: Config, tmp_path: Path) -> None:
    reference = tmp_path / "reference.jsonl"
    broker = start(config, 300)
    assert health(config) == []
    reference.write_text("half a li")
    start(config, 300, broker)
    assert state(config) == "watching" and [i.severity for i in health(config)] == ["warning"]

    write_events(reference, CreditTraffic(9).reference(500))
    start(config, 300, broker)
    store = open_store(config.store.url.url, "crash")
    versions = [(r.version, r.reference.approved_by) for r in store.references("model:/credit-risk")]
    store.close()
    assert versions == [(1, "configuration"), (2, None)]
    assert state(config) == "watching"


def test_another_reference_that_is_approved_is_one_incident_and_names_the_model(config: Config, tmp_path: Path) -> None:
    reference = tmp_path / "reference.jsonl"
    first = reference.read_bytes()
    broker = start(config, 1_000)
    write_events(reference, CreditTraffic(9).reference(500))
    start(config, 100, broker)
    assert [(i.model, i.status, i.cause) for i in health(config)] == [("credit-risk", "open", f"reference:{SUBJECT}")]

    key = key_path(config)
    assert key is not None
    audit_key = derive_key(load_or_create_key(key, create=False), "audit")
    store = open_store(config.store.url.url, "crash", audit_key=audit_key)
    before = contents_in_use(store)[SUBJECT]
    store.enqueue("ann", APPROVE, {"subject": SUBJECT, "version": 2})
    lease = store.acquire_lease("cli", 30.0)
    assert lease is not None
    apply_without_daemon(store, lease)
    store.release(lease)
    assert contents_in_use(store)[SUBJECT] == before  # the daemon has not taken it up
    reference.write_bytes(first)  # replaced on purpose: it does not wait for anything
    start(config, 100, broker)
    assert contents_in_use(store)[SUBJECT] == store.references(SUBJECT)[1].reference.content_hash != before
    store.close()
    (anew,) = [i for i in health(config) if i.status == "open"]
    assert (anew.model, anew.severity) == ("credit-risk", "info") and "another reference is in force" in anew.why
    assert "field_rule" in anew.measures[0].stream and anew.measures[0].observed > 5


def test_damaged_pages_start_their_detector_anew_and_counts_stay(config: Config) -> None:
    import sqlalchemy as sa

    broker = start(config, 1_000)
    engine = sa.create_engine(config.store.url.url)
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE state_pages SET data = zeroblob(40) WHERE detector IN ('field_rule', 'watch.counts')")
        )
    engine.dispose()
    start(config, 500, broker)
    store = open_store(config.store.url.url, "crash")
    (model,) = store.status()["models"]
    store.close()
    assert model["predictions"] == 1_500
    assert {i.severity for i in health(config)} == {"info"} and any("field_rule" in i.why for i in health(config))


def test_training_rows_are_read_once_and_outlive_their_file(config: Config, tmp_path: Path) -> None:
    def stored() -> list[tuple[int, int]]:
        store = open_store(config.store.url.url, "crash")
        rows = [
            (r.version, len(rows_of(r.reference))) for r in store.references(SUBJECT) if r.reference.role == TRAINING
        ]
        store.close()
        return rows

    training = tmp_path / "training.jsonl"
    write_events(training, CreditTraffic(4).reference(120))
    named = configuration(tmp_path, model=f"training_rows: {training}")
    broker = start(named, 300)
    assert stored() == [(1, 120)]
    training.unlink()
    start(named, 300, broker)
    assert stored() == [(1, 120)] and state(named) == "watching" and health(named) == []
    write_events(training, CreditTraffic(5).reference(80))
    start(named, 300, broker)
    assert stored() == [(1, 120), (2, 80)]


def test_missing_training_rows_are_said(config: Config, tmp_path: Path) -> None:
    named = configuration(tmp_path, model=f"training_rows: {tmp_path}/nothing.jsonl")
    start(named, 300)
    (incident,) = health(named)
    assert "nothing.jsonl" in incident.why
