from __future__ import annotations

import numpy as np
import pytest

from detectors.base import Batch, ClientEvidence, Context, Finding
from detectors.queries.conformal import ConformalParams
from detectors.queries.near_duplicate_queries import NearDuplicateQueries
from detectors.queries.outlier_queries import OutlierQueries
from detectors.queries.training_row_queries import TrainingRowParams, TrainingRowQueries
from monitor.intake.columns import build_batch, infer_schema
from monitor.suspicion import QUIET, REPEAT, Suspicion
from tests.conformance.streams import credit

CONTEXT = Context("model:/credit")
TESTS = (
    NearDuplicateQueries(CONTEXT, ConformalParams()),
    OutlierQueries(CONTEXT, ConformalParams()),
    TrainingRowQueries(CONTEXT, TrainingRowParams()),
)


def suspicion(**services: str) -> Suspicion:
    return Suspicion(TESTS, 1.0, services)


def batch(client: str, n: int = 10, start: int = 0, later: float = 0.0) -> Batch:
    events = credit(n, 1)
    for event in events:
        event.client, event.time = client, event.time + later
    return build_batch("model:/credit", start, events, [("t", 0, i, 0) for i in range(n)], infer_schema(events))


def judged(made: Suspicion, columns: Batch, test: int = 1, log_e: float = 4.0) -> list[Finding]:
    given = np.full((len(columns), 1), log_e)
    name = TESTS[test].name
    made.add(ClientEvidence(name, given, columns.time, columns.client, columns.clients, (name,), (0.18,)))
    return list(made.judge(columns))


def test_a_client_is_named_once_with_who_and_why() -> None:
    made, columns = suspicion(), batch("c_x", start=70)
    (finding,) = judged(made, columns)
    assert (finding.kind, finding.severity, finding.account) == ("model_extraction", "warning", "attack")
    assert [(s.type, s.id) for s in finding.subjects] == [("client", "c_x")]
    assert finding.row == 4 and finding.position == 74 and finding.onset == columns.time[0]
    share, evidence = finding.measures
    assert (share.observed, share.expected, share.n) == (1.0, 0.18, 5) and evidence.observed > 1e8
    assert judged(made, batch("c_x", later=60)) == []
    assert len(judged(made, batch("c_x", later=REPEAT + 60))) == 1
    assert made.named == 1


@pytest.mark.parametrize(
    ("test", "kind"), [(0, "adversarial_input"), (1, "model_extraction"), (2, "membership_inference")]
)
def test_the_kind_is_what_most_evidence_speaks_for(test: int, kind: str) -> None:
    assert judged(suspicion(), batch("c_x"), test)[0].kind == kind


def test_further_tests_feed_the_same_incident() -> None:
    made = suspicion()
    first, second = judged(made, batch("c_x"), 1)[0], judged(made, batch("c_x", later=60), 0)[0]
    assert first.kind == second.kind and first.cause == second.cause and second.detector == TESTS[0].name


def test_a_declared_service_is_told_and_does_not_page() -> None:
    assert judged(suspicion(c_x="nightly backfill"), batch("c_x"))[0].severity == "info"


def test_a_client_is_let_go_after_a_quiet_day_and_named_again() -> None:
    made, columns = suspicion(), batch("c_x")
    (named,) = judged(made, columns)
    last = float(columns.time[-1])
    assert list(made.advance(last + QUIET / 2)) == []
    (gone,) = made.advance(last + QUIET + 60)
    assert gone.action == "recover" and gone.cause == named.cause and made.named == 0
    assert len(judged(made, batch("c_x", later=QUIET + 120))) == 1


def test_restored_it_goes_on() -> None:
    one = suspicion()
    judged(one, batch("c_x", 3))
    pages = one.dirty()
    two = suspicion()
    two.restore(pages)
    assert [f.row for f in judged(two, batch("c_x", later=10))] == [1]
    pages |= one.dirty()
    assert len(judged(one, batch("c_x", later=10))) == 1
    pages |= one.dirty()
    three = suspicion()
    three.restore(pages)
    assert three.named == 1 and judged(three, batch("c_x", later=20)) == []


def test_the_threshold_follows_the_traffic() -> None:
    made = suspicion()
    assert made.account.threshold == pytest.approx(np.log(1e8))
    made._events, made._first, made._last = 10_000_000_000, 0.0, 86_400.0
    list(made.judge(batch("c_x", 1, later=-1e9)))
    assert made.account.threshold == pytest.approx(np.log(3 * 3e11), rel=1e-3)


def test_one_event_of_a_wrong_time_does_not_move_the_volume_for_good() -> None:
    made = suspicion()
    for day in range(3):
        list(made.judge(batch("c_x", 1_000, later=day * 86_400.0)))
    before = made.account.n30
    list(made.judge(batch("c_x", 1, later=2e9)))
    list(made.judge(batch("c_x", 1, later=3 * 86_400.0)))
    assert before / 2.5 < made.account.n30 < 2.5 * before
