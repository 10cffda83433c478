from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import F64
from detectors.moves.honest import queries_of
from detectors.moves.relations import Query, Relation
from detectors.moves.window import Window
from tests.detectors.moves.test_trail import bisections, differences
from tests.detectors.moves.worlds import CENTRE, WIDTH, asked, honest, honest_rows, scale


def window() -> Window:
    return Window(WIDTH, scale().projection.dimensions, scale().numbers)


def queries(rows: F64) -> list[Query]:
    return queries_of(asked(rows, 0.1), scale(), honest())


def related(rows: F64, parts: list[int]) -> list[Relation | None]:
    """Relations of the queries, asked for in parts of at most 64."""
    made, held, out = queries(rows), window(), list[Relation | None]()
    for begin, end in zip([0, *parts], [*parts, len(rows)], strict=True):
        found = held.relate(made[begin:end], scale())
        for q, relation in zip(made[begin:end], found, strict=True):
            held.take(q, relation, 0)
        out += found
    return out


def rows_of(what: str, seed: int) -> F64:
    """A hundred queries of a kind."""
    rows = honest_rows(100, seed)
    if what == "line":
        return np.concatenate([bisections(18, seed + k) for k in range(5)])
    if what == "difference":
        return differences(10, 1.0)[:100]
    if what == "mask":
        kept = np.random.default_rng(seed).random(rows.shape) < 0.6
        return np.where(kept, honest_rows(1, seed + 9), rows)
    return rows


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["honest", "line", "difference", "mask"]),
    st.integers(0, 9),
    st.lists(st.integers(1, 99), max_size=6, unique=True),
)
def test_how_queries_are_cut_makes_no_difference(what: str, seed: int, cuts: list[int]) -> None:
    rows = rows_of(what, seed)
    one = related(rows, list(range(1, len(rows))))
    parts = sorted({cut for cut in cuts if cut < len(rows)} | {50})
    assert related(rows, parts) == one


def test_the_first_query_of_all_relates_to_none() -> None:
    assert related(honest_rows(3, 1), [1, 2])[0] is None


def test_the_nearest_the_previous_and_the_least_changed_are_told_by_how_far_back_they_are() -> None:
    rows = honest_rows(6, 1)
    rows[5] = rows[2]
    rows[5, 3] += 0.5
    relation = related(rows, [])[5]
    assert relation is not None
    assert (relation.nearest, relation.edited, relation.changed) == (3, 3, 1)
    points = np.array([q.point for q in queries(rows)])
    assert relation.step == pytest.approx(float(np.linalg.norm(points[5] - points[4])), rel=1e-12)
    assert relation.distance == pytest.approx(float(np.linalg.norm(points[5] - points[2])), rel=1e-12)


def test_only_the_last_64_are_remembered() -> None:
    rows = honest_rows(80, 2)
    rows[65], rows[79] = rows[0] + 0.01, rows[10] + 0.01
    relations = related(rows, [40])
    for relation in (relations[65], relations[79]):
        assert relation is not None
        assert relation.nearest <= 64
        assert relation.distance > scale().near


def test_a_point_between_two_others_is_on_their_line() -> None:
    a, b = CENTRE - 11.0, CENTRE + 13.0
    rows = np.array([a, b, a + 0.37 * (b - a), a + np.arange(WIDTH)])
    relations = related(rows, [])
    assert [r.line for r in relations if r is not None] == [False, True, False]


def test_finite_differences_are_mirrored_pairs_and_slope_probes_are_probes() -> None:
    relations = related(differences(10, 1.0)[:40], [20])
    assert sum(r.mirror for r in relations if r is not None) > 10
    rows = np.tile(honest_rows(1, 4), (1 + WIDTH, 1))
    rows[np.arange(1, 1 + WIDTH), np.arange(WIDTH)] += 1e-3 * scale().near
    assert [r.probe for r in related(rows, [4]) if r is not None] == [False] + [True] * (WIDTH - 1)
