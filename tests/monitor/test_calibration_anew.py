"""A reference is approved while an attack goes on: what is honest is learnt anew, but not from the attacker."""

from __future__ import annotations

import pytest

from monitor.intake.columns import build_reference
from monitor.intake.events import Event
from monitor.panel import Panel
from tests.detectors.moves.worlds import events, honest_rows
from tests.monitor.test_suspects_and_names import HONEST, SCHEMA, SUBJECT, Watch, drawn, later


def approved(before: Watch) -> Watch:
    """The daemon after its restart with a new reference, on what is stored of `before`."""
    after = Watch()
    reference = build_reference(events(honest_rows(600, 77)), SCHEMA, "file", SUBJECT)
    assert before.panel.context.reference.version != reference.version
    after.panel = Panel(SUBJECT, "m", reference, before.panel._settings)
    after.panel.restore(before.pages())
    after.position, after.book = before.position, before.book
    return after


def calibration_with(client: str) -> list[Event]:
    """Honest traffic, and every sixth query drawn field by field by this client."""
    given = later(honest_rows(HONEST, 51), "c_h", after=200)
    for i, event in enumerate(given):
        event.client = f"c_{i % 60}"
    given[::6] = later(drawn(HONEST // 6, 52), client, after=200)
    for i, event in enumerate(given):
        event.time, event.event_id = given[1].time + i, f"e{i}"
    return given


@pytest.mark.parametrize("named", [True, False])
def test_an_attacker_that_is_named_does_not_move_the_new_calibration(named: bool) -> None:
    watch = Watch().calibrated()
    if named:
        watch.feed(later(drawn(60, 3), "c_x"))
        assert watch.panel.suspicion is not None and watch.panel.suspicion.attackers == {"c_x"}
    after = approved(watch).feed(calibration_with("c_x"))
    assert after.panel.attack_state == "watching"
    before = len(after.findings)
    after.feed(later(drawn(60, 53), "c_x", after=2 * HONEST))
    told = [f for f in after.findings[before:] if f.kind == "model_extraction"]
    # Who is not known as an attacker has got a baseline of its own: that is what the calibration is declared for.
    assert bool(told) == named
