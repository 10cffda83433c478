from __future__ import annotations

import numpy as np

from detectors.base import F64
from detectors.moves import rounded
from detectors.moves.rounded import on_line

FIELDS = 6
REACH = np.array([80.0, 1e6, 15.0, 1e5, 4_000.0, 99.0])
UNIT = np.ones(FIELDS)


def between(a: F64, b: F64, t: float) -> F64:
    return np.rint(a + t * (b - a))


def on_some_line(x: F64, held: F64) -> bool:
    return bool(rounded.lines(x[None], held[None], np.ones((1, len(held)), np.bool_), UNIT, REACH)[0])


def mirrored(one: F64, two: F64, middle: F64) -> bool:
    apart = np.abs((one + two) / 2 - middle)
    return bool(rounded.mirrored(np.abs(one - two)[None], apart[None, None], np.ones((1, 1), np.bool_), UNIT)[0])


def rows(n: int, seed: int) -> F64:
    return np.rint(np.random.default_rng(seed).uniform(0, REACH, (n, FIELDS)))


def test_a_bisection_of_whole_numbers_stays_on_its_line() -> None:
    for seed in range(20):
        a, b = rows(2, seed)
        for k in range(1, 4):
            assert on_line(between(a, b, 0.5**k)[None], a[None], b[None], UNIT, np.ones(1)).all()
            assert on_some_line(between(a, b, 0.5**k), np.array([a, b]))


def test_three_records_that_have_nothing_to_do_with_each_other_are_on_no_line() -> None:
    drawn = rows(24, 1)
    assert not any(on_some_line(x, drawn) for x in rows(2_000, 2))


def test_small_noise_around_one_record_is_no_line() -> None:
    """Every query fits a line there, since rounding explains so much: that says nothing."""
    rng = np.random.default_rng(3)
    noisy = np.rint(rows(1, 4) + rng.normal(0, 1.5, (500, FIELDS)))
    hits = [on_some_line(noisy[i], noisy[i - 24 : i]) for i in range(24, 500)]
    assert np.mean(hits) < 0.01


def test_moves_of_two_fields_are_no_line() -> None:
    a = rows(1, 5)[0]
    b, x = a.copy(), a.copy()
    b[:2] += 50
    x[:2] += 25
    assert not on_line(x[None], a[None], b[None], UNIT, np.ones(1)).any()


def test_missing_numbers_do_not_hide_a_line() -> None:
    a, b = rows(2, 6)
    x = between(a, b, 0.25)
    for row in (a, b, x):
        row[2] = 1e30
    assert on_line(x[None], a[None], b[None], UNIT, np.ones(1)).all()


def test_pairs_about_one_middle_are_seen_through_rounding_and_others_are_not() -> None:
    rng = np.random.default_rng(7)
    middle = np.array([40.0, 5e5, 8.0, 5e4, 2_000.0, 50.0])
    for _ in range(50):
        up = np.rint(middle + REACH * 0.1 * rng.choice([-1, 1], FIELDS))
        down = np.rint(2 * middle - up)
        assert mirrored(up, down, middle)
    drawn = zip(rows(300, 8), rows(300, 9), rows(300, 10), strict=True)
    chance = [mirrored(a, b, c) for a, b, c in drawn]
    assert np.mean(chance) < 0.01


def test_nothing_moved_mirrors_nothing() -> None:
    same = rows(1, 11)[0]
    assert not mirrored(same, same, same)
