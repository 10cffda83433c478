"""Counts like those of a taxi company, every half hour for 215 days: five days that are unlike the others, and false
alarms between them.

`.venv/bin/python -m tests.long.test_taxi_counts --seeds 0:20` prints the figures of docs/measured.md.
"""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from detectors.traffic.windows import Happened
from tests.detectors.traffic.test_subject import DAY, START, Run

DAYS, STEP = 215, 1_800.0
UNUSUAL = {
    "marathon": (124.25, 6.0, 1.6),
    "a holiday": (149.0, 24.0, 0.6),
    "another": (177.0, 24.0, 0.5),
    "new year's eve": (184.0, 6.0, 1.7),
    "snow": (209.5, 30.0, 0.25),
}
"""Day of the beginning, hours, factor on the counts."""
GRACE = 3 * 3_600.0
"""An alarm so long after the end still tells of it."""


def counts(seed: int, volume: float, unusual: bool = True) -> Happened:
    """Counts of `volume` on the average: day, week, a hidden AR(1) of the rate, Poisson."""
    rng = np.random.default_rng(seed)
    at = np.arange(int(DAYS * DAY / STEP)) * STEP
    hour, weekday = at % DAY / 3_600, at // DAY % 7
    weekend = (weekday >= 5).astype(np.float64)
    log = 0.6 * np.sin(2 * np.pi * (hour - 10) / 24) + 0.25 * np.sin(4 * np.pi * (hour - 5 - 2 * weekend) / 24)
    log = log - 0.15 * weekend
    noise = np.zeros(len(at))
    for i, e in enumerate(rng.normal(0, 0.04, len(at)).tolist()):
        noise[i] = 0.8 * noise[i - 1] + e
    rate = volume * np.exp(log + noise) / np.exp(log).mean()
    for begin, hours, factor in UNUSUAL.values() if unusual else ():
        rate[(at >= begin * DAY) & (at < begin * DAY + hours * 3_600)] *= factor
    none = np.full(len(at), np.nan)
    return Happened(np.asarray(START + at, np.float64), none, none, np.asarray(rng.poisson(rate), np.float64))


def found_and_false(seed: int, volume: float) -> tuple[set[str], int]:
    """Which of the five are found, and how many alarms tell of none of them."""
    found, false = set(), 0
    for finding in Run("metric").feed(counts(seed, volume)).opened:
        day = finding.time - START
        told = [
            name
            for name, (begin, hours, _) in UNUSUAL.items()
            if begin * DAY <= day <= begin * DAY + hours * 3_600 + GRACE
        ]
        found |= set(told)
        false += not told
    return found, false


@pytest.mark.long
@pytest.mark.parametrize("volume", [20.0, 15_000.0])
def test_four_of_five_unusual_days_are_found_within_three_alarms_a_month(volume: float) -> None:
    results = [found_and_false(seed, volume) for seed in range(2)]
    assert sum(len(found) for found, _ in results) >= 4 * 2
    assert sum(false for _, false in results) <= 3 * 2 * DAYS / 30


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:20", help="FIRST:LAST, the last excluded")
    seeds = range(*(int(x) for x in parser.parse_args().seeds.split(":")))
    for volume in (20.0, 15_000.0):
        results = [found_and_false(seed, volume) for seed in seeds]
        months = len(seeds) * DAYS / 30
        by_name = ", ".join(f"{name} {sum(name in found for found, _ in results)}" for name in UNUSUAL)
        mean = sum(len(found) for found, _ in results) / len(seeds)
        false = sum(f for _, f in results)
        quiet = sum(len(Run("metric").feed(counts(1_000 + seed, volume, unusual=False)).opened) for seed in seeds)
        print(
            f"| {volume:,.0f} | {mean:.1f} of 5 | {false / months:.2f} | {quiet / months:.2f} | {by_name} |", flush=True
        )


if __name__ == "__main__":
    main()
