from __future__ import annotations

import numpy as np

from detectors.base import F64
from detectors.moves.asked import Asked
from detectors.moves.honest import SIZES
from tests.detectors.moves.worlds import CENTRE, WIDTH, asked, honest, honest_rows, scale


def excused(rows: F64) -> bool:
    return honest().rescaled(rows.astype(np.float32), np.full(len(rows), 0.9), scale())


def test_the_populations_data_on_another_scale_is_excused() -> None:
    found = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        moved = honest_rows(128, 40 + seed) * rng.uniform(0.5, 2, WIDTH) + rng.uniform(-30, 30, WIDTH)
        found += [excused(moved[:n]) for n in SIZES]
    assert np.mean(found) > 0.85


def test_fields_drawn_apart_are_not_excused() -> None:
    rows = honest_rows(128, 50)
    for j in range(WIDTH):
        np.random.default_rng(j).shuffle(rows[:, j])
    assert not any(excused(rows[:n]) for n in SIZES[1:])


def test_records_blurred_beyond_the_data_are_not_excused() -> None:
    """Their fields still belong together, but no map of single numbers brings them back to the data."""
    rng = np.random.default_rng(51)
    rows = honest_rows(128, 52) + rng.normal(size=(128, WIDTH)) * 6
    assert not any(excused(rows[:n]) for n in SIZES[3:])


def honest_asked(n: int, seed: int) -> Asked:
    """Fresh honest queries with the evidence that the first stage would give them."""
    made = asked(honest_rows(n, seed))
    usual = asked(honest_rows(1_200, 2), owner=np.arange(1_200) % 40, clean=True)
    for k, values, low in ((0, (made.value[:, 0], usual.value[:, 0]), False), (1, (made.margin, usual.margin), True)):
        one, all_ = values[0][:, None], values[1][None]
        count = (all_ <= one).sum(axis=1) if low else (all_ >= one).sum(axis=1)
        made.log_e[:, k] = np.log(0.3) - 0.7 * np.log((count + 1) / (usual.value.shape[0] + 1))
    return made


def test_being_unusual_in_several_ways_is_an_e_value_among_honest_queries() -> None:
    joint = honest().log_e(honest_asked(3_000, 60), np.zeros(3_000))[:, 5]
    assert np.exp(joint).mean() < 1.1 and joint.max() > 2


def test_two_unusual_numbers_say_more_together_than_each() -> None:
    made = honest_asked(200, 61)
    far = np.quantile(np.abs(honest_rows(1_200, 2) - CENTRE).mean(axis=1), 0.95)
    made.value[:, 0], made.margin[:] = far, 0.02
    low = (honest()._margin <= 0.02).mean()
    made.log_e[:, 0] = np.log(0.3) - 0.7 * np.log(0.05)
    made.log_e[:, 1] = np.log(0.3) - 0.7 * np.log(low + 1e-3)
    evidence = honest().log_e(made, np.zeros(200))
    assert (evidence[:, 5] > evidence[:, [0, 1, 3]].max(axis=1) + 0.5).all()


def test_without_margins_the_others_still_count_together() -> None:
    made = honest_asked(200, 62)
    made.margin[:], made.log_e[:, 1] = np.nan, 0.0
    assert np.isfinite(honest().log_e(made, np.zeros(200))).all()
