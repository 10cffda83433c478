"""The demo's whole story through the daemon's own pipeline: what must be found is found, and nobody honest is named."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

import pytest

from alerts.incidents import Incident
from monitor.backtest import run_backtest
from monitor.demo.attacks import CLIENTS
from monitor.demo.story import ENDS, STORY, Script, Timeline
from monitor.demo.traffic import CreditTraffic, write_events

START = 1_800_000_000.0
DELAY = 6.0
"""Seconds within which each stage is found, at 350 events/s and 9 queries/s of an attacker."""


@pytest.fixture(scope="module")
def incidents(tmp_path_factory: pytest.TempPathFactory) -> list[Incident]:
    place = tmp_path_factory.mktemp("story")
    traffic = CreditTraffic(7)
    reference = traffic.reference(4_000)
    write_events(place / "reference.jsonl", reference)
    whole = sum(stage.seconds for stage in STORY)
    script = Script(traffic, Timeline(), reference)
    messages = takewhile(lambda m: (m.at or START) < START + whole, script.messages(START, 350.0))
    (place / "events.jsonl").write_bytes(b"\n".join(m.value for m in messages) + b"\n")
    found = run_backtest([Path(place / "events.jsonl")], place / "reference.jsonl")
    assert found.rejected.total() == 0
    return found.incidents


def test_every_stage_is_found_soon_and_as_what_it_is(incidents: list[Incident]) -> None:
    for name, (kind, client) in ENDS.items():
        begin = START + Timeline().begins(name)
        hits = [i for i in incidents if i.kind == kind and begin <= i.opened_at <= begin + DELAY]
        assert len(hits) == 1, (name, [(i.kind, i.opened_at - START) for i in incidents])
        if client is not None:
            assert [(s.type, s.id) for s in hits[0].subjects] == [("client", client)]


def test_nothing_else_pages_and_no_honest_client_is_named(incidents: list[Incident]) -> None:
    pages = [i for i in incidents if i.severity != "info"]
    assert len(pages) == len(ENDS)
    named = {s.id for i in pages for s in i.subjects if s.type == "client"}
    assert named == set(CLIENTS.values())


def test_faults_and_drifts_close_by_themselves_and_attacks_stay_open(incidents: list[Incident]) -> None:
    status = {i.kind: i.status for i in incidents if i.severity != "info"}
    assert status["data_quality"] == status["feature_drift"] == "resolved"
    assert status["model_extraction"] == status["adversarial_input"] == status["membership_inference"] == "open"
