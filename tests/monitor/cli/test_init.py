"""The start file: valid as it is and with every example in it taken in, and never written over another."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from monitor.cli.app import app
from monitor.cli.init import START
from monitor.config import load_config

if TYPE_CHECKING:
    from tests.monitor.cli.conftest import Place


def test_the_start_file_is_accepted(place: Place) -> None:
    made = place.directory / "new" / "modelwarden.yaml"
    result = place.runner.invoke(app, ["init", str(made.parent)])
    assert result.exit_code == 0 and str(made) in result.stdout
    checked = place.runner.invoke(app, ["check-config", str(made)])
    assert checked.exit_code == 0, checked.stderr
    assert f"{made}: ok" in checked.stdout
    assert load_config(made).need_kafka().topics[0].name == "predictions"


def test_without_a_directory_it_goes_here(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    here = place.directory / "elsewhere"
    monkeypatch.chdir(here)
    assert place.runner.invoke(app, ["init"]).exit_code == 0
    assert (here / "modelwarden.yaml").read_text(encoding="utf-8") == START


def test_a_file_that_is_there_is_left(place: Place) -> None:
    before = place.config.read_text()
    result = place.runner.invoke(app, ["init", str(place.directory)])
    assert result.exit_code == 1 and "exists already" in result.stderr
    assert place.config.read_text() == before


def test_a_file_in_the_place_of_the_directory_is_named(place: Place) -> None:
    result = place.runner.invoke(app, ["init", str(place.config)])
    assert result.exit_code == 1 and "not a directory" in result.stderr


def test_its_examples_are_valid(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    head, _, body = START.partition("\nkafka:")
    taken = re.sub(r"^( *)# (?=[a-z_-]+: |[a-z-]+:$|- \{|  )", r"\1", "\nkafka:" + body, flags=re.MULTILINE)
    taken = taken.replace('  url: "sqlite:///modelwarden.db"\n', "")
    taken = taken.replace("off: a dry run", "# off: a dry run")
    place.config.write_text(head + taken)
    config = load_config(place.config)
    assert config.models.listed.keys() == {"credit-risk"} and config.receivers.keys() == {"am"}
    assert config.identity.key_file is not None and len(config.need_kafka().topics) == 2
    assert config.store.url.url.startswith("postgresql") and config.need_kafka().security.model_fields_set
