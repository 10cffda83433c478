"""What operators' commands do. The daemon applies them in its commits; without a daemon the CLI does, by the same code.

A command that this version does not know is answered, never left in the queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from alerts.incidents import IncidentBook
from monitor.outgoing import OutboxWriter, no_messages, tell_changes
from monitor.references import in_force
from monitor.state.commands import Command
from monitor.state.lease import Lease
from monitor.state.references import StoredReference
from monitor.state.store import StateStore
from monitor.state.unit import AuditRow, CommandResult, CommitUnit, ReferenceRow

ACKNOWLEDGE: Final = "incident.acknowledge"
APPROVE: Final = "reference.approve"
References = Callable[[str], list[StoredReference]]
"""Stored versions of a subject's references, by role and version."""


class Applied(NamedTuple):
    """The answer to a command, and the act to be audited; None when nothing was done."""

    result: CommandResult
    audit: AuditRow | None
    reference: ReferenceRow | None = None
    """A version with its approval, to be stored in the same commit."""


def apply_command(book: IncidentBook, references: References, command: Command, at: float) -> Applied:
    """Do what the command says, to the open incidents or to a stored reference. `at` is the time of the act in epoch
    seconds."""
    if command.name == ACKNOWLEDGE:
        return _acknowledge(book, command, at)
    if command.name == APPROVE:
        return _approve(references, command, at)
    return _refused(command, f"this version has no command {command.name}")


def _acknowledge(book: IncidentBook, command: Command, at: float) -> Applied:
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


def _approve(references: References, command: Command, at: float) -> Applied:
    subject, version = command.arguments.get("subject"), command.arguments.get("version")
    if not isinstance(subject, str) or type(version) is not int:
        return _refused(command, f"{command.name} needs a subject and the number of a version")
    targets = [r for r in references(subject) if r.reference.role == "target"]
    row = next((r.reference for r in targets if r.version == version), None)
    if row is None:
        return _refused(command, f"{subject} has no reference of version {version}")
    if row.approved_at is not None and row is in_force([r.reference for r in targets]):
        return _refused(command, f"version {version} is approved already, by {row.approved_by}, and in force")
    message = f"version {version} approved by {command.actor}; in force from the daemon's next start or takeover on"
    detail = {"command": command.id, "version": version, "content": row.content_hash}
    audit = AuditRow(at, command.actor, command.name, subject, detail)
    approved = row._replace(approved_at=at, approved_by=command.actor)
    return Applied(CommandResult(command.id, True, message), audit, approved)


def apply_without_daemon(store: StateStore, lease: Lease, outbox: OutboxWriter = no_messages) -> None:
    """Apply what is queued in one commit. Only while nobody else holds state in memory: that is what `lease` proves."""
    book = IncidentBook(store.open_incidents())
    now = time.time()
    unit = CommitUnit(at=now)
    for command in store.pending_commands():
        result, audit, reference = apply_command(book, store.references, command, now)
        unit.commands.append(result)
        unit.audit += [audit] if audit is not None else []
        unit.references += [reference] if reference is not None else []
    tell_changes(book, unit, outbox)
    if unit.commands:
        store.commit(unit, lease)


def _refused(command: Command, why: str) -> Applied:
    return Applied(CommandResult(command.id, False, why), None)
