"""Pair streams: which pairs, and what their bets cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detectors.base import F64, Context, Numeric
from detectors.drift.bets import PAIR_BETS
from detectors.drift.pairs import MAX_PAIRS
from detectors.drift.scores import BLOCK
from detectors.drift.target import Target, target
from tests.detectors import streams


def compiled(values: F64) -> Target:
    """The target of a model whose numeric inputs have these values (rows, columns)."""
    reference = streams.reference(1, len(values))
    names = tuple(f"x{j}" for j in range(values.shape[1]))
    numeric = Numeric(names, values, np.zeros(values.shape, np.uint8))
    return target(Context("x", replace(reference, rows=replace(reference.rows, numeric=numeric))))


def test_all_pairs_of_numbers_and_the_score_are_watched() -> None:
    found = target(Context("x", streams.reference(1)))
    assert len(found.pairs.scores) == 13 * 12 // 2
    assert {s.stream.fields for s in found.pairs.scores} >= {("n0", "n11"), ("n0", streams.SCORE)}


def test_of_many_columns_the_most_correlated_pairs_are_watched() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((800, 60))
    values[:, 41] = values[:, 7] + 0.5 * rng.standard_normal(800)
    pairs = compiled(values).pairs
    assert len(pairs.scores) == MAX_PAIRS == len(pairs.mean)
    strongest = int(np.argmax(np.abs(pairs.mean)))
    assert pairs.scores[strongest].stream.fields == ("x7", "x41") and pairs.mean[strongest] > 0.8


def test_a_column_of_few_values_has_no_pairs() -> None:
    rng = np.random.default_rng(2)
    values = np.column_stack([rng.standard_normal(500), rng.integers(2, size=500).astype(float)])
    found = compiled(values)
    assert {f for s in found.pairs.scores for f in s.stream.fields} == {"x0", streams.SCORE}


def test_products_of_gaussian_scores_cost_as_their_moment_function_says() -> None:
    rng = np.random.default_rng(3)
    r = 0.5
    x = rng.standard_normal((4_000, 2))
    x[:, 1] = r * x[:, 0] + np.sqrt(1 - r * r) * x[:, 1]
    found = compiled(x)
    pair = next(i for i, s in enumerate(found.pairs.scores) if s.stream.fields == ("x0", "x1"))
    t = PAIR_BETS / np.sqrt(BLOCK) / np.sqrt(1 + r * r)
    exact = BLOCK * (-0.5 * np.log((1 - t * r) ** 2 - t * t) - t * r) - PAIR_BETS**2 / 2
    slow = np.abs(PAIR_BETS) <= 2.0
    assert found.pairs.excess(PAIR_BETS)[pair, slow] == pytest.approx(
        1.25 * np.maximum(exact, 0)[slow], rel=0.5, abs=0.3
    )
    assert found.pairs.mean[pair] == pytest.approx(r, abs=0.05)


def test_columns_that_are_mostly_zero_make_large_bets_dear() -> None:
    """A gain and a loss that never come together: the day they do, the product is far out."""
    rng = np.random.default_rng(4)
    kind = rng.random(2_000)
    gain = np.where(kind < 0.06, rng.gamma(2, 900, 2_000), 0.0)
    loss = np.where(kind > 0.95, rng.gamma(2, 400, 2_000), 0.0)
    usual = rng.standard_normal((2_000, 2))
    found = compiled(np.column_stack([gain, loss, usual])).pairs
    cost = {s.stream.fields: found.excess(PAIR_BETS)[i] for i, s in enumerate(found.scores)}
    largest = int(np.argmax(PAIR_BETS))
    assert cost["x0", "x1"][largest] > 3 * cost["x2", "x3"][largest]
