"""`modelwarden backtest`: where its lines go, what it counts, and when it fails."""

from __future__ import annotations

import gzip
import json
import os
import signal
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from monitor.backtest import run_backtest
from monitor.cli.app import app
from monitor.demo.traffic import CreditTraffic, write_events
from monitor.detector_pages import kinds_of
from tests.components.waiting import wait_until

if TYPE_CHECKING:
    from typer.testing import Result

    from tests.monitor.cli.conftest import Place

START = 1_763_625_600.0


@pytest.fixture
def events(tmp_path: Path) -> Path:
    traffic = CreditTraffic(5)
    drift = traffic.events(1_500, START, 50.0) + traffic.events(1_500, START + 60, 50.0, "income")
    write_events(tmp_path / "events.jsonl.gz", drift)
    write_events(tmp_path / "reference.jsonl", traffic.reference(2_000))
    return tmp_path / "events.jsonl.gz"


@pytest.fixture
def reference(events: Path) -> Path:
    return events.with_name("reference.jsonl")


def backtest(place: Place, *arguments: Path | str) -> Result:
    return place.runner.invoke(app, ["backtest", *map(str, arguments)])


def test_lines_go_to_stdout_and_the_counts_to_stderr(place: Place, events: Path, reference: Path) -> None:
    result = backtest(place, events, "--reference", reference)
    assert result.exit_code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(r["kind"], r["model"]) for r in rows] == [("feature_drift", "credit-risk")]
    assert result.stderr == "3,000 lines, 0 rejected, 1 incident\n"


def test_out_is_written_once_and_whole(place: Place, events: Path, reference: Path) -> None:
    out = place.directory / "incidents.jsonl"
    out.write_text("old\n")
    failed = backtest(place, events, "gone.jsonl", "--reference", reference, "--out", out)
    assert failed.exit_code == 1 and out.read_text() == "old\n"
    shown = backtest(place, events, "--reference", reference).stdout
    done = backtest(place, events, "--reference", reference, "--out", out)
    assert (done.exit_code, done.stdout, out.read_text()) == (0, "", shown)
    assert backtest(place, events, "--reference", reference, "--out", "-").stdout == shown
    assert not [p for p in place.directory.iterdir() if p.suffix == ".part"]


@pytest.mark.parametrize("what", ["events", "reference", "training", "services", "configuration", "configured", "link"])
def test_out_never_replaces_what_is_read(place: Place, what: str) -> None:
    names = ("events", "reference", "training", "services", "configured")
    files = {name: place.directory / f"{name}.jsonl" for name in names}
    for file in files.values():
        file.write_text("{}\n")
    place.config.write_text(place.config.read_text() + "models: {m: {reference: configured.jsonl}}\n")
    files |= {"configuration": place.config, "link": place.directory / "link"}
    files["link"].symlink_to(files["events"])
    held = {name: file.read_bytes() for name, file in files.items()}
    options: list[Path | str] = [
        "--reference",
        files["reference"],
        "--training-rows",
        files["training"],
        "--services",
        files["services"],
    ]
    result = backtest(place, files["events"], *options, "--config", place.config, "--out", files[what])
    assert result.exit_code == 1 and "would be lost: name another file" in result.stderr
    assert {name: file.read_bytes() for name, file in files.items()} == held


def test_out_is_packed_where_its_name_says_so(place: Place, events: Path, reference: Path) -> None:
    out = place.directory / "incidents.jsonl.gz"
    shown = backtest(place, events, "--reference", reference).stdout
    assert backtest(place, events, "--reference", reference, "--out", out).exit_code == 0
    assert gzip.decompress(out.read_bytes()).decode() == shown


def test_a_service_account_that_is_declared_twice_is_refused(place: Place, events: Path) -> None:
    services = place.directory / "services.json"
    services.write_text('{"k8f": "backfill", "k8f": "batch"}')
    result = backtest(place, events, "--services", services)
    assert result.exit_code == 1 and "'k8f' is there twice" in result.stderr


