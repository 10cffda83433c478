from __future__ import annotations

from pathlib import Path

import pytest

from monitor.config import load_config
from monitor.demo.produce import read_lines
from monitor.demo.traffic import FEATURES, CreditTraffic
from monitor.demo.workspace import GROUP, REFERENCE_ROWS, TOPIC, WorkspaceError, make_workspace
from monitor.intake.events import Record
from monitor.intake.formats.base import TopicRules, formats
from monitor.intake.identity import Pseudonyms


def test_the_configuration_is_valid_and_its_reference_readable(tmp_path: Path) -> None:
    place = make_workspace(tmp_path / "demo", CreditTraffic(1), "127.0.0.1:1234")
    config = load_config(place.config)
    kafka = config.need_kafka()
    assert [(a.host, a.port) for a in kafka.bootstrap_servers] == [("127.0.0.1", 1234)]
    assert kafka.group == GROUP
    assert [(t.name, t.start) for t in kafka.topics] == [(TOPIC, "earliest")]
    assert config.store.url.url == place.store_url
    assert (config.api.listen.host, config.api.listen.port) == ("127.0.0.1", place.port)
    reference = config.model_settings("credit-risk").reference
    assert reference is not None
    rules = TopicRules("reference", Pseudonyms(b"k" * 32), "prediction", model="credit-risk", default_time=1e9)
    lines = [line.rstrip() for line in read_lines(reference.path)]
    assert len(lines) == REFERENCE_ROWS
    (row,) = formats()["native"].decode(Record("reference", 0, 0, None, None, lines[0]), rules).events
    assert row.features is not None and tuple(row.features) == FEATURES and row.unknown_fields == 0


def test_a_temporary_directory_is_made_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = make_workspace(None, CreditTraffic(1), "127.0.0.1:1")
    assert place.directory.parent == tmp_path and place.config.exists()


def test_a_used_directory_is_refused(tmp_path: Path) -> None:
    make_workspace(tmp_path, CreditTraffic(1), "127.0.0.1:1")
    with pytest.raises(WorkspaceError, match="already there: name a new directory"):
        make_workspace(tmp_path, CreditTraffic(1), "127.0.0.1:1")


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="cannot write here"):
        make_workspace(tmp_path / "file", CreditTraffic(1), "127.0.0.1:1")
