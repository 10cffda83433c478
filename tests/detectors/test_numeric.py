from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import ndtri
from scipy.stats import chi2

from detectors.base import F64, Cell
from detectors.numeric import (
    Finder,
    bin_numbers,
    clip_limit,
    clipped,
    exact_scores,
    log_mgf_excess,
    normal_quantile,
    normal_scores,
    quantile_edges,
    support,
    trimmed_chi2_means,
    valid,
)

hostile = hnp.arrays(np.float64, st.integers(0, 200), elements=st.floats(allow_nan=False, allow_infinity=False))


@given(hostile.filter(len), hostile, st.sampled_from([1.0, 1e-300, 1e300, np.pi]))
@settings(deadline=None)
def test_the_finder_counts_the_edges_below_as_a_search_does(reference: F64, values: F64, scale: float) -> None:
    with np.errstate(over="ignore"):
        edges = quantile_edges(np.clip(reference * scale, -1.7e308, 1.7e308), 60)
    near = np.nan_to_num(np.concatenate([edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)]))
    values = np.concatenate([values, near, [1e308, -1e308, 0.0, -0.0, 5e-324]])
    np.testing.assert_array_equal(Finder(edges).bins(values), np.searchsorted(edges, values, side="left"))


@pytest.mark.parametrize("law", ["normal", "lognormal", "exponential"])
def test_the_finder_has_a_table_for_usual_columns(law: str) -> None:
    values = getattr(np.random.default_rng(1), law)(size=2_000)
    edges = quantile_edges(values, 60)
    finder = Finder(edges)
    assert finder.quick
    np.testing.assert_array_equal(finder.bins(values), np.searchsorted(edges, values, side="left"))


def test_normal_quantile_agrees_with_scipy() -> None:
    p = np.concatenate([np.logspace(-300, -2, 60), np.linspace(0.01, 0.99, 99), 1 - np.logspace(-15, -2, 30)])
    np.testing.assert_allclose(normal_quantile(p), ndtri(p), rtol=1e-12, atol=1e-12)


def test_trimmed_chi2_means_agree_with_scipy() -> None:
    nu = np.arange(1, 402)
    np.testing.assert_allclose(trimmed_chi2_means(401), chi2.cdf(chi2.ppf(0.9, nu), nu + 2) / 0.9, rtol=1e-10)


@settings(max_examples=60, deadline=None)
@given(hostile, st.integers(8, 60))
def test_every_reference_value_falls_into_an_inner_bin(values: np.ndarray, bins: int) -> None:
    edges = quantile_edges(values, bins)
    assert len(edges) >= 2 or len(np.unique(values)) <= 1
    assert (np.diff(edges) > 0).all() and len(edges) <= bins + 2
    index = bin_numbers(values, np.zeros(len(values), np.uint8), edges)
    assert ((index >= 1) & (index <= len(edges) - 1)).all()


def test_a_flag_has_a_bin_for_each_of_its_values() -> None:
    edges = quantile_edges(np.array([0.0, 1.0] * 50), 10)
    assert bin_numbers(np.array([0.0, 1.0]), np.zeros(2, np.uint8), edges).tolist() == [1, 2]


def test_an_amount_that_is_often_zero_has_a_bin_for_zero() -> None:
    rng = np.random.default_rng(1)
    amounts = np.where(rng.random(1_000) < 0.6, 0.0, rng.lognormal(size=1_000))
    edges = quantile_edges(amounts, 60)
    index = bin_numbers(np.array([-1.0, 0.0, 1e-9, amounts.max(), 1e308]), np.zeros(5, np.uint8), edges)
    assert index.tolist() == [0, 1, 2, len(edges) - 1, len(edges)]


def test_cells_without_a_number_have_bins_of_their_own() -> None:
    edges = quantile_edges(np.arange(100.0), 10)
    status = np.array([Cell.NULL, Cell.ABSENT, Cell.NOT_FINITE, Cell.MISTYPED, Cell.VALID, Cell.VALID], np.uint8)
    index = bin_numbers(np.array([0.0, 0.0, 0.0, 0.0, np.nan, -np.inf]), status, edges)
    missing, wrong = len(edges) + 1, len(edges) + 2
    assert index.tolist() == [missing, missing, wrong, wrong, wrong, wrong]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308, -1e308])
def test_clipping_keeps_squares_finite(value: float) -> None:
    values = np.array([[value], [1.0]])
    ok = valid(values, np.zeros((2, 1), np.uint8))
    kept = clipped(values, ok, np.array([clip_limit(np.array([1e308]))]))
    assert np.isfinite(kept * kept).all() and kept[1, 0] == 1.0


def test_the_support_of_a_column_leaves_out_what_is_absurd_and_nothing_else() -> None:
    rng = np.random.default_rng(3)
    usual = rng.normal(size=500), np.exp(3 * rng.normal(size=5_000)), np.repeat([0.0, 1.0], [990, 10]), np.full(90, 7.0)
    for values in usual:
        assert support(values) == (values.min(), values.max())
        for absurd in (1e308, -1e308, 1e12):
            assert support(np.append(values, absurd)) == (values.min(), values.max())
    assert support(np.array([1e308, -1e308, 0.0])) == (-1e308, 1e308)
    assert support(np.zeros(0)) == (-np.inf, np.inf)


def test_normal_scores_rise_and_share_ties() -> None:
    share = np.array([0.0, 0.5, 0.0, 0.3, 0.2])
    scores = normal_scores(share, 100)
    assert (np.diff(scores) >= 0).all()
    assert scores[1] == pytest.approx(ndtri(0.25))


def test_sums_of_exact_scores_do_not_depend_on_order_even_in_float32() -> None:
    rng = np.random.default_rng(2)
    scores = exact_scores(np.clip(rng.standard_normal(25) * 4, -24, 24)).astype(np.float32)
    sums = {float(np.add.reduce(rng.permutation(scores), dtype=np.float32)) for _ in range(200)}
    assert sums == {float(scores.astype(np.float64).sum())}


def test_log_mgf_excess_is_that_of_the_exact_law() -> None:
    """Of a fair coin: ψ(t) = log cosh t, below Gaussian, so no excess; of a rare indicator there is one."""
    bets = np.array([0.75, -2.0, 5.0])
    assert log_mgf_excess(np.array([-1.0, 1.0]), np.array([0.5, 0.5]), bets, 25).tolist() == [0.0, 0.0, 0.0]
    p, t = 0.1, 2.0 / 5 / np.sqrt(0.09)
    exact = 25 * np.log(0.9 * np.exp(-t * p) + p * np.exp(t * 0.9)) - 2.0
    assert log_mgf_excess(np.array([0.0, 1.0]), np.array([0.9, 0.1]), np.array([2.0]), 25)[0] == pytest.approx(exact)
