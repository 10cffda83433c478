"""Doctor: all is well, and each dependency broken on purpose is named with what mends it."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import monitor.daemon
import monitor.doctor as subject
from monitor.intake.sources.base import SourceUnavailable, TopicPartition

if TYPE_CHECKING:
    from tests.monitor.cli.conftest import Place

ROOT = Path(__file__).resolve().parents[3]


class Alertmanager(BaseHTTPRequestHandler):
    """Answers as one does, or as something else."""

    sane = True

    def do_GET(self) -> None:
        body = b'{"cluster": {"status": "ready"}}' if self.sane else b"<html>"
        self.send_response(200 if self.path == "/api/v2/status" else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


class Brokers:
    """A source with one topic."""

    def __init__(self, topics: tuple[str, ...] = ("predictions",), down: bool = False) -> None:
        self.topics, self.down, self.closed = topics, down, False

    def cluster_id(self) -> str:
        if self.down:
            raise SourceUnavailable("no broker answers")
        return "c1"

    def discover(self) -> list[TopicPartition]:
        return [TopicPartition(topic, 0) for topic in self.topics]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def alertmanager(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Alertmanager)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def sound(filled: Place, alertmanager: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Everything there: the tests take one thing away each."""
    monkeypatch.setattr(monitor.daemon, "kafka_source", lambda config: Brokers())
    monkeypatch.setattr(subject, "_installed_at", lambda: ROOT)
    rows = "".join(json.dumps({"features": {"income": i % 7}, "prediction": i % 2}) + "\n" for i in range(50))
    (filled.directory / "credit.jsonl").write_text(rows)
    (filled.directory / "secret").write_text("whsec_" + "A" * 32)
    with filled.config.open("a") as file:
        file.write("models: {credit-risk: {reference: credit.jsonl}}\n")
        hook = f"{{type: webhook, url: '{alertmanager}/hook', allow_private: true, secret_file: secret}}"
        file.write(f"receivers: {{am: {{type: alertmanager, urls: ['{alertmanager}']}}, hook: {hook}}}\n")
    return filled


def failed(place: Place, code: int = 1) -> dict[str, dict[str, Any]]:
    result = place.run("doctor", "--output", "json")
    assert result.exit_code == code, result.stdout + result.stderr
    return {f["check"]: f for f in json.loads(result.stdout) if not f["ok"]}


def test_all_is_well(sound: Place) -> None:
    result = sound.run("doctor")
    assert result.exit_code == 0, result.stdout
    lines = result.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    checks = [line.removeprefix("ok").strip().partition(":")[0] for line in lines]
    assert checks == [
        "python", "packages", "crc32c", "configuration", "identity key", "database", "kafka", "topic predictions",
        "receiver am", "receiver hook", "reference credit-risk",
    ]  # fmt: skip


def test_a_broken_line_says_what_mends_it(sound: Place) -> None:
    (sound.directory / "credit.jsonl").write_text("{}\nnonsense\n")
    result = sound.run("doctor")
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if not line.startswith("ok ")]
    assert line.startswith("failed  reference credit-risk: ") and "credit.jsonl:2" in line
    assert line.endswith("`modelwarden reference build` checks a file.")


