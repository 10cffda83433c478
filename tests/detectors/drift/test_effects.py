"""Effect sizes describe what moved; a stable column has next to none."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.drift.effects import jensen_shannon, median_of, quantile_of, stability_index, transport
from detectors.drift.profile import LEVELS, MOST_BINS, profile_of
from detectors.numeric import bin_numbers, quantile_edges
from detectors.views.bins import CategoryColumn, NumericColumn


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


def moved(rows: int, shift: float) -> tuple[NumericColumn, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A column of 60 bins, shares of its reference, counts of values moved by `shift`, and both samples."""
    rng = np.random.default_rng(1)
    before, after = rng.normal(0, 2, rows), rng.normal(shift, 2, rows)
    column = NumericColumn("x", False, quantile_edges(before, 60))
    status = np.zeros(rows, np.uint8)
    share = np.bincount(bin_numbers(before, status, column.edges), minlength=column.bins) / rows
    count = np.bincount(bin_numbers(after, status, column.edges), minlength=column.bins).astype(np.float64)
    return column, share, count, before, after


def test_distances_are_those_of_the_samples() -> None:
    column, share, count, _, _ = moved(20_000, 1.0)
    assert transport(column, share, count, 2.0) == pytest.approx(0.5, abs=0.03)
    assert jensen_shannon(share, count) == pytest.approx(0.209, abs=0.02)  # of N(0, 1) and N(.5, 1), numerically
    assert transport(column, share, share * 100, 2.0) == pytest.approx(0.0, abs=1e-9)
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1e6])) == pytest.approx(1.0, abs=1e-3)
    assert transport(column, share, np.zeros(column.bins), 2.0) is None and transport(column, share, count, 0.0) is None


def test_a_profile_is_small_and_true() -> None:
    column, share, count, before, after = moved(20_000, 1.0)
    count[-2] += 5_000  # missing
    told = profile_of(column, share, count)
    assert len(told.before) == len(told.after) == len(told.edges) + 3 <= MOST_BINS
    assert sum(told.before) == pytest.approx(1, abs=1e-4) and sum(told.after) == pytest.approx(1, abs=1e-4)
    assert told.n == 25_000 and told.after[-2] == pytest.approx(0.2)
    for at, edge in enumerate(told.edges):
        assert sum(told.before[: at + 1]) == pytest.approx((before <= edge).mean(), abs=1e-4)
        assert sum(told.after[: at + 1]) == pytest.approx((after <= edge).mean() * 0.8, abs=1e-4)
    assert [q for q, _, _ in told.quantiles] == list(LEVELS)
    for level, was, now in told.quantiles[:-1]:  # the last lies beyond what the reference knows
        assert was == pytest.approx(np.quantile(before, level), abs=0.1)
        assert now == pytest.approx(np.quantile(after, level), abs=0.1)


def test_a_profile_of_a_category_names_its_bins() -> None:
    column = CategoryColumn("c", False, ("EU", "US" * 50), 0, ("EU",), {}, np.zeros(0, np.int16))
    told = profile_of(column, np.array([0.7, 0.3, 0.0, 0.0, 0.0]), np.array([10.0, 20.0, 0.0, 70.0, 0.0]))
    assert told.names == ("EU", "US" * 30, "(rarer)", "(new)", "(missing)")
    assert told.after == (0.1, 0.2, 0.0, 0.7, 0.0) and not told.edges and not told.quantiles


def test_infinite_edges_and_no_number_at_all_are_told_as_numbers() -> None:
    column = NumericColumn("x", False, np.array([-np.inf, -1.7e308, 1.7e308]))
    told = profile_of(column, np.array([0, 0.5, 0.5, 0, 0, 0]), np.array([0, 0, 0, 0, 9.0, 0]))
    assert np.isfinite(told.edges).all() and told.quantiles == () and told.after[-2] == 1.0
    assert quantile_of(column, np.zeros(6), 0.5) is None
    assert transport(column, np.array([0, 0.5, 0.5, 0, 0, 0]), np.array([0, 9.0, 0, 0, 0, 0]), 1.0) is None
