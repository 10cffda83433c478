from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import F64
from detectors.moves.honest import queries_of
from detectors.moves.relations import Query
from detectors.moves.threads import OPEN, Threads
from tests.detectors.moves.worlds import asked, honest_rows, scale


def queries(n: int) -> list[Query]:
    return queries_of(asked(honest_rows(n, 1)), scale())


def by_hand(means: list[F64]) -> F64:
    """The CUSUM over threads, one after the other."""
    total = np.zeros(2)
    for mean in means:
        total = np.maximum(0.0, total + np.log(mean))
    return total


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(0.01, 50.0), min_size=1, max_size=4), min_size=1, max_size=OPEN + 12))
def test_evidence_is_the_cusum_of_the_threads_means(members: list[list[float]]) -> None:
    q = queries(1)[0]
    threads = Threads(2)
    for values in members:
        thread = threads.begin(q)
        for value in values:
            thread.take(q, "free", False, np.array([value, 1 / value]))
    means = [np.array([np.mean(v), np.mean(1 / np.array(v))]) for v in members]
    found = threads.evidence()
    assert found == pytest.approx(by_hand(means), abs=1e-9)
    for k in np.flatnonzero(found > 0).tolist():
        assert found[k] == pytest.approx(sum(np.log(mean[k]) for mean in means[-threads.bearing(k) :]), abs=1e-9)
    assert len(threads.open) <= OPEN


def test_a_star_says_nothing_and_its_row_is_the_majority() -> None:
    one, other = queries(2)
    threads = Threads(1)
    thread = threads.begin(one)
    thread.take(one, "free", False, np.array([9.0]))
    for k in range(9):
        thread.take(other if k % 3 == 0 else one, "mask", False, np.array([9.0]))
    assert thread.star and threads.evidence()[0] == 0.0
    assert np.array_equal(thread.row, one.cells)


def test_threads_of_one_hidden_row_become_one() -> None:
    q = queries(1)[0]
    threads = Threads(1)
    for _ in range(5):
        threads.begin(q).take(q, "free", False, np.array([3.0]))
    assert threads.merge([1, 2, 4]) == 1
    assert [t.id for t in threads.open] == [0, 1, 3] and threads.open[1].n == 3
    assert threads.open[1].total[0] == 9.0
