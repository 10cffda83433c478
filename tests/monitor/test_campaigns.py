from __future__ import annotations

from dataclasses import replace

import numpy as np

from monitor.intake.events import Event
from monitor.suspicion import QUIET
from tests.detectors.moves.test_trail import bisections
from tests.detectors.moves.worlds import honest_rows
from tests.monitor.test_suspects_and_names import Watch, _empty, drawn, frames, later


def shared_out(events: list[Event], accounts: int) -> list[Event]:
    """The queries of one attacker, asked by several accounts in turn."""
    for i, event in enumerate(events):
        event.client = f"c_a{i % accounts}"
    return events


def mixed(*streams: list[Event]) -> list[Event]:
    return sorted((event for stream in streams for event in stream), key=lambda event: event.time)


def search() -> list[Event]:
    """A search for the boundary by one account, then the same neighbourhoods asked about by another."""
    rows = np.concatenate([bisections(15, k) for k in range(5)])
    copies = rows[-40:] + np.random.default_rng(4).normal(size=(40, rows.shape[1])) * 1e-4
    return later(rows, "c_a") + later(copies, "c_b", after=len(rows))


def test_an_account_that_asks_where_a_named_one_did_joins_its_incident() -> None:
    honest = later(honest_rows(200, 21), "c_honest")
    camera = later(frames(200, 22), "c_camera")
    watch = Watch().calibrated().feed(mixed(search(), honest, camera))
    (incident,) = watch.of("adversarial_input")
    first, second = incident.subjects
    assert (first.id, second.id) == ("c_a", "c_b") and first.since < second.since
    assert (
        "client c_b: " in incident.why and "close to queries of the campaign that began with client c_a" in incident.why
    )
    assert watch.of("model_extraction") == []
    watch.panel.advance(second.since + QUIET - 1, _empty(), watch.report)
    assert watch.book.get(incident.id) is not None  # the second one asked later
    watch.panel.advance(second.since + 2 * QUIET, _empty(), watch.report)
    assert watch.book.open() == []


def test_a_declared_service_joins_no_campaign() -> None:
    watch = Watch(c_b="nightly probe").calibrated().feed(search())
    attacker, service = watch.of("adversarial_input") + watch.of("model_extraction")
    assert [s.id for s in attacker.subjects] == ["c_a"] and attacker.severity == "warning"
    assert [s.id for s in service.subjects] == ["c_b"] and service.severity == "info"


def test_accounts_that_draw_records_in_turn_are_one_incident() -> None:
    watch = Watch().calibrated().feed(mixed(shared_out(later(drawn(300, 3)), 4), later(honest_rows(200, 23), "c_h")))
    (incident,) = watch.of("model_extraction")
    assert sorted(s.id for s in incident.subjects) == [f"c_a{k}" for k in range(4)]
    assert len({s.since for s in incident.subjects}) == 4 and "1 further clients act alike" in incident.why


def test_restored_between_the_two_the_second_still_joins() -> None:
    given = search()
    whole = Watch().calibrated().feed(given)
    one = Watch().calibrated()
    stored = {(p.detector, p.params_hash, p.page): p for p in one.pages()}
    one.feed(given[:-33])
    stored |= {(p.detector, p.params_hash, p.page): p for p in one.pages()}
    two = Watch()
    assert not two.panel.restore(stored.values()).anew
    two.position, two.book = one.position, one.book
    two.feed(given[-33:])
    assert [replace(f, row=0) for f in one.findings + two.findings] == [replace(f, row=0) for f in whole.findings]
    assert any(f.detail.get("joins") for f in two.findings)
