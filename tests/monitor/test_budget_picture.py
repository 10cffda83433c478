"""The picture of the budget page is that of a run of the real detector."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from monitor.budget_picture import CHANGE, draw, main, play


def test_the_picture_shows_a_run_that_alarms_after_the_change(tmp_path: Path) -> None:
    run = play()
    assert CHANGE < run.alarm < CHANGE + 2_000 and abs(run.onset - CHANGE) < 500
    assert max(capital for event, capital in run.capital if event <= CHANGE) < 0.1
    assert run.why.startswith("income: mean")
    picture = ElementTree.fromstring(draw(run))
    assert len(next(picture.iter("{http://www.w3.org/2000/svg}polyline")).attrib["points"].split()) > 50
    page = Path(__file__).parents[2] / "docs" / "evidence.svg"
    shown = page.read_text(encoding="utf-8")
    assert f"alarm, {run.alarm - CHANGE} events" in shown and run.why in shown, "draw it anew: it shows another run"


def test_it_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "docs/evidence.svg" in capsys.readouterr().err
