from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from detectors.base import F64, Context, Page, StateError, Views
from detectors.moves import watch_list
from detectors.moves.asked import ACROSS
from detectors.moves.second_stage import Naming, SecondStage
from detectors.moves.watch_list import IDLE, WATCHED
from detectors.queries.query_log import Queries
from monitor.intake.columns import build_batch, infer_schema
from monitor.intake.events import Event
from monitor.state.codec import decode, encode
from tests.detectors.moves.test_trail import bisections
from tests.detectors.moves.worlds import events, honest_rows, reference

LEAST = math.log(1e6)
SCHEMA = infer_schema(events(honest_rows(600, 1)))


class Run:
    """A second stage and the events it has seen. Evidence is that of the outlier test alone."""

    def __init__(self) -> None:
        self.context = Context("model:/m", reference())
        self.stage = SecondStage(self.context)
        self.position = 0
        self.found: list[tuple[str, int, str]] = []

    def feed(self, given: Sequence[Event], level: F64, log_e: float = 0.0, clean: bool = False, cut: int = 200) -> Run:
        for begin in range(0, len(given), cut):
            part = given[begin : begin + cut]
            self.batch(part, level[begin : begin + cut], log_e, clean)
        return self

    def batch(self, part: Sequence[Event], level: F64, log_e: float, clean: bool) -> None:
        n = len(part)
        places = [("t", 0, self.position + i, 0) for i in range(n)]
        views = Views(build_batch("model:/m", self.position, part, places, SCHEMA), self.context)
        yes, none = np.ones(n, np.bool_), np.zeros(n, np.bool_)
        views.put("queries", Queries(yes, yes if clean else none, np.full(n, np.inf), none))
        evidence = {ACROSS[0]: np.full(n, log_e)}
        for naming in self.stage.judge(views, evidence, level, LEAST, frozenset()):
            self.found.append((naming.client, self.position + naming.row, naming.named.evidence))
        self.position += n

    def calibrated(self) -> Run:
        for k in range(20):
            given = events(honest_rows(30, 100 + k), f"c_{k}")
            self.feed(given, np.zeros(30), clean=True)
        return self

    def stored(self) -> dict[str, Page]:
        return {name: decode(encode(page, 1)) for name, page in self.stage.dirty().items()}


def test_a_client_without_evidence_is_not_watched() -> None:
    run = Run().calibrated().feed(events(bisections(40, 1)), np.zeros(42))
    assert run.found == [] and run.stage.watched == 0


def test_what_was_asked_before_the_watch_began_counts() -> None:
    """The trail begins with the client's earlier queries: the search is named at once when it comes under watch."""
    level = np.where(np.arange(42) >= 30, WATCHED + 1, 0.0)
    for cut in (7, 31, 42):
        run = Run().calibrated()
        start = run.position
        run.feed(events(bisections(40, 1)), level, cut=cut)
        assert run.found[0] == ("c_x", start + 30, "line")


@pytest.mark.parametrize("cut", [1, 13, 60])
def test_the_cut_of_the_events_does_not_matter(cut: int) -> None:
    given = [e for pair in zip(events(bisections(58, 2)), events(honest_rows(60, 3), "c_h"), strict=True) for e in pair]
    level = np.full(120, WATCHED + 1)
    one = Run().calibrated().feed(given, level, cut=120)
    two = Run().calibrated().feed(given, level, cut=cut)
    assert one.found[:1] == two.found[:1] != []


@pytest.mark.parametrize("cut", [1, 7, 50])
def test_nor_does_it_where_a_client_is_quiet_for_a_while_and_comes_back(cut: int) -> None:
    rng = np.random.default_rng(cut)
    gaps = rng.choice([0, 1, IDLE - 1, IDLE, IDLE + 1, 40], 24)
    level = np.concatenate([np.append(np.zeros(gap), WATCHED + 1) for gap in gaps])
    given = events(honest_rows(len(level), 9))
    one = Run().calibrated().feed(given, level, cut=len(level))
    two = Run().calibrated().feed(given, level, cut=cut)
    assert one.found == two.found and one.stage.clients == two.stage.clients == {"c_x"}
    trails = [{k: v.tolist() for k, v in run.stored()["trail0"].items()} for run in (one, two)]
    assert trails[0] == trails[1]


def test_restored_while_queries_wait_it_goes_on() -> None:
    given, level = events(bisections(40, 4)), np.full(42, WATCHED + 1)
    level[3:9] = 0.0
    whole = Run().calibrated().feed(given, level)
    one = Run().calibrated().feed(given[:7], level[:7])
    two = Run()
    two.position = one.position
    two.stage.restore(one.stored())
    two.feed(given[7:], level[7:])
    assert two.found == whole.found != []


def test_restored_it_goes_on() -> None:
    given, level = events(bisections(40, 4)), np.full(42, WATCHED + 1)
    whole = Run().calibrated().feed(given, level)
    for stop in (0, 2, 5):
        one = Run().calibrated()
        pages = one.stored()
        one.feed(given[:stop], level[:stop])
        pages |= one.stored()
        two = Run()
        two.position = one.position
        two.stage.restore(pages)
        two.feed(given[stop:], level[stop:])
        assert two.found == whole.found != []


def test_state_of_another_reference_is_refused_and_it_starts_anew() -> None:
    run = Run().calibrated().feed(events(honest_rows(5, 1)), np.full(5, WATCHED + 1))
    pages = run.stored()
    pages["honest"]["version"] = np.zeros(3, np.uint8)
    with pytest.raises(StateError, match="start anew"):
        run.stage.restore(pages)
    assert run.stage.watched == 0 and run.found == []
    assert not len(run.stage.dirty()["trail0"]["watched"])  # what was stored is taken away


def test_a_trail_is_let_go_after_a_while_without_evidence() -> None:
    level = np.concatenate([np.full(3, WATCHED + 1), np.zeros(IDLE)])
    run = Run().calibrated().feed(events(honest_rows(IDLE + 2, 5)), level[:-1])
    assert run.stage.watched == 1
    run.feed(events(honest_rows(2, 6)), np.zeros(2))
    assert run.stage.watched == 0 and "trail0" in run.stage.dirty()


def test_a_flood_of_unusual_clients_keeps_those_with_most_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_list, "TRAIL_BYTES", 0)
    run = Run().calibrated()
    run.feed(events(honest_rows(3, 7), "c_worst"), np.full(3, 90.0))
    for k in range(40):
        run.feed(events(honest_rows(1, 200 + k), f"c_flood{k}"), np.full(1, WATCHED + 1))
    assert run.stage.watched <= 16 and "c_worst" in run.stage.clients


def test_nobody_is_named_before_the_calibration_is_over() -> None:
    run = Run().feed(events(bisections(40, 1)), np.full(42, 99.0), 5.0, clean=True)
    assert run.found == [] and run.stage.watched == 0


def test_known_attackers_are_not_watched() -> None:
    run = Run().calibrated()
    given = events(bisections(40, 1))
    views = Views(build_batch("model:/m", 0, given, [("t", 0, i, 0) for i in range(42)], SCHEMA), run.context)
    none = np.zeros(42, np.bool_)
    views.put("queries", Queries(~none, none, np.full(42, np.inf), none))
    found: list[Naming] = run.stage.judge(views, {}, np.full(42, 99.0), LEAST, {"c_x"})
    assert found == [] and run.stage.watched == 0
