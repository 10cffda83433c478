from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from detectors.base import Batch, Context, Page, StateError, Views
from detectors.queries.query_log import Queries, QueryLog, QueryLogParams
from detectors.views.projection import Projection
from monitor.intake.columns import build_batch, build_reference, infer_schema
from monitor.intake.events import Event
from tests.conformance.streams import credit

ROWS = credit(300, 1)
SCHEMA = infer_schema(ROWS)
REFERENCE = build_reference(ROWS, SCHEMA, "file", "model:/credit")


def batch(events: Sequence[Event], start: int = 0) -> Batch:
    places = [("t", 0, start + i, 0) for i in range(len(events))]
    return build_batch("model:/credit", start, events, places, SCHEMA)


def log(calibration: float | None = None, **params: int) -> QueryLog:
    return QueryLog(Context("model:/credit", REFERENCE, calibration=calibration), QueryLogParams(**params))


def look(made: QueryLog, events: Sequence[Event], start: int = 0) -> Queries:
    columns = batch(events, start)
    views = Views(columns, made.context)
    assert list(made.update(columns, views)) == []
    found: Queries = views.get("queries")
    return found


def test_exact_repeats_are_not_distinct() -> None:
    events = credit(50, 3)
    for i in (10, 20, 49):
        events[i].features = events[4].features
    made = log()
    assert np.flatnonzero(~look(made, events).distinct).tolist() == [10, 20, 49]
    assert not look(made, events[:20], 50).distinct.any()


def test_events_without_a_client_are_not_queries() -> None:
    events = credit(5, 3)
    events[2].client = None
    assert look(log(), events).distinct.tolist() == [True, True, False, True, True]


def test_the_honest_stretch_ends_with_the_declared_time() -> None:
    events = credit(100, 3)
    made = log(calibration=40.0)
    assert look(made, events[:30]).honest.all() and made.calibrating
    rest = look(made, events[30:], 30)
    assert np.flatnonzero(~rest.honest)[0] == 10 and not rest.honest[10:].any() and not made.calibrating


def test_without_a_declared_time_it_ends_after_so_many_queries_or_events() -> None:
    events = credit(100, 3)
    events[7].features = events[3].features
    assert look(log(calibration_queries=20), events).honest.sum() == 21
    assert look(log(calibration_events=30), events).honest.sum() == 30


@pytest.mark.parametrize("cut", [1, 37, 1_400])
def test_the_nearest_is_the_one_that_brute_force_finds(cut: int) -> None:
    events = credit(1_400, 3)
    made = log(calibration_queries=600)
    found = np.concatenate([look(made, events[a : a + cut], a).nearest for a in range(0, 1_400, cut)])
    points = Projection(REFERENCE).points(batch(events)).astype(np.float64)
    size = 300
    for i in range(600, 1_400):
        want = np.sqrt(((points[i] - points[i - size : i]) ** 2).sum(axis=1)).min()
        assert found[i] == pytest.approx(want, rel=1e-3, abs=1e-4)
    assert np.isinf(found[:600]).all()


def test_when_the_ring_settles_the_honest_queries_are_told_as_if_it_had_had_its_size() -> None:
    events = credit(700, 3)
    made = log(calibration_queries=600)
    (names, distances), points = (
        look(made, events).settled or ((), np.zeros(0)),
        Projection(REFERENCE).points(batch(events)),
    )
    assert list(names) == [e.client for e in events[300:600]]
    wide = points.astype(np.float64)
    want = [np.sqrt(((wide[i] - wide[i - 300 : i]) ** 2).sum(axis=1)).min() for i in range(300, 600)]
    assert distances == pytest.approx(np.array(want), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("stop", [100, 650, 900])
def test_a_restored_log_goes_on_as_the_old_one(stop: int) -> None:
    events = credit(1_200, 3)
    one = log(calibration_queries=600)
    pages: dict[str, Page] = {}
    for at in range(0, stop, 50):
        look(one, events[at : at + 50], at)
        pages |= {name: {k: a.copy() for k, a in page.items()} for name, page in one.dirty().items()}
    two = log(calibration_queries=600)
    two.restore(pages)
    for at in range(stop, 1_200, 50):
        a, b = look(one, events[at : at + 50], at), look(two, events[at : at + 50], at)
        assert (a.distinct == b.distinct).all() and (a.nearest == b.nearest).all() and (a.honest == b.honest).all()
        assert (a.settled is None) == (b.settled is None)


def test_pages_that_do_not_fit_are_refused() -> None:
    made = log()
    look(made, credit(200, 3))
    pages = made.dirty()
    with pytest.raises(StateError, match="query ring"):
        log().restore({**pages, "ring0": {k: a[:5] for k, a in pages["ring0"].items()}})
    with pytest.raises(StateError, match="counts"):
        log().restore({name: page for name, page in pages.items() if name != "counts"})
