from __future__ import annotations

import numpy as np
import pytest

from detectors.queries import outlier_queries


@pytest.mark.parametrize("width", [100, 700, 800, 900, 2_000])
def test_the_fourth_largest_is_the_one_that_sorting_finds(width: int) -> None:
    values = np.random.default_rng(width).normal(size=(300, width)).round(2).astype(np.float32)
    assert (outlier_queries._fourth_largest(values) == np.sort(values, axis=1)[:, -4]).all()
