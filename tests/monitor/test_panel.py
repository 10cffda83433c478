"""Restoring the detectors of a model: what belongs together is taken together, or starts anew together."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.base import Batch, Finding
from monitor.lineup import PanelSettings
from monitor.panel import ACCOUNT, LATCHES, Panel
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
    assert set(restored.anew) == {"predictive_drift", "histogram_drift", "error_rate"}
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


def test_a_detector_whose_state_cannot_be_taken_down_stops_and_the_others_are_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, _, _ = drifted()
    detector = next(r.detector for r in made._runners if r.detector.name == "field_rule")

    def broken() -> None:
        raise ValueError("cannot reshape")

    monkeypatch.setattr(detector, "dirty", broken)
    run = Run("predictive_drift", CASES["predictive_drift"])
    made.detect(run.columns(CASES["predictive_drift"].clean()[:50]), lambda finding, _: None)
    stored = {page.detector for page in made.dirty()}
    assert "predictive_drift" in stored and "field_rule" not in stored
    assert [name for name, _ in made.failures] == ["field_rule"]


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


def attacked_panel(**detectors: dict[str, float]) -> tuple[Panel, Run]:
    run = Run("near_duplicate_queries", CASES["near_duplicate_queries"])
    settings = PanelSettings(detectors={"query_log": {"calibration_queries": 1_500}, **detectors})
    return Panel("model:/credit", "credit", run.panel.context.reference, settings), run


def named_pages() -> list[StatePage]:
    made, run = attacked_panel()
    found: list[Finding] = []
    events = CASES["near_duplicate_queries"].alarming()[: FAULT_AT + 300]
    made.detect(run.columns(events), lambda finding, _: _opened(found, finding))
    assert made.suspicion is not None and made.suspicion.named == 1
    return made.dirty()


def test_whom_the_tests_have_named_survives_a_restart_and_a_changed_parameter() -> None:
    pages = named_pages()
    again, _ = attacked_panel()
    assert again.restore(pages).anew == {}
    changed, _ = attacked_panel(outlier_queries={"eps": 0.4})
    assert set(changed.restore(pages).anew) == {"outlier_queries"}
    for made in (again, changed):
        assert made.suspicion is not None and made.suspicion.named == 1


def test_a_test_more_or_less_lets_all_clients_begin_anew_and_says_so() -> None:
    pages = named_pages()
    other, _ = attacked_panel(margin_queries={"enabled": False})
    assert "account.attack" in other.restore(pages).anew
    assert other.suspicion is not None and other.suspicion.named == 0


def test_a_shadow_has_no_attack_detectors() -> None:
    run = Run("predictive_drift", CASES["predictive_drift"])
    made = Panel("model:/credit@shadow", "credit", run.panel.context.reference, PanelSettings())
    assert made.suspicion is None and made.attack_state == "off"
    assert "outlier_queries" in made.off and "predictive_drift" in made.running


def test_an_error_in_the_account_of_clients_is_told_and_stops_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    made, run = attacked_panel()
    assert made.suspicion is not None

    def broken(batch: Batch) -> list[Finding]:
        raise ArithmeticError("no")

    monkeypatch.setattr(made.suspicion, "judge", broken)
    found: list[Finding] = []
    events = CASES["predictive_drift"].alarming()[: FAULT_AT + 200]
    made.detect(run.columns(events), lambda finding, _: _opened(found, finding))
    assert [name for name, _ in made.failures] == ["account.attack"]
    assert any(f.kind == "feature_drift" for f in found)
