"""The audit log: rows chained by HMAC-SHA-256, so that who can write to the database but has no key cannot rewrite it.

Each hash covers the row, its number and the hash before it. The number and hash of the last row are kept beside the
chain, so that rows cut off at the end are missed; whoever exports that head also notices a chain and head rolled
back together.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from monitor.state.columns import json_text, storable_text
from monitor.state.database import Database
from monitor.state.errors import StoreError
from monitor.state.settings import remember, setting, store_setting
from monitor.state.tables import audit
from monitor.state.unit import AuditRow

_KEY_ID = "audit_key_id"
_HEAD = "audit_head"
_START = "0" * 64
_PAGE = 1_000


class AuditHead(NamedTuple):
    """The last row of the chain."""

    seq: int
    hash: str


class AuditCheck(NamedTuple):
    """Outcome of a verification. `problem` says what is wrong and where; `rows` were found good before it."""

    ok: bool
    rows: int
    head: AuditHead
    problem: str = ""


def append(db: Database, connection: Connection, key: bytes | None, rows: Sequence[AuditRow]) -> None:
    """Add rows to the chain, inside the caller's transaction, which must hold the group's lease row."""
    if not rows:
        return
    if key is None:
        raise StoreError("an act must be audited, but the store was opened without an audit key")
    known = remember(db, connection, _KEY_ID, key_id(key))
    if known != key_id(key):
        raise StoreError("the audit key is not the one this database was begun with; restore the old key file")
    head = _stored_head(db, connection)
    for row in rows:
        values = _values(db.group, head, row)
        values["hash"] = _hash(key, values)
        connection.execute(audit.insert(), values)
        head = AuditHead(values["seq"], values["hash"])
    store_setting(db, connection, _HEAD, f"{head.seq}:{head.hash}")


def verify(db: Database, key: bytes, expected: AuditHead | None = None) -> AuditCheck:
    """Recompute the whole chain. `expected` is a head exported earlier: the chain must contain it."""
    with db.read() as connection:
        known = setting(db, connection, _KEY_ID)
        head, rows = AuditHead(0, _START), 0
        if known is not None and known != key_id(key):
            return AuditCheck(False, 0, head, "the key is not the one this chain was made with")
        for row in _rows(db, connection):
            values = row._asdict()
            if values["seq"] != head.seq + 1:
                return AuditCheck(False, rows, head, f"row {head.seq + 1} is missing")
            if values["prev_hash"] != head.hash or values["hash"] != _hash(key, values):
                return AuditCheck(False, rows, head, f"row {values['seq']} was changed")
            head, rows = AuditHead(values["seq"], values["hash"]), rows + 1
            if expected is not None and expected.seq == head.seq and expected.hash != head.hash:
                return AuditCheck(False, rows, head, f"row {head.seq} is not the exported one")
        problem = _missing_end(head, _stored_head(db, connection), expected)
    return AuditCheck(not problem, rows, head, problem)


def head_of(db: Database) -> AuditHead:
    """The present head, to be exported where the database's owner cannot change it."""
    with db.read() as connection:
        return _stored_head(db, connection)


def key_id(key: bytes) -> str:
    """What of a key may be stored: enough to tell keys apart."""
    return hmac.new(key, b"modelwarden audit key id", hashlib.sha256).hexdigest()[:32]


def _missing_end(head: AuditHead, stored: AuditHead, expected: AuditHead | None) -> str:
    if stored != head:
        return f"the chain ends at row {head.seq}, its recorded head is row {stored.seq}"
    if expected is not None and expected.seq > head.seq:
        return f"the chain ends at row {head.seq}, the exported head is row {expected.seq}"
    return ""


def _stored_head(db: Database, connection: Connection) -> AuditHead:
    text = setting(db, connection, _HEAD)
    seq, _, digest = (text or f"0:{_START}").partition(":")
    if not seq.isdecimal():
        return AuditHead(-1, digest)  # somebody wrote here; never equal to a real head
    return AuditHead(int(seq), digest)


def _values(group: str, head: AuditHead, row: AuditRow) -> dict[str, Any]:
    """The columns exactly as the database will give them back; the hash is over these."""
    return {
        "group_id": group,
        "seq": head.seq + 1,
        "at": float(row.at),
        "actor": storable_text(row.actor, 200),
        "action": storable_text(row.action, 64),
        "subject": storable_text(row.subject, 512),
        "detail": json_text(row.detail),
        "prev_hash": head.hash,
    }


def _hash(key: bytes, values: dict[str, Any]) -> str:
    names = ("prev_hash", "group_id", "seq", "at", "actor", "action", "subject", "detail")
    return hmac.new(key, json_text([values[name] for name in names]).encode(), hashlib.sha256).hexdigest()


def _rows(db: Database, connection: Connection) -> Any:
    query = sa.select(audit).where(audit.c.group_id == db.group).order_by(audit.c.seq)
    return connection.execution_options(yield_per=_PAGE).execute(query)
