"""The demo as a whole, with daemons that fail. That it finds the drift is tested end to end."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from monitor.demo import run
from monitor.demo.broker import EmbeddedBroker
from monitor.demo.child import DaemonProcess
from monitor.demo.run import run_demo
from monitor.demo.story import Stage, Timeline

SHORT = (Stage("honest", 2.0), Stage("drift", 3.0), Stage("honest", 60.0))
Pretend = type["PretendedDaemon"]


class PretendedDaemon(DaemonProcess):
    """Runs `code_to_run`, or else the stand-in, in place of the daemon; remembers who it was."""

    code_to_run = ""
    lose = 0
    threshold = 36_000.0
    pids: list[int] = []  # noqa: RUF012

    def start(self) -> None:
        stand_in = ["-m", "tests.monitor.demo.stand_in", self._command[-1], str(self.lose), str(self.threshold)]
        self._command = [sys.executable, *(["-c", self.code_to_run] if self.code_to_run else stand_in)]
        super().start()
        self.pids.append(self.pid)


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    class Fresh(PretendedDaemon):
        pids: list[int] = []  # noqa: RUF012

    monkeypatch.setattr(run, "DaemonProcess", Fresh)
    return Fresh


@pytest.fixture
def short_story(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "Timeline", partial(Timeline, SHORT))


@pytest.mark.usefixtures("short_story")
def test_the_story_ends_well_when_the_incident_has_opened_and_closed(pretend: Pretend, tmp_path: Path) -> None:
    out = io.StringIO()
    assert run_demo(tmp_path, 30.0, out) == 0, out.getvalue()
    said = out.getvalue()
    order = [
        "honest traffic\n",
        "a drift begins",
        "incident opened: warning feature_drift",
        "honest traffic\n",
        "closed",
    ]
    at = 0
    for piece in order:
        at = said.index(piece, at) + 1
    assert "income is low" in said and "\x1b" not in said
    counts = re.search(r"events +([0-9,]+) produced, ([0-9,]+) counted", said)
    assert counts is not None and counts[1] == counts[2]
    assert int(counts[1].replace(",", "")) > 350 * 4
    assert "40 honest ones simulated" in said and "incidents  1 opened, 0 of them still open" in said
    assert f"modelwarden incidents list --config {tmp_path / 'modelwarden.yaml'}" in said


@pytest.mark.usefixtures("short_story")
def test_an_event_counted_too_few_fails_the_demo(
    pretend: Pretend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretend, "lose", 1)
    monkeypatch.setattr(run, "_CATCH_UP_SECONDS", 1.0)
    out = io.StringIO()
    assert run_demo(tmp_path, 3.0, out) == 1
    assert re.search(r"FAILED: the daemon counted [0-9,]+ of [0-9,]+ events", out.getvalue())


@pytest.mark.usefixtures("short_story")
def test_a_drift_that_opens_no_incident_fails_the_demo(
    pretend: Pretend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretend, "threshold", 0.0)
    monkeypatch.setattr(run, "_PATIENCE", 1.0)
    out = io.StringIO()
    assert run_demo(tmp_path, 4.0, out) == 1
    assert "FAILED: the drift opened no incident" in out.getvalue()


def test_a_daemon_that_ends_fails_the_demo_with_its_last_words(pretend: Pretend, tmp_path: Path) -> None:
    pretend.code_to_run = "print('the reason'); raise SystemExit(78)"
    out = io.StringIO()
    assert run_demo(tmp_path / "demo", 30.0, out) == 1
    said = out.getvalue()
    assert "FAILED: the daemon ended with exit code 78" in said
    assert "the reason" in said
    assert str(tmp_path / "demo") in said
    assert "\x1b" not in said


def test_without_an_incident_the_demo_fails_and_stops_what_it_started(pretend: Pretend, tmp_path: Path) -> None:
    pretend.code_to_run = "import signal; signal.pause()"
    out = io.StringIO()
    assert run_demo(tmp_path, 1.0, out) == 1
    assert "FAILED: the daemon counted 0 of" in out.getvalue()
    with pytest.raises(ProcessLookupError):
        os.kill(pretend.pids[0], 0)
    assert not [t for t in threading.enumerate() if t.name == "demo-producer"]


def test_the_daemon_is_told_the_protocol_version_and_config(pretend: Pretend, tmp_path: Path) -> None:
    pretend.code_to_run = "import os; print(os.environ['MODELWARDEN_KAFKA_API_VERSION'])"
    out = io.StringIO()
    run_demo(tmp_path, 30.0, out)
    assert out.getvalue().splitlines()[-1] == "2.3"


def test_a_used_directory_is_refused_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pretend: Pretend
) -> None:
    (tmp_path / "modelwarden.yaml").write_text("")
    assert run_demo(tmp_path, 1.0, None) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "already there: name a new directory" in captured.err
    assert pretend.pids == []


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run_demo(None, 1.0, Console(file=io.StringIO())) == 1
    assert "pip install 'modelwarden[demo]'" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_demo_and_all_its_processes(number: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom monitor.demo import run\n"
        "from tests.monitor.demo.test_run import PretendedDaemon\n"
        "PretendedDaemon.code_to_run = 'import signal; signal.pause()'\nrun.DaemonProcess = PretendedDaemon\n"
        "sys.exit(run.run_demo(Path(sys.argv[1]), 60.0, None))\n"
    )
    demo = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    said = ""
    while "honest traffic\n" not in said:
        line = demo.stdout.readline()
        assert line, said
        said += line
    daemon = int(said.partition("process ")[2].partition(",")[0])
    host, _, port = said.partition("broker   ")[2].split()[0].partition(":")
    os.kill(demo.pid, number)
    said += demo.stdout.read()
    code_of_demo = demo.wait(30.0)
    assert code_of_demo == (-number if number == signal.SIGKILL else 0), said
    deadline = time.monotonic() + 10.0
    while (_runs(daemon) or _listens(host, int(port))) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(daemon) and not _listens(host, int(port))
    demo.stdout.close()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1.0).close()
    except OSError:
        return False
    return True


def test_the_broker_of_another_demo_is_left_alone(pretend: Pretend, tmp_path: Path) -> None:
    pretend.code_to_run = "raise SystemExit(1)"
    other = EmbeddedBroker()
    with other as address:
        run_demo(tmp_path, 30.0, io.StringIO())
        host, _, port = address.partition(":")
        assert _listens(host, int(port))
