from __future__ import annotations

import numpy as np
import pytest

from detectors.base import F64
from detectors.queries.population import LEVELS, Population

NAMES = tuple(f"c{i}" for i in range(60))


def told(p: F64, client: list[int], names: tuple[str, ...] = NAMES, drifted: bool = False, cut: int = 10_000) -> F64:
    made = Population(NAMES)
    codes = np.array(client, np.int32)
    parts = [made.excused(codes[a : a + cut], names, p[a : a + cut], drifted) for a in range(0, len(p), cut)]
    return np.concatenate(parts)


def test_one_unusual_client_is_not_excused() -> None:
    rng = np.random.default_rng(1)
    client = rng.integers(1, 60, 600)
    client[300::3] = 0
    p = rng.random(600)
    p[300::3] = 1e-4
    assert (told(p, client.tolist())[300::3] < 0.03).mean() > 0.95


def test_a_drift_of_all_excuses_all() -> None:
    rng = np.random.default_rng(1)
    client = rng.integers(0, 60, 600).tolist()
    p = rng.random(600)
    p[300:] = 1e-4
    assert (told(p, client)[450:] > 0.5).all()


def test_new_accounts_do_not_excuse_each_other() -> None:
    rng = np.random.default_rng(1)
    names = (*NAMES, *(f"new{i}" for i in range(60)))
    client = rng.integers(0, 60, 900)
    client[300:][rng.random(600) < 0.8] += 60
    p = np.where(client >= 60, 1e-4, rng.random(900))
    excused = told(p, client.tolist(), names)
    assert (excused[client >= 60] < 0.03).mean() > 0.95


@pytest.mark.parametrize("drifted", [False, True])
def test_it_is_what_one_event_at_a_time_gives(drifted: bool) -> None:
    rng = np.random.default_rng(4)
    client = rng.integers(-1, 60, 500).tolist()
    p = rng.random(500) ** 3
    latest: dict[int, float] = {}
    want = []
    for c, x in zip(client, p.tolist(), strict=True):
        others = [q for i, q in latest.items() if i != c]
        m = max(len(others), 1)
        share = 0.0
        for level in LEVELS.tolist():
            count = sum(q <= level for q in others)
            spread = float(np.sqrt(m * level * (1 - level)))
            if x <= level and count > m * level + (spread if drifted else 3 * spread + 1):
                share = max(share, count / m)
        want.append(max(x, share))
        if c >= 0:
            latest[c] = x
    for cut in (1, 7, 500):
        assert told(p, client, drifted=drifted, cut=cut) == pytest.approx(np.array(want))
