"""The command line as a whole: its commands, its exit codes, and that it starts quickly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from monitor import __version__
from monitor.cli.app import app
from monitor.cli.failures import CommandError, guarded

if TYPE_CHECKING:
    from tests.monitor.cli.conftest import Place

Start = Callable[..., "subprocess.Popen[str]"]
ROOT = Path(__file__).parents[3]


def commands(group: Any, path: str = "") -> Iterator[str]:
    """The commands of a group and of the groups in it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name


COMMANDS = sorted(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_a_configuration_and_explains_itself(place: Place, command: str) -> None:
    result = place.runner.invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "--config FILE" in result.stdout and "--traceback" not in result.stdout


@pytest.mark.parametrize("command", ["version", "--version"])
def test_version(place: Place, command: str) -> None:
    result = place.runner.invoke(app, [command])
    assert (result.exit_code, result.stdout) == (0, f"modelwarden {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["status", "--nonsense"], ["clients", "show"], ["status", "--output", "xml"], ["backtest"],
     ["incidents", "list", "--limit", "0"], ["incidents", "list", "--status", "gone"],
     ["backtest", "x", "--type", "y"]],
)  # fmt: skip
def test_usage_errors_exit_2(place: Place, arguments: list[str]) -> None:
    result = place.runner.invoke(app, arguments)
    assert result.exit_code == 2 and result.stdout == "" and "Usage:" in result.stderr


NEED_ONE = ["run", "status", "migrate", "check-config", "incidents list", "incidents show i", "incidents ack i",
            "clients show --model m", "reference list", "reference show --model m",
            "reference approve --model m --version 1"]  # fmt: skip


@pytest.mark.parametrize("command", NEED_ONE)
def test_a_missing_configuration_exits_78_where_one_is_needed(place: Place, command: str) -> None:
    result = place.runner.invoke(app, command.split())
    assert result.exit_code == 78 and result.stdout == "" and "no configuration file" in result.stderr


@pytest.mark.parametrize(
    "command",
    [*NEED_ONE, "healthcheck", "backtest x", "demo", "export schema", "init", "reference build x --model m", "version"],
)
def test_an_invalid_configuration_exits_78_with_file_line_and_key(place: Place, command: str) -> None:
    place.config.write_text("store:\n  commit_interval: never\n  colour: red\n")
    result = place.run(*command.split())
    assert result.exit_code == 78 and result.stdout == ""
    assert f"{place.config}:2: store.commit_interval: " in result.stderr
    assert f"{place.config}:3: store.colour: " in result.stderr
    missing = place.runner.invoke(app, [*command.split(), "--config", "gone.yaml"])
    assert missing.exit_code == 78 and "gone.yaml: The file cannot be read" in missing.stderr