def test_brokers_away(sound: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    brokers = Brokers(down=True)
    monkeypatch.setattr(monitor.daemon, "kafka_source", lambda config: brokers)
    found = failed(sound)
    assert found.keys() == {"kafka"} and "unused:9092: no broker answers" in found["kafka"]["detail"]
    assert "kafka.bootstrap_servers" in found["kafka"]["mend"] and brokers.closed


def test_a_missing_topic(sound: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor.daemon, "kafka_source", lambda config: Brokers(("other",)))
    found = failed(sound)
    assert (
        found.keys() == {"topic predictions"} and "--create --topic predictions" in found["topic predictions"]["mend"]
    )


def test_no_broker_at_a_real_address(sound: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with socket.socket() as taken:  # bound and not listening: refused
        taken.bind(("127.0.0.1", 0))
        text = sound.config.read_text().replace("unused:9092", f"127.0.0.1:{taken.getsockname()[1]}")
        sound.config.write_text(text)
        assert "kafka" in failed(sound)


@pytest.mark.parametrize(
    ("mode", "checks"), [("gone", {"identity key"}), ("other", {"identity key"}), ("short", {"identity key"})]
)
def test_the_key(sound: Place, mode: str, checks: set[str]) -> None:
    if mode == "gone":
        sound.key_file.unlink()
    else:
        sound.key_file.write_text("ab" * 32 if mode == "other" else "ab")
    found = failed(sound)
    assert found.keys() == checks and found["identity key"]["mend"]


def test_before_the_first_start_key_and_database_are_no_fault(sound: Place) -> None:
    before = {p for p in sound.directory.iterdir() if p.name.startswith("state.db")}
    for path in before:
        path.unlink()
    assert failed(sound, 0) == {}
    assert not any(path.exists() for path in before)


def test_a_database_without_its_directory(sound: Place) -> None:
    sound.config.write_text(sound.config.read_text().replace("sqlite:///state.db", "sqlite:///gone/state.db"))
    found = failed(sound)
    assert found.keys() == {"database"} and "mkdir -p" in found["database"]["mend"]


def test_a_database_that_is_none_or_does_not_answer(sound: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (sound.directory / "state.db").write_bytes(b"no database at all" * 100)
    assert "database" in failed(sound)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql+psycopg://127.0.0.1:{taken.getsockname()[1]}/x"
        text = sound.config.read_text().replace("sqlite:///state.db", url)
        sound.config.write_text(text + f"identity: {{key_file: {sound.key_file}}}\n")
        found = failed(sound)
    assert found.keys() == {"database"} and "store.url" in found["database"]["mend"]


def test_receivers(sound: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Alertmanager, "sane", False)
    (sound.directory / "secret").unlink()
    found = failed(sound)
    assert found.keys() == {"receiver am", "receiver hook"}
    assert "not as an Alertmanager does" in found["receiver am"]["detail"]
    assert "secret" in found["receiver hook"]["detail"]


def test_nobody_listens(sound: Place, alertmanager: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        sound.config.write_text(sound.config.read_text().replace(alertmanager, nobody))
        assert failed(sound).keys() == {"receiver am", "receiver hook"}


def test_a_bad_configuration_exits_78_and_the_program_is_examined_still(sound: Place) -> None:
    sound.config.write_text("colour: red\nshape: round\n")
    result = sound.run("doctor")
    assert result.exit_code == 78
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ok", "ok", "ok", "failed", "failed"]
    assert f"{sound.config}:1: colour" in result.stdout


def test_packages_of_another_place(sound: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sound.directory / "elsewhere"
    monkeypatch.setattr(subject, "_installed_at", lambda: other)
    found = failed(sound)
    assert found.keys() == {"packages"} and str(other) in found["packages"]["detail"]
    monkeypatch.setattr(subject, "_installed_at", lambda: None)
    assert "no distribution" in failed(sound)["packages"]["detail"]


def test_a_package_of_the_same_name_in_front(sound: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (sound.directory / "migrations").mkdir()
    shutil.copy(ROOT / "monitor" / "__init__.py", sound.directory / "migrations" / "__init__.py")
    monkeypatch.syspath_prepend(str(sound.directory))
    monkeypatch.delitem(sys.modules, "migrations", raising=False)
    assert f"migrations comes from {sound.directory}" in failed(sound)["packages"]["detail"]


def test_crc32c_missing_and_an_old_python(sound: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "crc32c", None)
    assert "eight times" in failed(sound)["crc32c"]["mend"]
    assert not subject._python((3, 10, 4)).ok and subject._python((3, 11, 0)).ok
