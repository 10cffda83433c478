"""Shares of errors: their value, and what chance makes of a window."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.traffic.shares import Usual, errors_of, share_value


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_value_keeps_its_errors_and_is_zero_without_one(errors: int, more: int) -> None:
    assert errors_of(share_value(errors, errors + more), errors + more) == errors
    assert share_value(0, more) == 0


def exact(errors: int, requests: int, share: float) -> float:
    chance = [math.comb(requests, k) * share**k * (1 - share) ** (requests - k) for k in range(requests + 1)]
    return -NormalDist().inv_cdf(sum(chance[errors + 1 :]) + chance[errors] / 2)


@pytest.mark.parametrize(("errors", "requests"), [(3, 30), (30, 30), (8, 100), (60, 400)])
def test_the_score_is_that_of_the_binomial_law_above_the_usual_share(errors: int, requests: int) -> None:
    usual = Usual(1_000, 20_000)
    share = 1_000.5 / 20_001
    share += 2.5 * math.sqrt(share * (1 - share) / 20_001)
    wanted = exact(errors, requests, share)
    assert usual.most(errors, requests) == pytest.approx(max(wanted, 0.0), abs=1e-6)


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.integers(0, 10**7), st.integers(0, 10**7))
def test_the_score_is_finite_and_zero_without_errors(errors: float, more: float, now: int, besides: int) -> None:
    usual = Usual(errors, errors + more)
    assert usual.most(0, besides) == 0
    assert 0 <= usual.most(now, now + besides) < 40


def test_the_usual_share_follows_the_history() -> None:
    usual = Usual()
    for _ in range(1_000):
        usual.learn(1, 10, 100)
    for _ in range(1_000):
        usual.learn(0, 10, 100)
    assert usual.share_without(0, 0) < 1e-4
    assert usual.requests == pytest.approx(1_000, rel=0.01)
