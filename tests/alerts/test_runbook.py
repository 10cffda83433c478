"""Every kind has a runbook with the same five sections."""

from __future__ import annotations

from importlib.resources import files

import pytest

from alerts.runbook import HEADINGS, runbook, severity_of
from alerts.taxonomy import kinds


@pytest.mark.parametrize("kind", kinds())
def test_a_runbook_has_the_five_sections_in_order_and_says_something_in_each(kind: str) -> None:
    text = runbook(kind)
    sections = text.split("## ")
    assert sections[0] == "" and tuple(s.partition("\n")[0] for s in sections[1:]) == HEADINGS
    assert all(len(s.partition("\n")[2].strip()) > 40 for s in sections[1:])
    assert 12 <= len(text.splitlines()) <= 25 and all(len(line) <= 120 for line in text.splitlines())
    assert severity_of(kind).split(";")[0] in ("info", "warning", "critical")


def test_there_is_no_runbook_of_a_kind_that_does_not_exist() -> None:
    found = {path.name.removesuffix(".md") for path in files("alerts").joinpath("runbooks").iterdir()}
    assert found == set(kinds())
    with pytest.raises(KeyError, match="feature_drift"):
        runbook("../taxonomy")
