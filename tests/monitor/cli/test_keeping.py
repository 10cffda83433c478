"""erase, incidents resolve and silence, audit verify, export: without a daemon, this process does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from monitor.cli.app import app
from monitor.intake.identity import Pseudonyms, load_or_create_key
from monitor.state.tables import metadata

if TYPE_CHECKING:
    from tests.monitor.cli.conftest import Place


def everything(place: Place) -> str:
    """All rows of the database, as text."""
    with place.store() as store, store.db.read() as connection:
        return repr([connection.execute(sa.select(table)).all() for table in metadata.sorted_tables])


def names(place: Place) -> Pseudonyms:
    return Pseudonyms(load_or_create_key(place.key_file, create=False))


def test_erase_by_identifier(filled: Place) -> None:
    hidden = names(filled).client("acme")
    assert {c["client"] for c in filled.json("clients", "show", "--model", "credit-risk")} >= {"acme"}
    result = filled.run("erase", "acme", "--yes", "--by", "ann")
    assert (result.exit_code, result.stdout) == (0, f"{hidden} erased\n")
    assert "Counts, detector state and incidents stay" in result.stderr
    shown = filled.json("clients", "show", "--model", "credit-risk")
    assert {(c["client"], c["queries"]) for c in shown} == {(hidden, 5), ("bolt\x1b[2J", 2)}
    with filled.store() as store:
        assert store.identities([hidden]) == {}
        assert store.verify_audit().ok and store.audit_head().seq == 1
    assert "acme" not in everything(filled)


def test_erase_by_pseudonym_needs_no_key(filled: Place) -> None:
    hidden = names(filled).client("acme")
    result = filled.run("erase", hidden, "-y")
    assert result.exit_code == 0, result.stderr
    again = filled.run("erase", hidden, "-y")
    assert again.exit_code == 1 and "no such identity" in again.stderr


def test_erase_asks_first(filled: Place) -> None:
    before = everything(filled)
    result = filled.runner.invoke(app, ["erase", "acme", "--config", str(filled.config)], input="n\n")
    assert result.exit_code == 1 and "nothing was erased" in result.stderr
    assert filled.run("erase", "acme").exit_code == 1  # nobody answers
    assert everything(filled) == before


def test_one_unknown_client_and_nothing_is_erased(filled: Place) -> None:
    before = everything(filled)
    result = filled.run("erase", "acme", "nobody", "--yes")
    assert result.exit_code == 1 and "nobody: no such identity" in result.stderr
    assert everything(filled) == before


def test_resolve(filled: Place) -> None:
    result = filled.run("incidents", "resolve", "inc_open", "--because", "known release", "--by", "ann")
    assert (result.exit_code, result.stdout) == (0, "inc_open resolved by ann\n")
    shown = filled.json("incidents", "show", "inc_open")
    assert (shown["status"], shown["resolution"]) == ("resolved", "resolved by ann: known release")
    assert shown["resolved_at"] is not None
    assert filled.run("incidents", "resolve", "inc_open").exit_code == 1
    assert "There is no incident" in filled.run("incidents", "resolve", "inc_no").stderr


def test_silence_and_end_it(filled: Place) -> None:
    result = filled.run("incidents", "silence", "inc_seen", "--for", "2h")
    assert result.exit_code == 0 and "silenced by" in result.stdout
    shown = filled.json("incidents", "show", "inc_seen")
    assert shown["status"] == "silenced" and shown["silenced_until"] > "2026"
    assert [i["id"] for i in filled.json("incidents", "list", "--status", "silenced")] == ["inc_seen"]
    assert filled.run("incidents", "silence", "inc_seen", "--off").exit_code == 0
    shown = filled.json("incidents", "show", "inc_seen")
    assert (shown["status"], shown["silenced_until"]) == ("open", None)
    assert filled.run("incidents", "silence", "inc_seen", "--off").exit_code == 1


@pytest.mark.parametrize(
    "options", [[], ["--for", "31d"], ["--for", "soon"], ["--for", "0s"], ["--for", "1h", "--off"]]
)
def test_a_silence_has_an_end(filled: Place, options: list[str]) -> None:
    assert filled.run("incidents", "silence", "inc_open", *options).exit_code == 2
    assert filled.json("incidents", "show", "inc_open")["status"] == "open"


def test_the_audit_log_is_verified(filled: Place) -> None:
    assert filled.run("incidents", "ack", "inc_open").exit_code == 0
    result = filled.run("audit", "verify")
    assert result.exit_code == 0 and result.stdout.startswith("ok: 1 rows, head 1:")
    head = filled.json("audit", "verify")["head"]
    assert filled.run("audit", "verify", "--head", head).exit_code == 0
    assert filled.run("audit", "verify", "--head", "x").exit_code == 2
    later = head.replace("1:", "2:", 1)
    cut = filled.run("audit", "verify", "--head", later)
    assert cut.exit_code == 1 and "exported head is row 2" in cut.stderr
    with filled.store() as store, store.db.write() as connection:
        connection.execute(metadata.tables["audit"].update().values(actor="mallory"))
    result = filled.run("audit", "verify", "--output", "json")
    assert result.exit_code == 1 and "row 1 was changed" in result.stderr
    assert json.loads(result.stdout)["ok"] is False


def test_export_prints_or_writes(place: Place, tmp_path: Path) -> None:
    for what, name in (("grafana", "modelwarden.json"), ("prometheus", "modelwarden.rules.yml")):
        printed = place.runner.invoke(app, ["export", what])
        assert printed.exit_code == 0, printed.stderr
        written = place.runner.invoke(app, ["export", what, "--out", str(tmp_path)])
        assert written.exit_code == 0 and written.stdout == ""
        assert (tmp_path / name).read_text(encoding="utf-8") == printed.stdout
        again = place.runner.invoke(app, ["export", what, "--out", str(tmp_path)])
        assert again.exit_code == 1 and "exists already" in again.stderr


def test_the_unit_starts_the_program_that_is_named(place: Place) -> None:
    shown = place.runner.invoke(app, ["export", "systemd", "--program", "/srv/mw/bin/modelwarden"])
    assert shown.exit_code == 0 and "ExecStart=/srv/mw/bin/modelwarden run --config" in shown.stdout
    assert "/opt/modelwarden/bin" not in shown.stdout
    shown = place.run("export", "systemd")
    assert shown.exit_code == 0 and f"modelwarden run --config {place.config}\n" in shown.stdout
    assert "/etc/modelwarden/modelwarden.yaml" not in shown.stdout
    bad = place.runner.invoke(app, ["export", "systemd", "--program", "/a b/modelwarden"])
    assert bad.exit_code == 1 and "blanks" in bad.stderr
