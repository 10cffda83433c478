"""A sample of the events, and the swing of the day that the drift detector allows for meanwhile and after."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.drift.thinned import Thinned
from tests.long.simulated import Watch, batches, drawn, reference, sampled


def test_the_factor_rises_at_once_and_stays_until_the_null_has_forgotten() -> None:
    thinned = Thinned(250.0)  # 3 memories: 30 blocks
    assert not thinned.see(1, 5) and thinned.factor == 1
    assert thinned.see(4, 10) and thinned.factor == 4 and thinned.allowed == 1
    thinned.allow()
    assert thinned.see(16, 20) and (thinned.factor, thinned.allowed) == (16, 4)
    assert not thinned.see(2, 49)
    assert thinned.see(2, 50) and thinned.factor == 2
    assert not thinned.see(1, 79) and thinned.see(1, 80) and thinned.factor == 1
    again = Thinned(250.0)
    thinned.see(8, 90)
    again.load(thinned.page())
    assert again.page().tolist() == thinned.page().tolist() == [8, 4, 120]


def test_a_sample_of_a_daily_swing_is_no_drift() -> None:
    watch = Watch(reference("diurnal", 2, 500), 10.0)
    stream = sampled(batches(drawn("diurnal", 2, 45_000)), 16, 10_000, 50_000)
    assert [alarm.position for alarm in watch.alarms(stream)] == []


@pytest.mark.parametrize("stop", [9_000, 18_000])
def test_a_restart_while_a_sample_is_judged_changes_nothing(stop: int) -> None:
    table = drawn("diurnal", 1, 25_000)
    whole = Watch(reference("diurnal", 1, 500))
    assert list(whole.alarms(sampled(batches(table), 4, 5_120, 15_360))) == []
    first, second = Watch(reference("diurnal", 1, 500)), Watch(reference("diurnal", 1, 500))
    parts = list(sampled(batches(table), 4, 5_120, 15_360))
    assert list(first.alarms(iter(p for p in parts if p.start < stop))) == []
    second.detector.restore(first.detector.dirty())
    second.account.restore(first.account.dirty())
    assert list(second.alarms(iter(p for p in parts if p.start >= stop))) == []
    mine, other = second.drift._page(), whole.drift._page()
    assert mine.keys() == other.keys()
    for name, array in mine.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
