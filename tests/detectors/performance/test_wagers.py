"""Bets on blocks of losses: fair under the null whatever its law, and growing under what they bet on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from detectors.base import F64
from detectors.performance.wagers import BLOCK, back_of_errors, back_of_losses, on_errors, on_losses

LAWS = ("zero or one", "even", "mostly nothing")
DRAWS = 8_000


def drawn(law: str, mean: float) -> F64:
    """(DRAWS, BLOCK) losses in [0, 1] of this mean."""
    rng = np.random.default_rng(LAWS.index(law))
    u = rng.random((DRAWS, BLOCK))
    if law == "even":
        return np.asarray(2 * mean * u, np.float64)
    chance = mean if law == "zero or one" else mean / 0.8
    return np.where(u < chance, mean / chance, 0.0)


@pytest.mark.parametrize("law", LAWS)
def test_a_bet_on_losses_is_fair_up_to_the_null(law: str) -> None:
    """In the mean at most 1, whatever variance it is told."""
    for variance in (0.01, 0.2):
        e = np.exp([on_losses(block, 0.2, variance) for block in drawn(law, 0.2)])
        capped = np.minimum(e, 50.0)  # the mean of a heavy tail cannot be measured
        assert (capped.mean(axis=0) < 1 + 4 * capped.std(axis=0) / np.sqrt(DRAWS)).all()


def test_bets_grow_when_the_mean_rises_and_shrink_when_it_does_not() -> None:
    bets: list[Callable[[F64], F64]] = [
        lambda block: on_losses(block, 0.2, 0.03),
        lambda block: on_errors(float(block.sum()), 0.2),
    ]
    for bet in bets:
        assert np.mean([bet(b) for b in drawn("even", 0.35)[:2_000]], axis=0).max() > 0.5
        assert np.mean([bet(b) for b in drawn("even", 0.2)[:2_000]], axis=0).max() < 0.0


def test_a_loss_of_known_spread_tells_more_than_its_mean() -> None:
    """What the Bernoulli ratio gives away: losses of 0.2 on the average vary less than errors of a rate of 0.2."""
    blocks = drawn("even", 0.35)[:2_000]
    told = np.mean([on_losses(b, 0.2, 0.013) for b in blocks], axis=0).max()
    assert told > 2 * np.mean([on_errors(float(b.sum()), 0.2) for b in blocks], axis=0).max()


def test_recovery_is_fair_while_the_fault_lasts_and_grows_after_it() -> None:
    for before, since in ((0.1, 0.4), (0.0, 1.0)):
        half = max(0.5 * (before + since), 1e-3)
        lasting = np.exp([back_of_losses(b, before, since, 0.05) for b in drawn("zero or one", half)])
        assert np.minimum(lasting, 50).mean() < 1.1
        assert np.mean([back_of_losses(b, before, since, 0.05) for b in drawn("even", before)[:500]]) > 0.5
    assert back_of_errors(2.0, 0.1, 0.4) > 0 > back_of_errors(9.0, 0.1, 0.4)


def test_a_null_at_the_end_of_the_range_bets_nothing() -> None:
    assert not on_errors(25.0, 0.97).any()
    assert np.isfinite(on_losses(np.ones(BLOCK), 1.0, 0.0)).all()
