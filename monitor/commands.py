"""What operators' commands do. The daemon applies them in its commits; without a daemon the CLI does, by the same code.

A command that this version does not know is answered, never left in the queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from alerts.incidents import IncidentBook
from alerts.render import PSEUDONYM
from alerts.times import rfc3339
from monitor.in_use import WHEN
from monitor.outgoing import OutboxWriter, no_messages, tell_changes
from monitor.references import in_force
from monitor.state.commands import Command
from monitor.state.lease import Lease
from monitor.state.references import StoredReference
from monitor.state.store import StateStore
from monitor.state.unit import AuditRow, CommandResult, CommitUnit, ReferenceRow

ACKNOWLEDGE: Final = "incident.acknowledge"
APPROVE: Final = "reference.approve"
RESOLVE: Final = "incident.resolve"
SILENCE: Final = "incident.silence"
ERASE: Final = "identity.erase"
MAX_SILENCE: Final = 30 * 86_400.0
"""Longest silence in seconds: none may outlive the memory of why it was made."""
References = Callable[[str], list[StoredReference]]
"""Stored versions of a subject's references, by role and version."""


class Applied(NamedTuple):
    """The answer to a command, and the act to be audited; None when nothing was done."""

    result: CommandResult
    audit: AuditRow | None
    reference: ReferenceRow | None = None
    """A version with its approval, to be stored in the same commit."""
    erased: str | None = None
    """A pseudonym whose identity is to be erased in the same commit."""

    def add_to(self, unit: CommitUnit) -> None:
        """Have it stored with this commit."""
        unit.commands.append(self.result)
        unit.audit += [self.audit] if self.audit is not None else []
        unit.references += [self.reference] if self.reference is not None else []
        unit.erased += [self.erased] if self.erased is not None else []


def apply_command(book: IncidentBook, references: References, command: Command, at: float) -> Applied:
    """Do what the command says, to open incidents, a stored reference or an identity.

    `at` is the time of the act in epoch seconds.
    """
    if command.name == ACKNOWLEDGE:
        return _acknowledge(book, command, at)
    if command.name == APPROVE:
        return _approve(references, command, at)
    if command.name == RESOLVE:
        return _resolve(book, command, at)
    if command.name == SILENCE:
        return _silence(book, command, at)
    if command.name == ERASE:
        return _erase(command, at)
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


def _resolve(book: IncidentBook, command: Command, at: float) -> Applied:
    incident, because = command.arguments.get("incident"), command.arguments.get("because", "")
    if not isinstance(incident, str) or not isinstance(because, str):
        return _refused(command, f"{command.name} needs the id of an incident, and may have a reason in text")
    try:
        book.resolve(incident, at, f"resolved by {command.actor}" + (f": {because}" if because else ""))
    except KeyError:
        return _refused(command, f"no open incident {incident}")
    message = f"{incident} resolved by {command.actor}"
    audit = AuditRow(at, command.actor, command.name, incident, {"command": command.id, "because": because})
    return Applied(CommandResult(command.id, True, message), audit)


def _silence(book: IncidentBook, command: Command, at: float) -> Applied:
    """For so many seconds from now; 0 ends a silence."""
    incident, seconds = command.arguments.get("incident"), command.arguments.get("seconds")
    valid = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= MAX_SILENCE
    if not isinstance(incident, str) or not isinstance(seconds, int | float) or not valid:
        days = MAX_SILENCE / 86_400
        return _refused(command, f"{command.name} needs the id of an incident and seconds up to {days:.0f} days")
    live = book.get(incident)
    if live is None:
        return _refused(command, f"no open incident {incident}")
    if seconds:
        book.silence(incident, at + seconds)
        message = f"{incident} silenced by {command.actor} until {rfc3339(at + seconds)}"
    elif book.end_silences(at, incident):
        message = f"{incident} is no longer silenced"
    else:
        return _refused(command, f"{incident} is not silenced")
    audit = AuditRow(at, command.actor, command.name, incident, {"command": command.id, "seconds": seconds})
    return Applied(CommandResult(command.id, True, message), audit)


def _erase(command: Command, at: float) -> Applied:
    pseudonym = command.arguments.get("pseudonym")
    if not isinstance(pseudonym, str) or not PSEUDONYM.fullmatch(pseudonym):
        return _refused(command, f"{command.name} needs a pseudonym: c_ and 26 letters and digits")
    audit = AuditRow(at, command.actor, command.name, pseudonym, {"command": command.id})
    return Applied(CommandResult(command.id, True, f"{pseudonym} erased"), audit, erased=pseudonym)


def _approve(references: References, command: Command, at: float) -> Applied:
    subject, version = command.arguments.get("subject"), command.arguments.get("version")
    if not isinstance(subject, str) or type(version) is not int:
        return _refused(command, f"{command.name} needs a subject and the number of a version")
    targets = [r for r in references(subject) if r.reference.role == "target"]
    row = next((r.reference for r in targets if r.version == version), None)
    if row is None:
        return _refused(command, f"{subject} has no reference of version {version}")
    if row.approved_at is not None and row is in_force([r.reference for r in targets]):
        return _refused(command, f"version {version} is approved already, by {row.approved_by}, and no other since")
    message = f"version {version} approved by {command.actor}; {WHEN}"
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
        apply_command(book, store.references, command, now).add_to(unit)
    tell_changes(book, unit, outbox)
    if unit.commands:
        store.commit(unit, lease)


def _refused(command: Command, why: str) -> Applied:
    return Applied(CommandResult(command.id, False, why), None)
