"""Effect sizes describe what moved; a stable column has next to none."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.drift.effects import median_of, stability_index
from detectors.views.bins import NumericColumn


def test_the_stability_index_is_that_of_the_definition_and_small_where_nothing_moved() -> None:
    expected = np.array([0.25, 0.25, 0.25, 0.25])
    assert stability_index(expected, np.array([250.0] * 4)) == pytest.approx(0, abs=1e-9)
    seen = np.array([100.0, 200.0, 300.0, 400.0])
    by_hand = sum((q - 0.25) * np.log(q / 0.25) for q in seen / 1_000)
    assert stability_index(expected, seen) == pytest.approx(by_hand, rel=0.02)
    rng = np.random.default_rng(0)
    fine = rng.multinomial(1_000, np.full(60, 1 / 60)).astype(np.float64)
    assert stability_index(np.full(60, 1 / 60), fine) < 0.05


def test_an_empty_bin_makes_no_infinity() -> None:
    assert np.isfinite(stability_index(np.array([1.0, 0.0]), np.array([0.0, 50.0])))


def test_the_median_lies_between_the_edges_of_its_bin() -> None:
    column = NumericColumn("x", False, np.array([0.0, 1.0, 2.0]))
    assert median_of(column, np.array([0, 10.0, 30, 0, 0, 0])) == pytest.approx(1 + 1 / 3)
    assert median_of(column, np.array([10.0, 1, 1, 0, 0, 0])) == 0.0
    assert median_of(column, np.array([0, 1.0, 1, 10, 0, 0])) == 2.0
    assert median_of(column, np.array([0, 0, 0, 0, 5.0, 5])) is None