def test_the_configuration_is_looked_up_in_the_environment_and_here(
    filled: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELWARDEN_CONFIG", str(filled.config))
    assert filled.runner.invoke(app, ["status"]).exit_code == 0
    monkeypatch.delenv("MODELWARDEN_CONFIG")
    monkeypatch.chdir(filled.directory)
    assert filled.runner.invoke(app, ["status"]).exit_code == 0


def test_run_without_topics_exits_78(place: Place) -> None:
    place.config.write_text("store: {}\n")
    result = place.run("run")
    assert result.exit_code == 78 and "kafka: This section is missing." in result.stderr


@pytest.mark.parametrize("command", ["status", "incidents list", "clients show --model m", "incidents ack i"])
def test_without_a_database_a_command_says_so_and_makes_none(place: Place, command: str) -> None:
    result = place.run(*command.split())
    assert result.exit_code == 1 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 and "no such database" in result.stderr
    assert sorted(p.name for p in place.directory.iterdir()) == ["elsewhere", "modelwarden.yaml"]


def test_a_failure_is_one_line_and_a_traceback_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @guarded
    def fail(error: Exception) -> None:
        raise error

    def told(error: Exception) -> str:
        with pytest.raises(typer.Exit) as raised:
            fail(error)
        assert raised.value.exit_code == 1
        return capsys.readouterr().err

    assert told(CommandError("no\x1b way\n out")) == "modelwarden: no\\x1b way out\n"
    assert told(FileNotFoundError(2, "No such file", "a.txt")) == "modelwarden: a.txt: No such file\n"
    text = told(ZeroDivisionError("division by zero"))
    assert text == "modelwarden: ZeroDivisionError: division by zero (MODELWARDEN_TRACEBACK=1 shows where)\n"
    monkeypatch.setenv("MODELWARDEN_TRACEBACK", "1")
    assert "Traceback" in told(CommandError("no way"))


def test_starting_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'sqlalchemy', 'pydantic', 'structlog', 'kafka', 'rich', 'httpx', 'yaml'}"
    code = f"import sys; import monitor.cli.app; sys.exit(', '.join({heavy} & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_a_process_reports_its_exit_code_and_its_traceback(place: Place, process: Start) -> None:
    child = process("status", "--config", "gone.yaml")
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (78, "") and "Traceback" not in err
    child = process("status", "--traceback", "--config", str(place.config))
    out, err = child.communicate(timeout=30)
    assert child.returncode == 1 and "Traceback" in err and "SchemaError" in err


def test_an_interrupted_command_exits_130_quietly(filled: Place, process: Start) -> None:
    with filled.store() as store:
        assert store.acquire_lease("somebody", 60.0) is not None
        child = process("incidents", "ack", "inc_open", "--config", str(filled.config))
        deadline = time.monotonic() + 30
        while not store.pending_commands():
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=30) == ("", "")
        assert child.returncode == 130


def test_a_reader_that_goes_away_is_no_noise(filled: Place, process: Start) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        child = process("status", "--output", "json", "--config", str(filled.config), stdout=writing)
    finally:
        os.close(writing)
    _, err = child.communicate(timeout=30)
    assert err == ""


def test_colours_only_on_a_terminal_and_never_with_no_color(filled: Place, process: Start) -> None:
    arguments = ("incidents", "list", "--config", str(filled.config))
    assert "\x1b" not in process(*arguments).communicate(timeout=30)[0]
    for no_color, expected in (("", True), ("1", False)):
        master, slave = os.openpty()
        child = process(*arguments, stdout=slave, env={"NO_COLOR": no_color, "TERM": "xterm", "COLUMNS": "150"})
        os.close(slave)
        child.wait(timeout=30)
        shown = os.read(master, 65_536).decode()
        os.close(master)
        assert "feature_drift" in shown
        # bold is no colour
        assert ("\x1b[33m" in shown) is expected


def test_the_module_is_the_command(process: Start, tmp_path: Path) -> None:
    assert process("--version", cwd=tmp_path).communicate(timeout=30)[0] == f"modelwarden {__version__}\n"


@pytest.mark.parametrize(
    ("shell", "sign"), [("bash", "complete -o default"), ("zsh", "#compdef"), ("fish", "--command")]
)
def test_completion_of_a_named_shell_needs_no_guess(process: Start, shell: str, sign: str) -> None:
    child = process("--show-completion", shell, env={"SHELL": "/bin/nonsense"})
    out, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (0, "") and sign in out and "_MODELWARDEN_COMPLETE" in out


def test_an_unknown_shell_is_a_usage_error(process: Start) -> None:
    child = process("--show-completion", "cmd")
    assert "bash" in child.communicate(timeout=30)[1] and child.returncode == 2


def test_the_completion_completes(process: Start) -> None:
    asked = {"_MODELWARDEN_COMPLETE": "complete_bash", "COMP_WORDS": "modelwarden incidents l", "COMP_CWORD": "2"}
    assert process(env=asked).communicate(timeout=30)[0].split() == ["list"]
