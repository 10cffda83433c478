from __future__ import annotations

from alerts.advice import FIRST_STEP
from alerts.taxonomy import kinds


def test_every_kind_has_a_first_step() -> None:
    assert set(FIRST_STEP) == set(kinds())
    assert all(step.endswith(".") and len(step) <= 120 for step in FIRST_STEP.values())
