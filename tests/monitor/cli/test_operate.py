"""check-config, migrate, healthcheck, run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from monitor.cli.app import app
from monitor.state.lock import DaemonLock
from monitor.state.store import open_store

if TYPE_CHECKING:
    from tests.monitor.cli.conftest import Place


class Probe(HTTPServer):
    """Answers /-/ready."""

    status, text = 200, "active: 3 partitions\n"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Probe)
        self.send_response(self.server.status if self.path == "/-/ready" else 404)
        self.end_headers()
        self.wfile.write(self.server.text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def probe() -> Iterator[Probe]:
    server = Probe(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_ready_daemon_is_healthy(place: Place, probe: Probe, host: str) -> None:
    place.write(port=probe.server_port)
    place.config.write_text(place.config.read_text().replace("127.0.0.1", host))
    result = place.run("healthcheck")
    assert (result.exit_code, result.stdout) == (0, "active: 3 partitions\n")


def test_a_daemon_that_is_not_ready_or_not_there_is_not_healthy(place: Place, probe: Probe) -> None:
    place.write(port=probe.server_port)
    probe.status, probe.text = 503, "standing\x1b by"
    result = place.run("healthcheck")
    assert (result.exit_code, result.stdout) == (1, "standing\\x1b by\n")
    place.write(port=1)
    result = place.run("healthcheck")
    assert result.exit_code == 1 and result.stdout == "" and "127.0.0.1:1 does not answer" in result.stderr


def test_a_valid_configuration_is_ok_with_notes(place: Place) -> None:
    place.config.write_text(
        "models: {credit: {reference: gone.jsonl}}\n"
        "receivers: {hook: {type: webhook, url: 'http://10.0.0.1/x', allow_private: true}}\n"
    )
    for arguments in ([str(place.config)], ["--config", str(place.config)]):
        result = place.runner.invoke(app, ["check-config", *arguments])
        assert result.exit_code == 0
        assert result.stdout.splitlines()[0] == f"{place.config}: ok"
        for note in ("kafka: not given", "gone.jsonl does not exist", "allowed by allow_private", "are not signed"):
            assert note in result.stdout


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("detectors: {nonsense: {}}\n", ":1: detectors.nonsense: There is no such detector."),
        (
            "detectors: {stuck_rule: {mn_run: 5}}\n",
            "detectors.stuck_rule: stuck_rule has no parameter mn_run; known: enabled, ",
        ),
        ("detectors:\n  predictive_drift: {colour: red}\n", ":2: detectors.predictive_drift: "),
        ("receivers:\n  hook: {type: webhook, url: 'http://10.0.0.1/x'}\n", "allow_private"),
        ("kafka:\n  bootstrap_servers: ['k:9092']\n  topics: [{name: t, format: xml}]\n", "kafka.topics[0].format"),
    ],
)
def test_what_only_the_registries_know_is_checked_too(place: Place, text: str, problem: str) -> None:
    place.config.write_text(text)
    result = place.run("check-config")
    assert result.exit_code == 78 and result.stdout == "" and problem in result.stderr
    if "kafka" in text:
        assert place.run("run").exit_code == 78


def test_the_file_is_given_once(place: Place) -> None:
    assert place.run("check-config", str(place.config)).exit_code == 2


def test_migrate_makes_the_tables_and_then_has_nothing_to_do(place: Place) -> None:
    result = place.run("migrate")
    assert result.exit_code == 0 and "no tables → 0005" in result.stdout
    open_store(place.url, "g").close()
    result = place.run("migrate")
    assert result.exit_code == 0 and "nothing to do" in result.stdout and "0005" in result.stdout


def test_migrate_on_postgresql(place: Place, postgres_url: str) -> None:
    place.write(url=postgres_url)
    with place.config.open("a") as file:
        file.write("identity: {key_file: id.key}\n")
    assert place.run("status").exit_code == 1
    result = place.run("migrate")
    assert result.exit_code == 0 and "no tables → 0005" in result.stdout
    assert place.run("status").exit_code == 0


def test_tables_of_a_newer_version_are_refused(filled: Place) -> None:
    with filled.store() as store, store.db.write() as connection:
        connection.exec_driver_sql("UPDATE modelwarden_version SET version_num = '9999'")
    for command in ("migrate", "status", "run"):
        result = filled.run(command)
        assert result.exit_code == 1 and "newer version" in result.stderr, command


def test_migrate_and_run_refuse_a_database_that_a_daemon_has(place: Place) -> None:
    with DaemonLock(place.directory / "state.db"):
        for command in ("migrate", "run"):
            result = place.run(command)
            assert result.exit_code == 1 and "another daemon (pid " in result.stderr, command
