"""What operators' commands do. The daemon applies them in its commits; without a daemon the CLI does, by the same code.

A command that this version does not know is answered, never left in the queue.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from alerts.incidents import IncidentBook
from monitor.state.commands import Command
from monitor.state.lease import Lease
from monitor.state.store import StateStore
from monitor.state.unit import AuditRow, CommandResult, CommitUnit

ACKNOWLEDGE: Final = "incident.acknowledge"


class Applied(NamedTuple):
    """The answer to a command, and the act to be audited; None when nothing was done."""

    result: CommandResult
    audit: AuditRow | None


def apply_command(book: IncidentBook, command: Command, at: float) -> Applied:
    """Do what the command says to the open incidents. `at` is the time of the act in epoch seconds."""
    if command.name != ACKNOWLEDGE:
        return _refused(command, f"this version has no command {command.name}")
    incident = command.arguments.get("incident")
    if not isinstance(incident, str):
        return _refused(command, f"{command.name} needs the id of an incident")
    try:
        book.acknowledge(incident, command.actor)
    except KeyError:
        return _refused(command, f"no open incident {incident}")
    message = f"{incident} acknowledged by {command.actor}"
    audit = AuditRow(at, command.actor, command.name, incident, {"command": command.id})
    return Applied(CommandResult(command.id, True, message), audit)


def apply_without_daemon(store: StateStore, lease: Lease) -> None:
    """Apply what is queued in one commit. Only while nobody else holds state in memory: that is what `lease` proves."""
    book = IncidentBook(store.open_incidents())
    now = time.time()
    unit = CommitUnit(at=now)
    for command in store.pending_commands():
        result, audit = apply_command(book, command, now)
        unit.commands.append(result)
        unit.audit += [audit] if audit is not None else []
    unit.incidents = book.take_changes()
    if unit.commands:
        store.commit(unit, lease)


def _refused(command: Command, why: str) -> Applied:
    return Applied(CommandResult(command.id, False, why), None)
