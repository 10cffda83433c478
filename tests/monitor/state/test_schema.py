from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from monitor.state import schema
from monitor.state.database import Database, begin_write
from monitor.state.errors import SchemaError, StoreError
from monitor.state.schema import VERSION_TABLE, prepare, require_current, schema_state, upgrade
from monitor.state.store import open_store
from monitor.state.tables import metadata


def set_revision(db: Database, revision: str) -> None:
    with begin_write(db.engine) as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = :revision"), {"revision": revision})


def test_metadata_and_migrations_agree(store_url: str) -> None:
    db = Database(store_url, "g")
    upgrade(db.engine)
    with db.engine.connect() as connection:
        # SQLite has no identity columns, which Alembic would report as a default that is missing.
        options = {"compare_type": True, "compare_server_default": db.postgres, "version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        checks = {check["name"] for check in sa.inspect(connection).get_check_constraints("offsets")}
    assert checks == {"ck_offsets_conserved"}
    db.engine.dispose()


def test_states_of_a_database(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    db = Database(store_url, "g")
    assert schema_state(db.engine) == "empty"
    with pytest.raises(SchemaError, match="modelwarden migrate"):
        require_current(db.engine)
    prepare(db.engine)
    assert schema_state(db.engine) == "current"
    upgrade(db.engine)  # again: nothing to do
    set_revision(db, "9999")
    assert schema_state(db.engine) == "newer"
    for refused in (prepare, upgrade, require_current):
        with pytest.raises(SchemaError, match="newer version"):
            refused(db.engine)
    db.engine.dispose()


def test_older_tables_are_upgraded_on_sqlite_only(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    db = Database(store_url, "g")
    prepare(db.engine)
    upgrades: list[str] = []
    monkeypatch.setattr(schema, "_state", lambda connection: "older")
    monkeypatch.setattr(command, "upgrade", lambda config, revision: upgrades.append(revision))
    with pytest.raises(SchemaError, match="run `modelwarden migrate`"):
        require_current(db.engine)
    if db.postgres:
        with pytest.raises(SchemaError, match="run `modelwarden migrate`"):
            prepare(db.engine)
        assert upgrades == []
        upgrade(db.engine)  # what `modelwarden migrate` does
    else:
        prepare(db.engine)
    assert upgrades == ["head"]
    db.engine.dispose()


def test_downgrade_leaves_nothing(store_url: str) -> None:
    db = Database(store_url, "g")
    upgrade(db.engine)
    with begin_write(db.engine) as connection:
        command.downgrade(schema.config(connection), "base")
    assert set(sa.inspect(db.engine).get_table_names()) <= {VERSION_TABLE, "sqlite_sequence"}
    assert schema_state(db.engine) == "empty"
    db.engine.dispose()


def test_a_failed_migration_leaves_nothing(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    db = Database(store_url, "g")
    real = command.upgrade

    def broken(config: object, revision: str) -> None:
        real(config, revision)  # type: ignore[arg-type]
        raise RuntimeError("killed")

    monkeypatch.setattr(command, "upgrade", broken)
    with pytest.raises(RuntimeError, match="killed"):
        upgrade(db.engine)
    assert schema_state(db.engine) == "empty"
    assert sa.inspect(db.engine).get_table_names() == []
    monkeypatch.undo()
    upgrade(db.engine)
    assert schema_state(db.engine) == "current"
    db.engine.dispose()


def test_two_daemons_may_create_the_tables_at_once(store_url: str) -> None:
    errors: list[BaseException] = []

    def start() -> None:
        try:
            open_store(store_url, "g", create=True).close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    open_store(store_url, "g").close()


def test_readers_do_not_create_a_database(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(SchemaError, match="modelwarden run"):
        open_store(f"sqlite:///{path}", "g")
    assert not path.exists()


def test_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    open_store(f"sqlite:///{path}", "g", create=True).close()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://h/d", "nonsense", ""])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(StoreError, match=r"store\.url"):
        open_store(url, "g", create=True)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no/such"):
        open_store(f"sqlite:///{tmp_path}/no/such/dir.db", "g", create=True)


def test_passwords_stay_out_of_errors() -> None:
    with pytest.raises(StoreError) as caught:
        open_store("postgresql+psycopg://user:hunter2@127.0.0.1:1/db", "g", create=True)
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
