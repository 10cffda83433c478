"""What is read from the database: status, clients, incidents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from alerts.advice import FIRST_STEP
from monitor.cli.app import app
from monitor.state.unit import CommitUnit
from monitor.watch import Watch, WatchSettings

if TYPE_CHECKING:
    from tests.monitor.cli.conftest import Place

BOLT = "bolt\x1b[2J"


def test_status_is_what_the_store_says(filled: Place) -> None:
    with filled.store() as store:
        expected = store.status()
    expected["models"][0]["owner"] = None  # the configuration says who, not the database
    assert filled.json("status") == expected | {"dry_run": None}
    model = expected["models"][0]
    assert (model["model"], model["predictions"], model["clients"]) == ("credit-risk", 7, 2)


def test_a_model_without_an_event_has_no_last_event_also_after_a_restart(filled: Place) -> None:
    watch = Watch("model:/idle", "idle", "", WatchSettings())
    with filled.store() as store:
        for _ in range(2):
            lease = store.acquire_lease("daemon", 30.0)
            assert lease is not None
            store.commit(CommitUnit(3.0, pages=watch.dirty(), subjects=[watch.row()]), lease)
            store.release(lease)
            counted = {row.subject: row for row in store.load_subjects()}
            watch = Watch("model:/idle", "idle", "", WatchSettings())
            watch.restore(store.load_pages("model:/idle"), counted["model:/idle"])
            assert watch.watermark == 0.0
    shown = {m["model"]: m["watermark"] for m in filled.json("status")["models"]}
    assert shown["idle"] is None and shown["credit-risk"] is not None


def test_status_as_tables(filled: Place) -> None:
    result = filled.run("status")
    assert result.exit_code == 0 and "No daemon is active." in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["credit-risk", "watching", "off", "7", "100%", "0", "0", "2", "2001-09-09", "01:46:40Z"] in lines
    assert ["predictions", "0", "8", "8", "7", "1", "0", "0", "0"] in lines
    with filled.store() as store:
        assert store.acquire_lease("host:1", 30.0) is not None
    assert "Active: host:1, epoch 2, since " in filled.run("status").stdout


def test_a_note_on_a_model_stands_under_the_models(filled: Place) -> None:
    watch = Watch("model:eu/idle", "idle", "eu", WatchSettings())
    with filled.store() as store:
        lease = store.acquire_lease("daemon", 30.0)
        assert lease is not None
        row = watch.row()._replace(note="Reduced sensitivity: 3 of 13 numeric columns wander.")
        store.commit(CommitUnit(3.0, pages=watch.dirty(), subjects=[row]), lease)
    assert "eu/idle: Reduced sensitivity: 3 of 13 numeric columns wander." in filled.run("status").stdout
    notes = {m["model"]: m["note"] for m in filled.json("status")["models"]}
    assert notes == {"idle": row.note, "credit-risk": None}


def test_clients_in_clear_with_their_counts_and_times(place: Place) -> None:
    hidden = place.fill()
    shown = place.json("clients", "show", "--model", "credit-risk")
    assert shown == [
        {
            "client": "acme", "pseudonym": hidden["acme"], "queries": 5, "error": 0,
            "first_seen": "1970-01-01T00:01:40.000Z", "last_seen": "1970-01-01T00:01:44.000Z",
        },
        {
            "client": BOLT, "pseudonym": hidden[BOLT], "queries": 2, "error": 0,
            "first_seen": "1970-01-01T00:01:45.000Z", "last_seen": "1970-01-01T00:01:46.000Z",
        },
    ]  # fmt: skip
    assert len(place.json("clients", "show", "--model", "credit-risk", "--limit", "1")) == 1


def test_a_hostile_client_name_cannot_move_the_cursor(filled: Place) -> None:
    result = filled.run("clients", "show", "--model", "credit-risk")
    assert result.exit_code == 0 and "bolt\\x1b[2J" in result.stdout
    shown = filled.run("clients", "show", "--model", "credit-risk", "--output", "json").stdout
    assert "\x1b" not in result.stdout + shown


def test_without_the_key_clients_are_pseudonyms(place: Place) -> None:
    hidden = place.fill()
    place.key_file.unlink()
    shown = place.json("clients", "show", "--model", "credit-risk")
    assert [row["client"] for row in shown] == [hidden["acme"], hidden[BOLT]]
    assert not place.key_file.exists()


def test_with_another_key_clients_are_pseudonyms_and_it_says_so(place: Place) -> None:
    hidden = place.fill()
    place.key_file.write_bytes(b"z" * 64)
    result = place.run("clients", "show", "--model", "credit-risk")
    assert result.exit_code == 0 and hidden["acme"] in result.stdout and "acme" not in result.stdout
    assert "not the one of this database" in result.stderr


@pytest.mark.parametrize(("arguments", "asked"), [(["nope"], "nope"), (["credit-risk", "--tenant", "t"], "tenant t")])
def test_an_unknown_model_is_named_with_those_that_are_known(filled: Place, arguments: list[str], asked: str) -> None:
    result = filled.run("clients", "show", "--model", *arguments)
    assert result.exit_code == 1 and asked in result.stderr and "Known: credit-risk." in result.stderr


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ([], ["inc_over", "inc_seen", "inc_open"]),
        (["--open"], ["inc_seen", "inc_open"]),
        (["--status", "resolved"], ["inc_over"]),
        (["--status", "resolved", "--status", "open"], ["inc_over", "inc_open"]),
        (["--open", "--model", "credit-risk"], ["inc_seen", "inc_open"]),
        (["--kind", "unusual_client"], ["inc_seen"]),
        (["--limit", "1"], ["inc_over"]),
        (["--model", "nope"], []),
    ],
)
def test_incidents_are_filtered_newest_first(filled: Place, arguments: list[str], ids: list[str]) -> None:
    assert [row["id"] for row in filled.json("incidents", "list", *arguments)] == ids
    table = filled.run("incidents", "list", *arguments).stdout
    assert [name for name in ("inc_over", "inc_seen", "inc_open") if name in table] == ids


def test_incidents_name_clients_in_clear(filled: Place) -> None:
    seen = next(row for row in filled.json("incidents", "list") if row["id"] == "inc_seen")
    assert [(s["type"], s["id"]) for s in seen["subjects"]] == [("client", "acme")]


def test_an_unknown_kind_is_a_usage_error(filled: Place) -> None:
    result = filled.run("incidents", "list", "--kind", "bad_weather")
    assert result.exit_code == 2 and "feature_drift" in result.stderr


def test_one_incident_with_its_evidence(filled: Place) -> None:
    row = filled.json("incidents", "show", "inc_open")
    assert row["id"] == "inc_open" and row["evidence"][0]["observed"] == 3.0
    assert row["evidence"][0]["distribution"] == {
        "edges": [0.0, 2.0, 4.0, 8.0], "before": [0.0, 0.25, 0.25, 0.5, 0.0, 0.0, 0.0],
        "after": [0.0, 0.5, 0.25, 0.25, 0.0, 0.0, 0.0], "quantiles": {"p05": [0.4, 0.2], "p50": [4.0, 2.0]}, "n": 75,
    }  # fmt: skip
    assert row["evidence"][1]["distribution"]["bins"] == ["EU", "(rarer)", "(new)", "(missing)"]
    table = filled.run("incidents", "show", "inc_open").stdout
    for part in ("0.4 → 0.2", "4 → 2", " ▄▄█", " █▄▄", "EU 100.0 → 80.0 %", "(new) 0.0 → 20.0 %"):
        assert part in table
    for part in ("income: mean 4 → 3 over 75 events", "predictive_drift", "income\\x1b]0;x", "1970-01-01 00:16:40Z"):
        assert part in table
    assert "\x1b" not in table


@pytest.mark.parametrize("command", ["show", "ack"])
def test_an_unknown_incident_exits_1(filled: Place, command: str) -> None:
    result = filled.run("incidents", command, "inc_x")
    assert result.exit_code == 1 and result.stderr == "modelwarden: There is no incident inc_x.\n"


def test_the_group_of_the_configuration_is_the_one_shown(filled: Place) -> None:
    filled.config.write_text(filled.config.read_text().replace("group: g", "group: other"))
    assert filled.json("incidents", "list") == []
    assert filled.runner.invoke(app, ["status", "--config", str(filled.config)]).exit_code == 0


def test_a_dry_run_shows_who_would_have_been_paged(filled: Place) -> None:
    assert filled.json("status")["dry_run"] is None
    assert not any(i["would_page"] for i in filled.json("incidents", "list"))
    filled.config.write_text(filled.config.read_text() + "notify: off\n")
    found = filled.json("incidents", "list")
    paging = [i for i in found if i["would_page"]]
    assert paging and all((i["severity_max"] != "info") == i["would_page"] for i in found)
    assert filled.json("status")["dry_run"]["pages"] == len(paging)
    assert "would have paged" in filled.run("incidents", "list").stdout
    assert "Would have paged" in filled.run("status").stdout


def test_an_incident_in_text_says_what_to_do_first(filled: Place) -> None:
    row = filled.json("incidents", "show", "inc_open")
    assert row["what_to_do"] == FIRST_STEP[row["kind"]]
    shown = filled.run("incidents", "show", "inc_open").stdout
    assert f"What to do: {row['what_to_do']}" in " ".join(shown.split())
