"""Restoring the detectors of a model: what belongs together is taken together, or starts anew together."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.base import Batch, Finding
from monitor.panel import ACCOUNT, LATCHES, Panel, PanelSettings
from monitor.state.unit import StatePage
from tests.conformance.streams import CASES, FAULT_AT
from tests.conformance.test_detectors import Run


def panel() -> Panel:
    run = Run("predictive_drift", CASES["predictive_drift"])
    return Panel("model:/credit", "credit", run.panel.context.reference, PanelSettings())


def drifted() -> tuple[Panel, list[StatePage], list[Finding]]:
    """A panel with a closed latch, its pages, and what it found."""
    run = Run("predictive_drift", CASES["predictive_drift"])
    found: list[Finding] = []
    made = panel()
    for event in [CASES["predictive_drift"].alarming()[: FAULT_AT + 200]]:
        made.detect(run.columns(event), lambda finding, _: _opened(found, finding))
    assert made.account.latches
    return made, made.dirty(), found


def _opened(found: list[Finding], finding: Finding):  # type: ignore[no-untyped-def]
    from alerts.incidents import IncidentBook, Sighting

    found.append(finding)
    return IncidentBook().apply(Sighting(finding, "model:/credit", "credit", "", str(len(found)), None))


def test_all_of_it_is_taken() -> None:
    _, pages, _ = drifted()
    again = panel()
    restored = again.restore(pages)
    assert restored.anew == {} and restored.obsolete == ()
    assert again.account.latches


@pytest.mark.parametrize("victim", ["predictive_drift", ACCOUNT, LATCHES])
def test_latches_account_and_detector_start_anew_together(victim: str) -> None:
    _, pages, _ = drifted()
    broken = [p._replace(arrays={"nonsense": np.zeros(1)}) if p.detector == victim else p for p in pages]
    again = panel()
    restored = again.restore(broken)
    assert set(restored.anew) == {"predictive_drift", "error_rate"}
    assert again.account.latches == () and again.account.alarms == 0


def test_a_damaged_rule_starts_anew_alone() -> None:
    _, pages, _ = drifted()
    broken = [p._replace(arrays={"nonsense": np.zeros(1)}) if p.detector == "field_rule" else p for p in pages]
    again = panel()
    assert set(again.restore(broken).anew) == {"field_rule"}
    assert again.account.latches


def test_pages_of_other_parameters_are_named_as_obsolete() -> None:
    _, pages, _ = drifted()
    old = [p._replace(params_hash="other") for p in pages if p.detector == "field_rule"]
    restored = panel().restore([*pages, *old])
    assert restored.obsolete == (("field_rule", "other"),) and restored.anew == {}


def test_after_an_error_in_a_detector_that_bets_all_start_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    made, pages, _ = drifted()
    detector = next(r.detector for r in made._runners if r.detector.name == "predictive_drift")

    def broken(batch: Batch, views: object) -> None:
        raise RuntimeError("a bug that quotes a record: secret")

    monkeypatch.setattr(detector, "update", broken)
    run = Run("predictive_drift", CASES["predictive_drift"])
    made.detect(run.columns(CASES["predictive_drift"].clean()[:10]), lambda finding, _: None)
    ((name, reason),) = made.failures
    assert name == "predictive_drift" and "RuntimeError" in reason and "secret" not in reason
    stored = {(p.detector, p.page): p for p in [*pages, *made.dirty()]}
    again = panel()
    assert "predictive_drift" in again.restore(stored.values()).anew
    # ... once: the mark is gone with the next commit.
    stored |= {(p.detector, p.page): p for p in again.dirty()}
    assert "predictive_drift" not in panel().restore(stored.values()).anew
