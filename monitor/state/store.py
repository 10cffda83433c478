"""The one door to SQL. Every write of detector state is one fenced transaction; see commit.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from alerts.incidents import Incident
from monitor.intake.events import DeadLetter
from monitor.state import audit, commands, lease, notified, outbox, reader, references, schema, settings
from monitor.state.audit import AuditCheck, AuditHead
from monitor.state.commands import Command
from monitor.state.commit import Committed, claim_start, commit
from monitor.state.database import Database, create_private, parsed_url, sqlite_path
from monitor.state.errors import SchemaError, StoreError
from monitor.state.lease import Lease
from monitor.state.notified import NotifiedAlert
from monitor.state.outbox import OutboxCounts, OutboxMessage
from monitor.state.reader import DamagedPage, RecordedCommit
from monitor.state.references import ReferenceSummary, StoredReference
from monitor.state.status import status
from monitor.state.unit import CommandResult, CommitUnit, IdentityRow, Position, StatePage, SubjectRow


def open_store(url: str, group: str, *, audit_key: bytes | None = None, create: bool = False) -> StateStore:
    """Open the store of `group` at an SQLAlchemy URL (SQLite file or PostgreSQL).

    With `create` (what `run` does) an empty database gets its tables and SQLite is upgraded; otherwise the tables
    must be there. `audit_key` is needed to commit units with audit rows. SchemaError, StoreUnavailable or
    StoreError say what is wrong.
    """
    path = sqlite_path(parsed_url(url))
    if path is not None and create:
        create_private(path)
    elif path is not None and not path.exists():
        raise SchemaError(f"{path}: no such database; start `modelwarden run`, or check store.url")
    store = StateStore(Database(url, group), audit_key)
    try:
        (schema.prepare if create else schema.require_current)(store.db.engine)
    except BaseException:
        store.close()
        raise
    return store


class StateStore:
    """State of one group. Safe to use from several threads: each call takes a connection of its own."""

    def __init__(self, db: Database, audit_key: bytes | None) -> None:
        self.db = db
        self._audit_key = audit_key

    def close(self) -> None:
        """Close all connections."""
        self.db.engine.dispose()

    # --- lease and commits ------------------------------------------------------------------------------------------

    def acquire_lease(self, holder: str, ttl: float, *, take_over: bool = False) -> Lease | None:
        """The right to write, for `ttl` seconds from every renewal or commit on; None if somebody has it."""
        return lease.acquire_lease(self.db, holder, ttl, take_over=take_over)

    def renew(self, held: Lease) -> Lease:
        """Extend the lease. Fenced when it was lost."""
        return lease.renew(self.db, held)

    def release(self, held: Lease) -> None:
        """Free the lease, if it is still ours."""
        lease.release(self.db, held)

    def claim_start(self, cluster_id: str, positions: Sequence[Position], held: Lease, at: float) -> None:
        """Store where new partitions begin; known ones keep their offset. Fenced when the lease was lost."""
        claim_start(self.db, cluster_id, positions, held, at)

    def commit(self, unit: CommitUnit, held: Lease) -> Committed:
        """Write all of the unit in one transaction, or nothing.

        Fenced: the lease was lost. Conflict: an offset or command is not as expected. StoreUnavailable: try the same
        unit again; one that was written after all is recognised by its token. A commit also extends the lease.
        """
        return commit(self.db, unit, held, self._audit_key)

    # --- what the loop loads ----------------------------------------------------------------------------------------

    def load_offsets(self, cluster_id: str) -> dict[tuple[str, int], Position]:
        """(topic, partition) → where it stands (`expected` and `next` are both the next offset)."""
        return reader.load_offsets(self.db, cluster_id)

    def load_pages(
        self, subject: str | None = None, *, damaged: list[DamagedPage] | None = None, detector: str | None = None
    ) -> list[StatePage]:
        """Pages of one subject or of all, of one detector or of all.

        Damaged ones go to `damaged`; without that list the first raises CodecError.
        """
        return reader.load_pages(self.db, subject, damaged, detector)

    def load_subjects(self) -> list[SubjectRow]:
        """All watched subjects, by name."""
        return reader.load_subjects(self.db)

    def open_incidents(self) -> list[Incident]:
        """Incidents that are not resolved, oldest first."""
        return reader.open_incidents(self.db)

    def references(self, subject: str) -> list[StoredReference]:
        """All versions of a subject's references, by role and version."""
        return references.load(self.db, subject)

    def reference_versions(self) -> list[ReferenceSummary]:
        """All versions of all subjects' references, without their rows."""
        return references.summaries(self.db)

    def pending_commands(self) -> list[Command]:
        """Commands that no commit has answered, in the order they were asked."""
        return commands.pending(self.db)

    def slices(self, after: int = 0) -> Iterator[RecordedCommit]:
        """The recorded trail in order, from the commit after number `after` on, for replays."""
        return reader.load_trail(self.db, after)

    # --- what others read -------------------------------------------------------------------------------------------

    def incidents(
        self,
        *,
        status: Sequence[str] = (),
        model: str | None = None,
        kind: str | None = None,
        severity: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[Incident]:
        """Incidents, newest first. An empty filter lets everything pass."""
        return reader.find_incidents(self.db, status, model, kind, severity, limit)

    def incident(self, incident: str) -> Incident | None:
        """The incident with this id."""
        return reader.one_incident(self.db, incident)

    def status(self) -> dict[str, Any]:
        """Counts since the first start, as `status --output json` prints them, in one snapshot."""
        return status(self.db)

    def identities(self, pseudonyms: Sequence[str]) -> dict[str, IdentityRow]:
        """Pseudonym → encrypted identifier, for those that are known."""
        return reader.load_identities(self.db, pseudonyms)

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """The newest dead letters, newest first."""
        return reader.load_dead_letters(self.db, limit)

    # --- commands ---------------------------------------------------------------------------------------------------

    def enqueue(self, actor: str, name: str, arguments: Mapping[str, Any]) -> int:
        """Queue a command for the loop; returns its id."""
        return commands.enqueue(self.db, actor, name, arguments)

    def command_result(self, command: int) -> CommandResult | None:
        """The answer to a command, None while it is queued. KeyError when there is no such command."""
        return commands.result(self.db, command)

    # --- delivery ---------------------------------------------------------------------------------------------------

    def claim_outbox(self, receivers: Sequence[str], lease_seconds: float, limit: int) -> list[OutboxMessage]:
        """Claim messages that are due, oldest first, at most the oldest pending one of each (receiver, incident)."""
        return outbox.claim(self.db, receivers, lease_seconds, limit)

    def mark_delivered(self, message: OutboxMessage) -> None:
        """The receiver took the message."""
        outbox.mark_delivered(self.db, message)

    def mark_failed(self, message: OutboxMessage, error: str, retry_in: float | None) -> None:
        """The receiver did not: try again in so many seconds, or (None) give it up."""
        outbox.mark_failed(self.db, message, error, retry_in)

    def told(self) -> list[tuple[str, str]]:
        """Which receiver was told of which incident, of those that are not resolved."""
        return outbox.told(self.db)

    def outbox_counts(self, receiver: str | None = None) -> OutboxCounts:
        """Messages pending, delivered, given up: to one receiver, or to all."""
        with self.db.read() as connection:
            return outbox.counts(self.db, connection, receiver)

    def notified_alerts(self, receiver: str) -> list[NotifiedAlert]:
        """What an Alertmanager receiver was last told."""
        return notified.load(self.db, receiver)

    def save_notified(
        self,
        receiver: str,
        alerts: Iterable[NotifiedAlert],
        forget: Iterable[Mapping[str, str]] = (),
        held: Lease | None = None,
    ) -> None:
        """Store what was sent; `forget` names label sets that need no further word. Fenced if `held` was lost."""
        notified.save(self.db, receiver, alerts, forget, held)

    # --- settings and audit -----------------------------------------------------------------------------------------

    def setting(self, key: str) -> str | None:
        """A fact about the group, such as the id of its identity key."""
        with self.db.read() as connection:
            return settings.setting(self.db, connection, key)

    def remember(self, key: str, value: str) -> str:
        """Store a fact unless it is there; returns the one in force."""
        with self.db.write() as connection:
            return settings.remember(self.db, connection, key, value)

    def verify_audit(self, expected: AuditHead | None = None) -> AuditCheck:
        """Recompute the audit chain; `expected` is a head exported earlier."""
        if self._audit_key is None:
            raise StoreError("the audit chain cannot be verified without its key")
        return audit.verify(self.db, self._audit_key, expected)

    def audit_head(self) -> AuditHead:
        """Number and hash of the last audit row, to be exported."""
        return audit.head_of(self.db)
