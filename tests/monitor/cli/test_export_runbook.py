"""`export runbook`, and the way to it from an incident."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from alerts.runbook import runbook
from alerts.taxonomy import kinds
from monitor.cli.app import app

if TYPE_CHECKING:
    from tests.monitor.cli.conftest import Place


@pytest.mark.parametrize("kind", kinds())
def test_a_runbook_is_printed_whole(kind: str) -> None:
    result = CliRunner().invoke(app, ["export", "runbook", kind])
    assert result.exit_code == 0 and result.stdout.startswith(f"# {kind}\n") and result.stdout.endswith(runbook(kind))
    assert "- First step: " in result.stdout and "](" not in result.stdout


def test_an_unknown_kind_is_a_usage_error_that_names_the_known_ones() -> None:
    result = CliRunner().invoke(app, ["export", "runbook", "bad_weather"])
    assert result.exit_code == 2 and "feature_drift" in result.stderr


def test_an_incident_says_where_its_runbook_is(filled: Place) -> None:
    kind = filled.json("incidents", "show", "inc_open")["kind"]
    assert f"modelwarden export runbook {kind}" in filled.run("incidents", "show", "inc_open").stdout
