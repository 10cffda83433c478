from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from alerts.incidents import Incident, IncidentSubject
from monitor.demo.follow import Follower
from monitor.state.store import StateStore, open_store
from monitor.state.unit import CommitUnit, SubjectRow

AT = 1_795_161_600.0  # 2026-11-20 08:00:00Z
Write = Callable[[CommitUnit], None]


def incident(name: str, severity: str = "warning") -> Incident:
    return Incident(
        id=name, subject="model:/m", model="m", tenant="", kind="feature_drift", account="drift", cause="",
        severity=severity, severity_max=severity, status="open", model_version=None, opened_at=AT, resolved_at=None,  # type: ignore[arg-type]
        onset=AT, why="income [EUR]: mean 40 → 28", subjects=(IncidentSubject("feature", "income", AT, None),),
        detectors=(), measures=(), atlas=(), last_position=1,
    )  # fmt: skip


def resolved(opened: Incident, after: float) -> Incident:
    return replace(opened, status="resolved", resolved_at=opened.opened_at + after, resolution="recovered")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'demo.db'}"


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def follower(url: str, lines: list[str]) -> Iterator[Follower]:
    made = Follower(url, "g", lambda text: lines.append(text.plain))
    yield made
    made.close()


@pytest.fixture
def write(url: str) -> Iterator[Write]:
    """Creates the database as a daemon does, and commits to it."""
    stores: list[StateStore] = []

    def commit(unit: CommitUnit) -> None:
        if not stores:
            stores.append(open_store(url, "g", create=True))
        lease = stores[0].acquire_lease("test", 60.0, take_over=True)
        assert lease is not None
        stores[0].commit(unit, lease)

    yield commit
    for store in stores:
        store.close()


def test_says_nothing_before_there_is_a_database(follower: Follower, lines: list[str]) -> None:
    follower.poll()
    assert follower.counts() == {} and lines == [] and not follower.incidents


def test_tells_each_incident_once_as_it_opens_and_once_as_it_closes(
    follower: Follower, write: Write, lines: list[str]
) -> None:
    first = incident("i1")
    write(CommitUnit(AT, incidents=[first]))
    follower.poll()
    follower.poll()
    assert len(lines) == 1
    assert lines[0].startswith("08:00:00Z  incident opened: warning feature_drift in m: feature income\n")
    assert lines[0].endswith("income [EUR]: mean 40 → 28")
    write(CommitUnit(AT, incidents=[resolved(first, 30.0)]))
    follower.poll()
    follower.poll()
    assert lines[1:] == ["08:00:30Z  incident closed: warning feature_drift in m: feature income (recovered)"]
    assert [i.status for i in follower.incidents.values()] == ["resolved"]


def test_an_incident_that_opened_and_closed_between_two_looks_is_told_in_full(
    follower: Follower, write: Write, lines: list[str]
) -> None:
    write(CommitUnit(AT, incidents=[resolved(incident("i1", "critical"), 0.2), incident("i2", "info")]))
    follower.poll()
    told = [line.partition(" feature_drift")[0] for line in lines]
    assert told == [
        "08:00:00Z  incident opened: critical",
        "08:00:00Z  incident closed: critical",
        "08:00:00Z  incident opened: info",
    ]


def test_counts_are_those_of_the_database(follower: Follower, write: Write) -> None:
    row = SubjectRow("model:/m", "m", "", 12, 0, 0, 12, 3, True, "watching", "off", False, AT)
    write(CommitUnit(AT, subjects=[row]))
    (model,) = follower.counts()["models"]
    assert (model["predictions"], model["clients"]) == (12, 3)
