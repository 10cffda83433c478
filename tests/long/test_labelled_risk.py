"""False alarms and delays of `error_rate` where a model predicts numbers: a table of docs/measured.md.

`.venv/bin/python -m tests.long.test_labelled_risk` prints it; the test runs a few seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from detectors.base import F64
from tests.detectors.performance.labelled import Judged, labels

SEEN, AFTER, SEEDS = 20_000, 5_000, 20


def _far(error: F64) -> F64:
    return np.where(np.arange(len(error)) % 20 == 0, 6.0, error)


CHANGES: dict[str, Callable[[F64], F64]] = {
    "spread × 1.25": lambda error: 1.25 * error,
    "spread × 1.5": lambda error: 1.5 * error,
    "bias 0.5 sd": lambda error: error + 0.5,
    "bias 1 sd": lambda error: error + 1.0,
    "5 % six sd off": _far,
}


def false_alarms(seed: int, sessions: bool, length: int = 50_000) -> int:
    """Alarms on errors that keep their law."""
    rng = np.random.default_rng([seed, int(sessions)])
    error = np.abs(rng.standard_normal(length))
    if sessions:
        error *= np.repeat(np.exp(0.4 * rng.standard_normal(length // 20)), 20)
    return len(Judged().feed(labels(error, numeric=True)).alarms)


def delay(change: Callable[[F64], F64], seed: int) -> int | None:
    """Labels from the change to the alarm."""
    error = np.random.default_rng(seed).standard_normal(SEEN + AFTER)
    at = SEEN + seed
    error[at:] = change(error[at:])
    alarms = Judged().feed(labels(np.abs(error), numeric=True)).alarms
    return alarms[0].position + 1 - at if alarms and alarms[0].position >= at else None


@pytest.mark.long
def test_distances_are_quiet_and_a_rise_is_found() -> None:
    assert not sum(false_alarms(seed, sessions) for seed in range(4) for sessions in (False, True))
    found = [delay(CHANGES["spread × 1.5"], seed) for seed in range(5)]
    assert sorted(AFTER if d is None else d for d in found)[2] <= 400


def main() -> None:
    """The table."""
    for sessions in (False, True):
        print("false alarms in 10⁶", "in sessions" if sessions else "iid", end=": ")
        print(sum(false_alarms(seed, sessions) for seed in range(SEEDS)), flush=True)
    for name, change in CHANGES.items():
        found = [d for seed in range(SEEDS) if (d := delay(change, seed)) is not None]
        told = f"{np.median(found):.0f} | {np.mean(found):.0f}" if found else "- | -"
        print(f"| {name} | {len(found)} of {SEEDS} | {told} |", flush=True)


if __name__ == "__main__":
    main()