def test_out_may_be_a_pipe(place: Place, events: Path, reference: Path) -> None:
    pipe = place.directory / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    result = backtest(place, events, "--reference", reference, "--out", pipe)
    assert result.exit_code == 0 and b"feature_drift" in os.read(reader, 65_536)
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_milder_incidents_are_left_out(place: Place, events: Path, reference: Path) -> None:
    result = backtest(place, events, "--reference", reference, "--min-severity", "critical")
    assert (result.exit_code, result.stdout) == (0, "") and "0 incidents" in result.stderr


def test_rejected_lines_are_counted_and_do_not_fail(place: Place, events: Path, reference: Path) -> None:
    bad = place.directory / "bad.jsonl"
    bad.write_bytes(b"nonsense\n[]\nnonsense\n")
    result = backtest(place, events, bad, "--reference", reference)
    assert result.exit_code == 0 and "3 rejected (not_json 2, not_an_object 1)" in result.stderr


def test_access_events_are_said_not_to_be_judged_for_misuse(place: Place) -> None:
    log = place.directory / "access.jsonl"
    log.write_text(
        "".join(f'{{"type": "access", "ts": {START + i}, "resource": "/x", "status": 401}}\n' for i in range(3))
    )
    said = backtest(place, log).stderr
    assert "3 access events" in said and "not judged yet" in said
    unraised = {"credential_attack", "access_policy", "access_novelty"}
    assert all(kind in said for kind in unraised) and unraised.isdisjoint(
        {k for kinds in kinds_of().values() for k in kinds}
    )


@pytest.mark.parametrize("out", ["nowhere/x.jsonl", "."])
def test_a_place_that_cannot_be_written_fails_before_the_work(place: Place, events: Path, out: str) -> None:
    result = backtest(place, events, "--out", out)
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1 and "lines" not in result.stderr


def test_too_few_events_to_judge_are_said(place: Place, events: Path) -> None:
    few = place.directory / "few.jsonl"
    write_events(few, CreditTraffic(5).events(10, START, 50.0))
    result = backtest(place, few)
    assert result.exit_code == 0 and "too few events" in result.stderr


def test_a_configuration_that_is_there_is_used_and_said(
    place: Place, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.config.write_text("models: {credit-risk: {reference: reference.jsonl}}\n")
    monkeypatch.chdir(place.directory)
    result = backtest(place, events)
    assert result.exit_code == 0 and "feature_drift" in result.stdout
    assert "settings of modelwarden.yaml" in result.stderr


def test_events_come_from_standard_input(place: Place, events: Path, reference: Path) -> None:
    expected = backtest(place, events, "--reference", reference)
    line = ["backtest", "-", "--reference", str(reference)]
    raw = events.read_bytes()
    text = gzip.decompress(raw) if events.suffix == ".gz" else raw
    done = place.runner.invoke(app, line, input=text)
    assert (done.exit_code, done.stdout) == (0, expected.stdout)
    assert done.stdout
    twice = place.runner.invoke(app, [*line, "-"], input=text)
    assert twice.exit_code == 1 and "named twice" in twice.stderr


def test_follow_reads_on_and_prints_at_an_interrupt(events: Path, reference: Path) -> None:
    growing = events.with_name("growing.jsonl")
    lines = gzip.decompress(events.read_bytes()).splitlines(keepends=True)
    growing.write_bytes(b"".join(lines[:1_000]) + lines[1_000][:20])
    read = threading.Event()
    seen = 0

    def follow() -> bool:
        nonlocal seen
        seen += 1
        if seen == 3:
            with growing.open("ab") as file:
                file.write(lines[1_000][20:] + b"".join(lines[1_001:]))
        if seen == 8:
            read.set()
        return not read.is_set()

    found = run_backtest([growing], reference, follow=follow)
    assert found.records == 3_000
    assert [i.kind for i in found.incidents] == ["feature_drift"]


def test_follow_ends_with_results_at_sigint(place: Place, events: Path) -> None:
    growing = place.directory / "growing.jsonl"
    growing.write_bytes(gzip.decompress(events.read_bytes()))
    usual = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        wait_until(lambda: signal.getsignal(signal.SIGINT) is not usual, 60, "a handler of SIGINT")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = backtest(place, growing, "--follow")
    thread.join()
    assert result.exit_code == 0
    assert " lines, 0 rejected" in result.stderr
    assert signal.getsignal(signal.SIGINT) is usual
