"""What one commit writes, in one transaction. The first statement fences, the second compares offsets.

Everything that costs time and needs no database (codec, JSON) is done before the transaction begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from monitor.failpoints import failpoint
from monitor.state import audit, identities, references, rows
from monitor.state.codec import encode
from monitor.state.database import Database, Row
from monitor.state.errors import Conflict
from monitor.state.lease import Lease, fence
from monitor.state.tables import (
    access_counts,
    commands,
    commits,
    dead_letters,
    evidence,
    incident_subjects,
    incidents,
    offsets,
    outbox,
    state_pages,
    subjects,
)
from monitor.state.unit import CommitUnit, Position

_CHUNK = 500


class Committed(NamedTuple):
    """A durable commit: its number in the group's trail, the bytes of pages written, and whether it had been
    written by an earlier try whose answer was lost."""

    number: int
    page_bytes: int
    repeated: bool


def commit(db: Database, unit: CommitUnit, lease: Lease, audit_key: bytes | None) -> Committed:
    """Write all of the unit, or nothing. Fenced, Conflict, StoreUnavailable or StoreError when nothing was written."""
    prepared = _prepared(db.group, unit, lease.epoch)
    failpoint("before_commit")
    with db.write() as connection:
        fence(db, connection, lease)
        earlier = _number_of(db, connection, unit.token)
        if earlier is not None:
            return Committed(earlier, 0, True)
        _advance(db, connection, unit, lease.epoch)
        failpoint("after_offsets")
        _drop(db, connection, unit)
        db.upsert(connection, state_pages, prepared.pages)
        failpoint("after_pages")
        _tell(db, connection, prepared)
        identities.store(db, connection, unit.identities, unit.erased, unit.at)
        _answer(db, connection, unit, lease.epoch)
        references.store(db, connection, unit.references)
        audit.append(db, connection, audit_key, unit.audit)
        number = _record(db, connection, unit, lease.epoch)
        failpoint("before_transaction_end")
    failpoint("after_commit")
    return Committed(number, sum(len(row["data"]) for row in prepared.pages), False)


def claim_start(db: Database, cluster_id: str, positions: Sequence[Position], lease: Lease, at: float) -> None:
    """Store where new partitions begin (`next`). A partition that is known keeps its offset."""
    with db.write() as connection:
        fence(db, connection, lease)
        new = [rows.offset_row(db.group, cluster_id, position, lease.epoch, at) for position in positions]
        db.insert_new(connection, offsets, new)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Rows of the big tables."""

    pages: list[Row]
    watched: list[Row]
    incidents: list[Row]
    incident_subjects: list[Row]
    evidence: list[Row]
    dead_letters: list[Row]
    outbox: list[Row]


def _prepared(group: str, unit: CommitUnit, epoch: int) -> _Prepared:
    written = {"group_id": group, "epoch": epoch, "updated_at": unit.at}
    pages = [
        {
            "subject": page.subject,
            "detector": page.detector,
            "params_hash": page.params_hash,
            "page": page.page,
            "state_version": page.version,
            "data": encode(page.arrays, page.version),
            **written,
        }
        for page in unit.pages
    ]
    last = {incident.id: incident for incident in unit.incidents}.values()
    return _Prepared(
        pages=pages,
        watched=[rows.watched_row(group, subject, unit.at) for subject in unit.subjects],
        incidents=[rows.incident_row(group, incident, unit.at) for incident in last],
        incident_subjects=[row for incident in last for row in rows.subject_rows(group, incident)],
        evidence=[row for incident in last for row in rows.evidence_rows(group, incident)],
        dead_letters=[rows.dead_letter_row(group, unit.cluster_id, letter, unit.at) for letter in unit.dead_letters],
        outbox=[{"group_id": group, **row._asdict(), **_UNSENT} for row in unit.outbox],
    )


_UNSENT: Row = {"status": "pending", "attempts": 0, "next_attempt_at": 0.0, "error": ""}


def _number_of(db: Database, connection: Connection, token: str) -> int | None:
    query = sa.select(commits.c.number).where(commits.c.group_id == db.group, commits.c.token == token)
    number: int | None = connection.execute(query).scalar_one_or_none()
    return number


def _advance(db: Database, connection: Connection, unit: CommitUnit, epoch: int) -> None:
    """Move each offset on, if it is where the unit expects it."""
    for position in unit.positions:
        row = rows.offset_row(db.group, unit.cluster_id, position, epoch, unit.at)
        changed = connection.execute(
            offsets.update()
            .where(*(offsets.c[key.name] == row[key.name] for key in offsets.primary_key))
            .where(offsets.c.next_offset == position.expected)
            .values({name: value for name, value in row.items() if not offsets.c[name].primary_key})
        ).rowcount
        if changed != 1:
            raise Conflict(
                f"{position.topic}/{position.partition}: the stored offset is not {position.expected}; "
                "somebody else wrote, or the start of the partition was not claimed"
            )


def _drop(db: Database, connection: Connection, unit: CommitUnit) -> None:
    """Pages nobody reads any more: left in place they would come back to life with their parameters."""
    for old in unit.obsolete:
        mine = [state_pages.c.group_id == db.group, *(state_pages.c[k] == v for k, v in old._asdict().items())]
        connection.execute(state_pages.delete().where(*mine))


def _tell(db: Database, connection: Connection, prepared: _Prepared) -> None:
    """Subjects, incidents with their subjects and evidence replaced, messages, dead letters."""
    db.upsert(connection, subjects, prepared.watched)
    db.upsert(connection, incidents, prepared.incidents)
    ids = [row["incident_id"] for row in prepared.incidents]
    for table in (incident_subjects, evidence):
        for at in range(0, len(ids), _CHUNK):
            mine = table.c.group_id == db.group, table.c.incident_id.in_(ids[at : at + _CHUNK])
            connection.execute(table.delete().where(*mine))
    db.insert(connection, incident_subjects, prepared.incident_subjects)
    db.insert(connection, evidence, prepared.evidence)
    for row in prepared.outbox:  # one by one: their numbers are their order
        db.insert_new(connection, outbox, [row], keys=("group_id", "key"))
    db.insert_new(connection, dead_letters, prepared.dead_letters)


def _answer(db: Database, connection: Connection, unit: CommitUnit, epoch: int) -> None:
    """Results of commands: each is applied once."""
    for result in unit.commands:
        changed = connection.execute(
            commands.update()
            .where(commands.c.group_id == db.group, commands.c.number == result.id, commands.c.applied_at.is_(None))
            .values(applied_at=unit.at, ok=result.ok, message=result.message, epoch=epoch)
        ).rowcount
        if changed != 1:
            raise Conflict(f"command {result.id} is not queued: it was applied before, or never asked for")


def _record(db: Database, connection: Connection, unit: CommitUnit, epoch: int) -> int:
    """Access counts, and the commit itself with its trail."""
    for topic, events in sorted(unit.access_events.items()):
        new = {"group_id": db.group, "topic": topic, "events": 0}
        db.insert_new(connection, access_counts, [new])
        mine = access_counts.c.group_id == db.group, access_counts.c.topic == topic
        connection.execute(access_counts.update().where(*mine).values(events=access_counts.c.events + events))
    values = {
        "group_id": db.group,
        "token": unit.token,
        "epoch": epoch,
        "at": unit.at,
        "cluster_id": unit.cluster_id,
        "trail": rows.packed_trail(unit.trail),
    }
    return int(connection.execute(commits.insert().values(values).returning(commits.c.number)).scalar_one())
