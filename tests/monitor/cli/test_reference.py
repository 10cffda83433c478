"""References: listed, shown with their budget, approved with an audit row, and built of files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from monitor.assembly import reference_rules
from monitor.commands import APPROVE, apply_without_daemon
from monitor.config import Config, load_config
from monitor.intake.formats.base import formats
from monitor.panel import ACCOUNT
from monitor.references import in_force, read_reference, reference_row
from monitor.state.unit import CommitUnit
from monitor.watch import COUNTS, Watch, WatchSettings

if TYPE_CHECKING:
    from tests.monitor.cli.conftest import SUBJECT, Place
else:
    SUBJECT = "model:/credit-risk"


def lines(n: int, shift: float = 0.0) -> list[dict[str, Any]]:
    return [
        {"client": "acme", "event_id": f"e{i}",
         "features": {"income": None if i % 10 == 0 else i % 17 + shift, "region": "EU" if i % 3 else "US"},
         "prediction": "yes" if i % 2 else "no", "scores": {"yes": (i % 5) / 5, "no": 1 - (i % 5) / 5}}
        for i in range(n)
    ]  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture
def versions(filled: Place) -> list[str]:
    """Two stored versions, the first approved; the account of the first has spent two alarms. Their hashes."""
    hashes = []
    with filled.store() as store:
        lease = store.acquire_lease("daemon", 30.0)
        assert lease is not None
        for number, shift in enumerate((0.0, 5.0)):
            file = write(filled.directory / f"{number}.jsonl", lines(600, shift))
            rows = read_reference(file, formats()["native"], reference_rules(Config()))
            watch = Watch(SUBJECT, "credit-risk", "", WatchSettings())
            prepared = watch.prepare(rows, "file")
            hashes.append(prepared.reference.version)
            approved = "configuration" if number == 0 else None
            unit = CommitUnit(3.0 + number)
            unit.references = [reference_row(SUBJECT, rows, hashes[-1], "file", 3.0 + number, approved)]
            if number == 0:
                watch.use(prepared)
                assert watch.panel is not None
                watch.panel.account.alarms = 2
                watch.panel.account._changed.update(watch.panel.account.members())
                unit.pages = [page for page in watch.panel.dirty() if page.detector == ACCOUNT]
                assert "totals" in {page.page for page in unit.pages}
            store.commit(unit, lease)
        store.release(lease)
    return hashes


def test_versions_are_listed(filled: Place, versions: list[str]) -> None:
    found = filled.json("reference", "list")
    assert [(r["subject"], r["role"], r["version"], r["rows"], r["origin"], r["approved_by"]) for r in found] == [
        (SUBJECT, "target", 1, 600, "file", "configuration"), (SUBJECT, "target", 2, 600, "file", None),
    ]  # fmt: skip
    assert [(r["in_force"], r["content_hash"]) for r in found] == [(True, versions[0]), (False, versions[1])]
    assert found[0]["created_at"] == "1970-01-01T00:00:03.000Z" and found[1]["approved_at"] is None
    assert filled.json("reference", "list", "--model", "other") == []
    text = filled.run("reference", "list").stdout
    assert "provisional" in text and "configuration" in text


def test_what_is_in_force_is_shown_with_its_budget(filled: Place, versions: list[str]) -> None:
    found = filled.json("reference", "show", "--model", "credit-risk")
    assert found["state"] == "watching" and found["waiting"] == [2]
    assert found["reference"]["version"] == 1 and found["reference"]["approved"] is True
    assert found["reference"]["content_hash"] == versions[0]
    budget = found["budget"]
    assert (budget["alarms"], budget["per"], budget["spent"]) == (1, "30d", 2)
    assert sum(d["share"] for d in budget["detectors"]) == pytest.approx(1)
    drift = next(d for d in budget["detectors"] if d["detector"] == "predictive_drift")
    assert drift["streams"]["feature_drift"] > 0 and drift["streams"]["prediction_drift"] > 0
    paging = {d["detector"]: d for d in found["detectors"]}
    assert "not learnt" in found["learnt"]["season"]["told"]
    least = {one["change"]: one for one in found["learnt"]["smallest_changes"]}
    assert least["mean"]["unit"] == "sd" and least["mean"]["value"] > 0.3
    assert "4,000 more events" in found["learnt"]["sensitivity_reduced"]
    assert paging["predictive_drift"]["can_page"] == "partly" and "7 so far" in paging["predictive_drift"]["reason"]
    assert paging["field_rule"]["can_page"] == "yes" and paging["field_rule"]["runs"]
    assert paging["query_log"]["can_page"] == paging["query_budget"]["can_page"] == "no" and paging["query_log"]["runs"]
    filled.config.write_text(filled.config.read_text() + "detectors: {field_rule: {enabled: false}}\n")
    shown = filled.json("reference", "show", "--model", "credit-risk")["detectors"]
    rule = next(d for d in shown if d["detector"] == "field_rule")
    assert rule["can_page"] == "no" and "switched off" in rule["reason"]
    text = filled.run("reference", "show", "--model", "credit-risk").stdout
    assert "version 1" in text and "Waiting for approval: version 2" in text
    assert "Budget: 1 false alarms in 30d; 2 alarms, true or false, since" in text
    assert "Season: not learnt" in text and "Smallest lasting changes that page" in text


def test_a_model_without_a_reference_is_calibrating_in_plain_words(filled: Place) -> None:
    result = filled.run("reference", "show", "--model", "credit-risk")
    assert result.exit_code == 0 and "Reference: none yet" in result.stdout
    assert "0 of 500 rows" in result.stdout
    found = filled.json("reference", "show", "--model", "credit-risk")
    assert found["learning"] == {"rows": 0, "of": 500, "complete_at": None}
    assert {d["can_page"] for d in found["detectors"]} == {"no"}
    result = filled.run("reference", "show", "--model", "gone")
    assert result.exit_code == 1 and "There is no model gone" in result.stderr


def test_an_approved_version_is_in_force_and_audited(filled: Place, versions: list[str]) -> None:
    arguments = ("reference", "approve", "--model", "credit-risk", "--by", "ann", "--version")
    result = filled.run(*arguments, "2")
    assert result.exit_code == 0, result.stderr
    assert "version 2 approved by ann" in result.stdout and "next starts, takes over or reads" in result.stdout
    with filled.store() as store:
        assert store.verify_audit().ok and store.audit_head().seq == 1
    shown = filled.json("reference", "show", "--model", "credit-risk")
    assert shown["reference"]["version"] == 2 and shown["reference"]["approved_by"] == "ann"
    assert shown["waiting"] == [] and shown["budget"]["spent"] is None  # the stored account is of version 1
    again = filled.run(*arguments, "2")
    assert again.exit_code == 1 and "approved already" in again.stderr
    assert filled.run(*arguments, "1").exit_code == 0  # back to the earlier one
    assert [r["in_force"] for r in filled.json("reference", "list")] == [True, False]


def test_an_approved_version_is_not_in_force_before_the_daemon_has_taken_it(filled: Place, versions: list[str]) -> None:
    taken_up(filled, 0)
    assert filled.run("reference", "approve", "--model", "credit-risk", "--version", "2").exit_code == 0
    listed = filled.json("reference", "list")
    assert [(r["in_force"], r["in_force_next"]) for r in listed] == [(True, False), (False, True)]
    shown = filled.json("reference", "show", "--model", "credit-risk")
    assert (shown["reference"]["version"], shown["next"], shown["waiting"]) == (1, 2, [])
    assert shown["budget"]["spent"] == 2  # of the account that runs
    assert "Version 2 is approved: in force when" in filled.run("reference", "show", "--model", "credit-risk").stdout
    taken_up(filled, 1)
    assert [(r["in_force"], r["in_force_next"]) for r in filled.json("reference", "list")] == [
        (False, False), (True, False)
    ]  # fmt: skip
    shown = filled.json("reference", "show", "--model", "credit-risk")
    assert (shown["reference"]["version"], shown["next"]) == (2, None)


def taken_up(place: Place, number: int) -> None:
    """Store what a daemon stores that watches with this version."""
    watch = Watch(SUBJECT, "credit-risk", "", WatchSettings())
    rows = read_reference(place.directory / f"{number}.jsonl", formats()["native"], reference_rules(Config()))
    watch.use(watch.prepare(rows, "file"))
    with place.store() as store:
        lease = store.acquire_lease("daemon", 30.0)
        assert lease is not None
        store.commit(CommitUnit(9.0, pages=[p for p in watch.dirty() if p.detector == COUNTS]), lease)
        store.release(lease)


def test_an_unknown_version_is_refused_before_it_is_queued(filled: Place, versions: list[str]) -> None:
    result = filled.run("reference", "approve", "--model", "credit-risk", "--version", "3")
    assert result.exit_code == 1 and "no version 3" in result.stderr and "known: 1, 2" in result.stderr
    with filled.store() as store:
        assert store.pending_commands() == []


@pytest.mark.parametrize("arguments", [{}, {"subject": SUBJECT, "version": "2"}, {"subject": "model:/x", "version": 1}])
def test_a_command_that_cannot_be_done_is_answered(filled: Place, arguments: dict[str, Any]) -> None:
    with filled.store() as store:
        number = store.enqueue("ann", APPROVE, arguments)
        lease = store.acquire_lease("cli", 30.0)
        assert lease is not None
        apply_without_daemon(store, lease)
        result = store.command_result(number)
        assert result is not None and not result.ok and store.audit_head().seq == 0


def test_in_force_is_what_was_approved_last_else_the_newest() -> None:
    row = reference_row(SUBJECT, [], "a", "file", 1.0, None)
    assert in_force([]) is None
    assert in_force([row, row._replace(content_hash="b")]) == row._replace(content_hash="b")
    first, second = row._replace(approved_at=9.0), row._replace(approved_at=5.0)
    assert in_force([first, second, row]) is first
    assert in_force([row._replace(role="noise")]) is None


@pytest.mark.parametrize("name", ["made.jsonl", "made.jsonl.gz"])
def test_a_file_is_built_into_the_same_reference_without_identifiers(place: Place, name: str) -> None:
    rows = [*lines(200), {"features": {"income": float("inf"), "region": 7}, "prediction": "no"}]
    source, made = write(place.directory / "in.jsonl.gz", rows), place.directory / name
    found = place.json("reference", "build", str(source), "--model", "m", "--out", str(made))
    fields = {f["name"]: f for f in found["fields"] if f["role"] == "input"}
    assert found["rows"] == 201 and (fields["income"]["kind"], fields["region"]["kind"]) == ("numeric", "categorical")
    assert fields["income"]["missing"] == pytest.approx(20 / 201, abs=1e-5)
    assert fields["income"]["unusable"] == pytest.approx(1 / 201, abs=1e-5)
    assert fields["region"]["unusable"] == pytest.approx(1 / 201, abs=1e-5)
    written = gzip.decompress(made.read_bytes()) if made.suffix == ".gz" else made.read_bytes()
    assert b"acme" not in written and b"e1" not in written
    again = place.json("reference", "build", str(made), "--model", "m")
    assert {f["name"]: f["missing"] for f in again["fields"]} == {f["name"]: f["missing"] for f in found["fields"]}
    result = place.run("reference", "build", str(source), "--model", "m", "--out", str(made))
    assert result.exit_code == 1 and "exists already" in result.stderr
    assert sorted(p.name for p in place.directory.glob(".*")) == []


def test_a_built_reference_of_sound_rows_has_the_same_content(place: Place) -> None:
    source, made = write(place.directory / "in.jsonl", lines(50)), place.directory / "refs" / "new" / "made.jsonl"
    first = place.json("reference", "build", str(source), "--model", "m", "--out", str(made))
    assert place.json("reference", "build", str(made), "--model", "m")["content_hash"] == first["content_hash"]
    text = place.run("reference", "build", str(source), "--model", "m").stdout
    assert "50 rows" in text and "income" in text and "numeric" in text and "10.0%" in text


def test_the_features_of_the_configuration_count(place: Place) -> None:
    place.config.write_text("models: {m: {features: [region]}}\n")
    source = write(place.directory / "in.jsonl", lines(50))
    found = place.json("reference", "build", str(source), "--model", "m")
    assert [f["name"] for f in found["fields"] if f["role"] == "input"] == ["region"]
    assert load_config(place.config).model_settings("m").features == ("region",)


def test_a_bad_row_is_named(place: Place) -> None:
    source = write(place.directory / "in.jsonl", [*lines(2), {"features": [1]}])
    made = place.directory / "made.jsonl"
    result = place.run("reference", "build", str(source), "--model", "m", "--out", str(made))
    assert result.exit_code == 1 and f"{source}:3: " in result.stderr and not made.exists()


def timed(n: int, every: float) -> list[dict[str, Any]]:
    """Rows with times in no order, labels and segments."""
    more = [{"ts": 1_763_625_600.5 + i * every, "label": "no", "segment": "eu"} for i in range(n)]
    return [row | extra for row, extra in zip(lines(n), reversed(more), strict=True)]


def test_each_role_writes_what_it_needs(place: Place) -> None:
    source, made = write(place.directory / "in.jsonl", timed(60, 3_600.0)), place.directory / "made"

    def built(*options: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        made.unlink(missing_ok=True)
        found = place.json("reference", "build", str(source), "--model", "m", "--out", str(made), *options)
        return found, [json.loads(line) for line in made.read_bytes().splitlines()]

    found, rows = built("--role", "noise")
    times = [row["ts"] for row in rows]
    assert times == sorted(times) and len(set(times)) == 60 and {row["label"] for row in rows} == {"no"}
    assert found["role"] == "noise" and found["teaches"] == "noise and season" and found["rows_per_day"] == 24.4
    assert (found["from"], found["to"]) == ("2025-11-20T08:00:00.500Z", "2025-11-22T19:00:00.500Z")
    again = place.json("reference", "build", str(made), "--model", "m", "--role", "noise")
    assert again["content_hash"] == found["content_hash"]
    default, rows = built()
    assert default["role"] == "target" and default["content_hash"] == found["content_hash"] and "ts" in rows[0]
    target, rows = built("--role", "target")
    assert target["teaches"] is None and not any("ts" in row for row in rows) and rows[0]["segment"] == "eu"
    training, rows = built("--role", "training")
    assert training["role"] == "training" and not any({"ts", "label"} & row.keys() for row in rows)
    made.unlink()
    text = place.run("reference", "build", str(source), "--model", "m", "--role", "training", "--out", str(made)).stdout
    assert "name it under models.m.training_rows" in text.replace("\n", " ")


def test_noise_without_times_and_training_rows_of_a_topic_are_refused(place: Place) -> None:
    half = [*timed(20, 60.0), *lines(1)]
    for rows in (lines(20), half, [row | {"ts": 1_763_625_600} for row in lines(20)]):
        source = write(place.directory / "in.jsonl", rows)
        result = place.run("reference", "build", str(source), "--model", "m", "--role", "noise")
        assert result.exit_code == 1 and f"{source}: the noise is learnt" in result.stderr
    result = place.run("reference", "build", "--topic", "t", "--model", "m", "--role", "training")
    assert result.exit_code == 2
