from __future__ import annotations

from dataclasses import replace

import numpy as np

from detectors.base import Context, Finding, Views
from detectors.queries.query_budget import QUIET, QueryBudget, QueryBudgetParams
from detectors.queries.query_log import Queries
from monitor.intake.columns import build_batch, infer_schema
from tests.conformance.streams import credit

CONTEXT = Context("model:/credit")
START = 1_763_625_600.0
ROWS = credit(4_000, 1)
SCHEMA = infer_schema(ROWS)


class Run:
    """Queries by (client, seconds since the start); the first `honest` are the calibration."""

    def __init__(self, **params: float) -> None:
        self.detector = QueryBudget(CONTEXT, QueryBudgetParams(**params))  # type: ignore[arg-type]
        self.findings: list[Finding] = []

    def ask(self, who: list[tuple[str, float]], honest: bool = False, repeats: bool = False, one_in: int = 1) -> Run:
        for begin in range(0, len(who), 1_000):
            part = who[begin : begin + 1_000]
            events = credit(len(part), 1)
            for event, (client, at) in zip(events, part, strict=True):
                event.client, event.time = client, START + at
            batch = build_batch("model:/credit", begin, events, [("t", 0, i, 0) for i in range(len(part))], SCHEMA)
            batch = replace(batch, one_in=one_in)
            views = Views(batch, CONTEXT)
            yes, no, far = np.ones(len(part), np.bool_), np.zeros(len(part), np.bool_), np.full(len(part), np.inf)
            views.put("queries", Queries(no if repeats else yes, yes if honest else no, far, no))
            self.findings += list(self.detector.update(batch, views))  # type: ignore[arg-type]
        return self


def peers(hours: int = 12) -> list[tuple[str, float]]:
    """Fifty clients of 20 queries an hour each, and a job of 300."""
    made = [(f"c_{i % 50}", i * 3.6) for i in range(1_000 * hours)]
    made += [("c_job", i * 12.0) for i in range(300 * hours)]
    return sorted(made, key=lambda pair: pair[1])


def stream(client: str, n: int, every: float, start: float) -> list[tuple[str, float]]:
    return [(client, start + i * every) for i in range(n)]


LATER = 13 * 3_600.0


def test_who_asks_far_more_than_its_peers_is_told_and_let_go() -> None:
    run = Run().ask(peers(), honest=True).ask(stream("c_thief", 2_500, 1.0, LATER))
    (found,) = run.findings
    assert (found.kind, found.severity, found.subjects[0].id) == ("unusual_client", "info", "c_thief")
    (measure,) = found.measures
    assert measure.observed == measure.n == 4 * measure.expected + 1 and measure.unit == "distinct queries an hour"
    last = START + LATER + 2_499
    assert list(run.detector.advance(last + QUIET - 1)) == []
    (gone,) = run.detector.advance(last + QUIET + 1)
    assert isinstance(gone, Finding) and (gone.action, gone.cause) == ("recover", found.cause)


def test_each_query_of_a_sample_counts_for_several() -> None:
    (found,) = Run().ask(peers(), honest=True).ask(stream("c_thief", 625, 4.0, LATER), one_in=4).findings
    (whole,) = Run().ask(peers(), honest=True).ask(stream("c_thief", 2_500, 1.0, LATER)).findings
    assert found.measures[0].observed == whole.measures[0].observed and abs(found.time - whole.time) <= 4.0
    calm = Run().ask(peers(), honest=True).ask(stream("c_thief", 625, 4.0, LATER))
    assert calm.findings == []


def test_a_busy_client_of_the_calibration_has_its_own_budget() -> None:
    run = Run().ask(peers(), honest=True).ask(stream("c_job", 300 * 3, 12.0, LATER))
    assert run.findings == []


def test_slow_and_steady_is_told_by_the_day() -> None:
    quick = Run(day=1_000_000).ask(peers()[:12_000], honest=True)
    slow = Run().ask([pair for pair in peers() if pair[0] != "c_job"], honest=True)
    for run in (quick, slow):
        run.ask(stream("c_slow", 3_600, 20.0, 24 * 3_600.0))
    assert quick.findings == []
    assert [f.measures[0].unit for f in slow.findings] == ["distinct queries a day"]


def test_repeats_are_within_every_budget() -> None:
    run = Run().ask(peers(), honest=True).ask(stream("c_load", 3_000, 0.1, LATER), repeats=True)
    assert run.findings == []


def test_one_query_of_a_wrong_time_neither_hides_nor_alarms() -> None:
    wrong = [("c_0", 365 * 86_400.0), ("c_1", -365 * 86_400.0)]
    calm = Run().ask(peers(), honest=True).ask(wrong + stream("c_9", 100, 36.0, LATER))
    assert calm.findings == []
    thief = Run().ask(peers(), honest=True).ask(wrong + stream("c_thief", 2_500, 1.0, LATER))
    assert [f.subjects[0].id for f in thief.findings] == ["c_thief"]
