from __future__ import annotations

import numpy as np
import pytest

from detectors.base import Page
from detectors.queries.calibration import OWN_FROM, OWN_MOST, PER_CLIENT, Calibration

CLIENTS = ("a", "b", "c")


def learnt(seed: int = 1, n: int = 900) -> tuple[Calibration, dict[str, list[float]]]:
    rng = np.random.default_rng(seed)
    client = rng.choice(3, n, p=[0.8, 0.17, 0.03]).astype(np.int32)
    values = rng.normal(client.astype(float), 1).round(1)
    made = Calibration()
    made.add(client, CLIENTS, values)
    by = {name: values[client == i].tolist() for i, name in enumerate(CLIENTS)}
    made.close()
    return made, by


@pytest.mark.parametrize("small", [True, False])
def test_p_values_count_honest_values_as_unusual_as_these(small: bool) -> None:
    made, by = learnt(n=600)
    assert max(map(len, by.values())) <= OWN_MOST
    balanced = [v for values in by.values() for v in values[:PER_CLIENT]]

    def p(honest: list[float], x: float) -> float:
        return (1 + sum(v <= x if small else v >= x for v in honest)) / (1 + len(honest))

    client = np.array([0, 1, 2, -1] * 20, np.int32)
    values = np.random.default_rng(2).normal(0, 3, 80).round(1)
    want = []
    for c, x in zip(client.tolist(), values.tolist(), strict=True):
        own = by[CLIENTS[c]] if c >= 0 and len(by[CLIENTS[c]]) >= OWN_FROM else []
        want.append(max(p(balanced, x), p(own, x) if own else 0.0))
    assert made.p_values(client, CLIENTS, values, small) == pytest.approx(np.array(want))


def test_the_baseline_of_a_busy_client_is_of_all_its_time() -> None:
    made = Calibration()
    made.add(np.zeros(1_500, np.int32), CLIENTS, np.linspace(0, 1, 1_500))
    made.add(np.full(50, 1, np.int32), CLIENTS, np.zeros(50))
    made.close()
    p = made.p_values(np.zeros(3, np.int32), CLIENTS, np.array([0.25, 0.5, 0.9]), False)
    assert p == pytest.approx([0.75, 0.5, 0.1], abs=0.01)


def test_means_of_own_values() -> None:
    made, by = learnt(n=600)
    rows, index = made.own(np.array([0, 1, 2], np.int32), CLIENTS)
    assert rows.tolist() == [0, 1]
    assert made.own_means()[index] == pytest.approx([np.mean(by["a"]), np.mean(by["b"])])


@pytest.mark.parametrize("close", [True, False])
def test_a_restored_calibration_is_equal(close: bool) -> None:
    rng = np.random.default_rng(3)
    one = Calibration()
    pages: dict[str, Page] = {}
    for _ in range(30):
        one.add(rng.integers(0, 3, 100).astype(np.int32), CLIENTS, rng.normal(size=100))
        pages |= one.dirty()
    if close:
        one.close()
        pages |= one.dirty()
    two = Calibration()
    two.restore(pages)
    if not close:
        one.close()
        two.close()
    probe = np.array([0, 1, 2, -1], np.int32), CLIENTS, np.array([-2.0, 0.0, 1.0, 3.0]), True
    assert (one.p_values(*probe) == two.p_values(*probe)).all()
    assert one.clients == two.clients


def test_a_quiet_calibration_writes_nothing() -> None:
    made, _ = learnt()
    assert made.dirty() and not made.dirty()
