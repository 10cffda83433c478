"""Acknowledging: the active daemon does it, or this command where there is none, each with an audit row."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from monitor.cli import acts
from monitor.commands import apply_without_daemon

if TYPE_CHECKING:
    from tests.monitor.cli.conftest import Place


def test_without_a_daemon_the_command_does_it_and_gives_the_lease_back(filled: Place) -> None:
    result = filled.run("incidents", "ack", "inc_open", "--by", "ann")
    assert (result.exit_code, result.stdout) == (0, "inc_open acknowledged by ann\n")
    shown = filled.json("incidents", "show", "inc_open")
    assert (shown["status"], shown["acknowledged_by"]) == ("acknowledged", "ann")
    with filled.store() as store:
        assert store.status()["active"]["holder"] is None
        assert store.verify_audit().ok and store.audit_head().seq == 1


def test_with_a_daemon_the_daemon_does_it(filled: Place) -> None:
    with filled.store() as store:
        lease = store.acquire_lease("daemon", 60.0)
        assert lease is not None

        def daemon() -> None:
            deadline = time.monotonic() + 10
            while not store.pending_commands() and time.monotonic() < deadline:
                time.sleep(0.02)
            apply_without_daemon(store, lease)

        thread = threading.Thread(target=daemon)
        thread.start()
        result = filled.run("incidents", "ack", "inc_open")
        thread.join()
        assert result.exit_code == 0, result.stderr
        assert store.status()["active"] == store.status()["active"] | {"holder": "daemon", "epoch": lease.epoch}


def test_a_daemon_that_does_not_answer_leaves_it_queued(filled: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "WAIT_SECONDS", 0.5)
    with filled.store() as store:
        assert store.acquire_lease("daemon", 60.0) is not None
        result = filled.run("incidents", "ack", "inc_open")
        assert result.exit_code == 1 and "queued, not yet applied" in result.stderr
        assert [c.arguments for c in store.pending_commands()] == [{"incident": "inc_open"}]


def test_the_lease_of_a_daemon_that_died_is_waited_for(filled: Place) -> None:
    with filled.store() as store:
        assert store.acquire_lease("daemon", 1.0) is not None
    assert filled.run("incidents", "ack", "inc_open").exit_code == 0


def test_a_resolved_incident_is_not_acknowledged(filled: Place) -> None:
    result = filled.run("incidents", "ack", "inc_over")
    assert result.exit_code == 1 and "resolved already" in result.stderr
    with filled.store() as store:
        assert store.pending_commands() == []


def test_without_the_key_nothing_is_acknowledged_unaudited(filled: Place) -> None:
    filled.key_file.unlink()
    result = filled.run("incidents", "ack", "inc_open")
    assert result.exit_code == 1 and "audit key" in result.stderr
    assert filled.json("incidents", "show", "inc_open")["status"] == "open"
