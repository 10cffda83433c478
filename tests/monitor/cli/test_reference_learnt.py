"""What `reference show` tells of a season."""

from __future__ import annotations

import pytest

from monitor.cli.reference_learnt import learnt, print_learnt
from monitor.lineup import PanelSettings
from monitor.panel import Panel
from tests.detectors.drift.test_calendar import seasonal


def panel(days: float, **of_drift: float) -> Panel:
    settings = PanelSettings(detectors={"predictive_drift": of_drift} if of_drift else {})
    return Panel("model:/simulated", "simulated", seasonal(days, 0.5), settings)


def test_the_largest_season_is_told_first(capsys: pytest.CaptureFixture[str]) -> None:
    found = learnt(panel(3))
    assert found is not None
    largest = found["season"]["streams"][0]
    assert largest["stream"] == "n0:mean" and largest["period"] == "day"
    assert largest["amplitude"] == pytest.approx(0.5, abs=0.1) and largest["explained"] > 0.5
    print_learnt(found)
    text = capsys.readouterr().out
    assert "learnt from the reference" in text and "n0:mean" in text


@pytest.mark.parametrize(
    ("days", "of_drift", "told"), [(1, {}, "not learnt: that takes rows"), (3, {"season_swing": 0.0}, "declared")]
)
def test_why_there_is_none_is_told(days: float, of_drift: dict[str, float], told: str) -> None:
    found = learnt(panel(days, **of_drift))
    assert found is not None and found["season"]["told"].startswith(told) and not found["season"]["streams"]


def test_without_the_drift_detector_there_is_nothing_to_tell() -> None:
    settings = PanelSettings(detectors={"predictive_drift": {"enabled": False}})
    assert learnt(Panel("model:/simulated", "simulated", seasonal(1, 0.0), settings)) is None
