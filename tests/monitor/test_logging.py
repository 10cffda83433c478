"""Logs: on stderr, one line an entry whatever a client sent, libraries only from WARNING on."""

from __future__ import annotations

import json
import logging
import time

import pytest
import structlog

from monitor.logging import REPEAT_SECONDS, configure_logging
from monitor.printable import one_line

pytestmark = pytest.mark.usefixtures("restored_logging")
HOSTILE = "a\nb\x1b[2J\u202e\u2028c"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_hostile_value_stays_on_its_line(capfd: pytest.CaptureFixture[str], as_json: bool) -> None:
    configure_logging(json=as_json)
    structlog.get_logger("monitor.pipeline").warning("time\nbad", topic=HOSTILE, nested={"k": HOSTILE})
    logging.getLogger("kafka.conn").warning("lost %s", HOSTILE)
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2
    assert "\x1b[2J" not in err and "\u202e" not in err


def test_json_lines_carry_level_time_logger_and_values(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(json=True)
    structlog.get_logger("monitor.daemon").info("committed", offset=5, model="credit")
    logging.getLogger("uvicorn.error").warning("port %d", 9464)
    entries = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(e["event"], e["level"], e["logger"]) for e in entries] == [
        ("committed", "info", "monitor.daemon"),
        ("port 9464", "warning", "uvicorn.error"),
    ]
    assert entries[0]["offset"] == 5 and entries[0]["time"].endswith("Z")


def test_a_traceback_is_one_json_line(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(json=True)
    try:
        raise ValueError("no\nway")
    except ValueError:
        structlog.get_logger("monitor.daemon").exception("failed")
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and "ValueError" in json.loads(lines[0])["exception"]


def test_libraries_are_heard_from_warning_on(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(json=True)
    for name in ("kafka", "kafka.coordinator", "uvicorn.access", "alembic.runtime.migration"):
        logging.getLogger(name).info("chatter")
    structlog.get_logger("monitor.daemon").debug("detail")
    assert capfd.readouterr().err == ""


def test_a_library_does_not_repeat_itself_and_we_may(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logging(json=True)
    kafka = logging.getLogger("kafka.net.manager")
    for delay in (0.1, 0.2, 0.4):
        kafka.error("no broker; waiting %.2f secs", delay)
    kafka.error("something else")
    for _ in range(2):
        structlog.get_logger("monitor.daemon").warning("no broker")
    entries = [json.loads(line)["event"] for line in capfd.readouterr().err.splitlines()]
    assert entries == ["no broker; waiting 0.10 secs", "something else", "no broker", "no broker"]
    later = time.time() + REPEAT_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    monkeypatch.setattr(time, "time_ns", lambda: int(later * 1e9))
    kafka.error("no broker; waiting %.2f secs", 0.8)
    assert "0.80" in capfd.readouterr().err


def test_configuring_twice_does_not_log_twice(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(json=True)
    configure_logging(json=True)
    structlog.get_logger("monitor.daemon").info("once")
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_one_line_writes_controls_out_and_keeps_the_rest() -> None:
    assert one_line("żółć → 5") == "żółć → 5"
    assert one_line("a\tb\x9b\ud800") == "a\\tb\\x9b\\ud800"
