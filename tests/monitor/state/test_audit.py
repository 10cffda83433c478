"""Each single change of the audit table is found (the key is not in the database)."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from monitor.state.audit import AuditHead
from monitor.state.errors import StoreError
from monitor.state.lease import Lease
from monitor.state.store import StateStore, open_store
from monitor.state.unit import AuditRow, CommitUnit


def rows(n: int) -> list[AuditRow]:
    detail = {"share": 0.1 * n, "note": "a\0b \ud800", "nan": float("nan")}
    return [AuditRow(100.0 + n / 3, "alice", "ack", f"inc_{n}", detail), AuditRow(n, "b" * 900, "resolve", "x\0", {})]


@pytest.fixture
def audited(store: StateStore, lease: Lease) -> StateStore:
    """A store with six audit rows from three commits."""
    for n in range(3):
        store.commit(CommitUnit(at=1.0, audit=rows(n)), lease)
    return store


def edit(store: StateStore, statement: str) -> None:
    with store.db.write() as connection:
        assert connection.execute(sa.text(statement)).rowcount >= 1


def test_an_untouched_chain_is_good(audited: StateStore) -> None:
    check = audited.verify_audit()
    assert check.ok, check.problem
    assert check.rows == 6
    assert check.head == audited.audit_head()
    assert check.head.seq == 6


def test_an_empty_chain_is_good(store: StateStore) -> None:
    assert store.verify_audit().ok
    assert store.audit_head().seq == 0


EDITS = {
    "actor": "UPDATE audit SET actor = 'mallory' WHERE seq = 3",
    "action": "UPDATE audit SET action = 'silence' WHERE seq = 1",
    "subject": "UPDATE audit SET subject = 'inc_9' WHERE seq = 3",
    "time": "UPDATE audit SET at = at + 0.000001 WHERE seq = 6",
    "detail": "UPDATE audit SET detail = '{}' WHERE seq = 3",
    "hash": "UPDATE audit SET hash = prev_hash WHERE seq = 4",
    "odd hash": "UPDATE audit SET hash = 'ä' WHERE seq = 4",
    "previous": "UPDATE audit SET prev_hash = hash WHERE seq = 4",
    "first deleted": "DELETE FROM audit WHERE seq = 1",
    "middle deleted": "DELETE FROM audit WHERE seq = 3",
    "last deleted": "DELETE FROM audit WHERE seq = 6",
    "all deleted": "DELETE FROM audit",
    "moved": "UPDATE audit SET seq = 9 WHERE seq = 6",
    "copied": "INSERT INTO audit SELECT group_id, 7, at, actor, action, subject, detail, hash, hash FROM audit"
    " WHERE seq = 6",
    "moved to another group": "UPDATE audit SET group_id = 'h' WHERE seq = 2",
    "head": "UPDATE settings SET value = '5:abc' WHERE key = 'audit_head'",
    "odd head": "UPDATE settings SET value = 'nonsense' WHERE key = 'audit_head'",
    "no head": "DELETE FROM settings WHERE key = 'audit_head'",
}


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_is_found(name: str, audited: StateStore) -> None:
    edit(audited, EDITS[name])
    check = audited.verify_audit()
    assert not check.ok
    assert check.problem


@pytest.mark.parametrize("pair", [(1, 2), (3, 5), (5, 6)])
def test_reordered_rows_are_found(pair: tuple[int, int], audited: StateStore) -> None:
    for was, now in ((pair[0], 99), (pair[1], pair[0]), (99, pair[1])):
        edit(audited, f"UPDATE audit SET seq = {now} WHERE seq = {was}")
    assert not audited.verify_audit().ok


def test_a_chain_rolled_back_with_its_head_is_found_by_the_exported_head(audited: StateStore, lease: Lease) -> None:
    old = audited.audit_head()
    audited.commit(CommitUnit(at=1.0, audit=rows(9)), lease)
    exported = audited.audit_head()
    assert audited.verify_audit(expected=exported).ok
    assert audited.verify_audit(expected=old).ok  # an older head is still in the chain
    edit(audited, f"DELETE FROM audit WHERE seq > {old.seq}")
    edit(audited, f"UPDATE settings SET value = '{old.seq}:{old.hash}' WHERE key = 'audit_head'")
    assert audited.verify_audit().ok
    assert "exported head is row 8" in audited.verify_audit(expected=exported).problem
    assert not audited.verify_audit(expected=AuditHead(3, "0" * 64)).ok


def test_another_key_is_told_apart(audited: StateStore) -> None:
    url = audited.db.url.render_as_string(hide_password=False)
    other = open_store(url, "g", audit_key=b"another")
    assert "key" in other.verify_audit().problem
    other.close()
    none = open_store(url, "g")
    with pytest.raises(StoreError, match="key"):
        none.verify_audit()
    none.close()
