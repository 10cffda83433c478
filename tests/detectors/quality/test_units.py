"""Factors that look like a change of unit, and changes that do not."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.base import F64
from detectors.quality.units import Moments, unit_factor

BEFORE = np.random.default_rng(1).lognormal(3.6, 0.35, 500)


def moments(values: F64) -> Moments:
    return Moments(float(values.mean()), float(values.std()), len(values))


@pytest.mark.parametrize("factor", [60.0, 1 / 60, 1_000.0, 0.001, 100.0, 0.01, 2.54, 1 / 2.54, 3_600.0])
@pytest.mark.parametrize("n", [25, 100])
def test_a_change_of_unit_is_recognised(factor: float, n: int) -> None:
    after = np.random.default_rng(2).lognormal(3.6, 0.35, n) * factor
    assert unit_factor(moments(BEFORE), moments(after)) == pytest.approx(factor)


def test_degrees_of_another_scale_are_recognised() -> None:
    celsius = np.random.default_rng(3).normal(21, 4, 500)
    assert unit_factor(moments(celsius), moments(celsius[:100] * 1.8 + 32)) == pytest.approx(1.8)
    assert unit_factor(moments(celsius * 1.8 + 32), moments(celsius[:100])) == pytest.approx(1 / 1.8)


@pytest.mark.parametrize("factor", [1.0, 1.3, 4.0, 17.0, 300.0, -1.0])
def test_other_changes_are_not(factor: float) -> None:
    after = np.random.default_rng(2).lognormal(3.6, 0.35, 100) * factor
    assert unit_factor(moments(BEFORE), moments(after)) is None


def test_a_drift_of_ordinary_size_with_few_events_is_no_unit() -> None:
    before = Moments(37_081.0, 26_000.0, 2_000)
    assert unit_factor(before, Moments(27_844.0, 19_500.0, 150)) is None
    assert unit_factor(before, Moments(37_081.0 / 2.204623, 26_000.0 / 2.204623, 150)) is not None
    assert unit_factor(before, Moments(37_081.0 / 1.609344, 26_000.0 / 1.609344, 150)) is None


def test_a_constant_or_too_few_values_are_not() -> None:
    assert unit_factor(moments(BEFORE), moments(np.full(100, BEFORE.mean() * 60))) is None
    assert unit_factor(moments(BEFORE), moments(BEFORE[:10] * 60)) is None
    assert unit_factor(Moments(1.0, 1.0, 5), Moments(float("nan"), 1.0, 100)) is None
