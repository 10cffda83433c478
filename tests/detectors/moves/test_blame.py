from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import F64, I64
from detectors.moves.blame import LEAST, LEAST_BEFORE, MOST_OF_IT, Part, parts
from detectors.views.projection import F32

CLIENTS = 12


def asked(seed: int, before: int = 1_000, since: int = 200) -> tuple[I64, F32, np.ndarray]:
    """Owners, two numbers and a category of queries, of which the last `since` are later than an onset."""
    rng = np.random.default_rng(seed)
    n = before + since
    numbers = rng.normal(size=(n, 2))
    values = np.column_stack([numbers, rng.integers(0, 4, n)]).astype(np.float32)
    share = 1 / np.arange(1, CLIENTS + 1)
    return rng.choice(CLIENTS, n, p=share / share.sum()), values, np.arange(n) >= before


def of(found: list[Part], owner: int) -> float:
    return next(p.part for p in found if p.owner == owner)


@pytest.mark.parametrize("column", [0, 2])
def test_one_client_that_moves_makes_all_of_the_change(column: int) -> None:
    owner, values, later = asked(1)
    values[later & (owner == 0), column] += 3
    first = parts(owner, values[:, [column]], later, int(column == 2))[0]
    assert first.owner == 0 and first.part > MOST_OF_IT
    assert (first.n, first.of) == (int((later & (owner == 0)).sum()), 200)


@pytest.mark.parametrize("seed", range(10))
def test_when_all_clients_move_nobody_is_blamed(seed: int) -> None:
    owner, values, later = asked(seed)
    values[later] += 1
    assert parts(owner, values, later, 1)[0].part < MOST_OF_IT


def test_who_asks_much_and_moves_not_is_not_blamed() -> None:
    owner, values, later = asked(3)
    owner[later & (np.arange(len(owner)) % 2 == 0)] = 0
    values[later & (owner != 0), 0] += 4
    assert abs(of(parts(owner, values[:, :1], later, 0), 0)) < 0.2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(LEAST, 300), st.integers(LEAST_BEFORE, 600), st.floats(-3, 3))
def test_parts_sum_to_the_whole(seed: int, since: int, before: int, moved: float) -> None:
    owner, values, later = asked(seed, before, since)
    values[later & (owner % 2 == 0), 0] += np.float32(moved)
    found = parts(owner, values, later, 1)
    assert sum(p.part for p in found) == pytest.approx(1.0)
    assert [p.part for p in found] == sorted((p.part for p in found), reverse=True)
    assert sum(p.n for p in found) == since == found[0].of


def test_too_little_says_nothing() -> None:
    owner, values, later = asked(1, before=1_000, since=LEAST - 1)
    assert parts(owner, values, later, 1) == []
    owner, values, later = asked(1, before=LEAST_BEFORE - 1, since=50)
    assert parts(owner, values, later, 1) == []
    owner, values, later = asked(1)
    assert parts(owner, values[:, :0], later, 0) == []
    same: F64 = np.ones(len(owner))
    assert parts(owner, same[:, None].astype(np.float32), later, 0) == []
