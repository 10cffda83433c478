from __future__ import annotations

import numpy as np
import pytest

from detectors.moves.steps import DEFAULT_RATES, FLIP, LINE, Steps, rates


def test_honest_rates_are_measured_and_never_below_the_defaults() -> None:
    assert np.array_equal(rates(np.zeros(5), np.full(5, 29.0)), DEFAULT_RATES)
    made = rates(np.array([50.0, 0, 0, 0, 0]), np.full(5, 100.0))
    assert made[FLIP] == pytest.approx([0.5, 0.95]) and made[LINE] == pytest.approx([3 * 0.5 / 101, 0.15])


def test_a_move_at_the_honest_rate_is_no_evidence() -> None:
    rng = np.random.default_rng(1)
    steps = Steps()
    for yes in rng.random(5_000) < 0.01:
        steps.move(LINE, bool(yes), np.array([0.02, 0.15]))
        assert steps.sums[LINE] < 10


def test_going_on_from_what_succeeded_is_seen_and_chance_is_not() -> None:
    rng = np.random.default_rng(2)
    attacker, walker = Steps(), Steps()
    for _ in range(200):
        improved = bool(rng.random() < 0.4)
        attacker.follow(improved, bool(rng.random() < (0.8 if improved else 0.1)))
        walker.follow(improved, bool(rng.random() < 0.5))
    assert attacker.following() > 30 and walker.following() < 3


def test_going_on_from_what_failed_is_not_an_attack() -> None:
    steps = Steps()
    for k in range(200):
        steps.follow(k % 2 == 0, k % 2 == 1)
    assert steps.following() == 0.0
