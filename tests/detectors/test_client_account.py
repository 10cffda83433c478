from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from detectors.base import F64, ClientEvidence, Page, StateError
from detectors.client_account import ClientAccount

CLIENTS = tuple(f"c_{i}" for i in range(6))


def evidence(client: Sequence[int], log_e: F64, tests: tuple[str, ...] = ("x", "y")) -> ClientEvidence:
    return ClientEvidence("d", np.asarray(log_e, np.float64), np.array(client, np.int32), CLIENTS, tests)


def make(**settings: float) -> ClientAccount:
    return ClientAccount(1.0, ("x", "y"), settings.get("n30", 0.0), int(settings.get("cap", 1_000)))


def test_evidence_is_the_floored_sum_of_each_client_and_test() -> None:
    rng = np.random.default_rng(1)
    client = rng.choice(6, 400, p=[0.9, 0.02, 0.02, 0.02, 0.02, 0.02]) - (rng.random(400) < 0.1)
    log_e = rng.normal(-0.1, 1, (400, 2))
    made = make()
    made.judge(evidence(client.tolist(), log_e))
    want = {c: [0.0, 0.0] for c in range(6)}
    for c, row in zip(client.tolist(), log_e.tolist(), strict=True):
        if c >= 0:
            want[c] = [max(0.0, g + x) for g, x in zip(want[c], row, strict=True)]
    assert [list(made.evidence(CLIENTS[c]).values()) for c in range(6)] == list(want.values())


@pytest.mark.parametrize("cut", [1, 7, 64])
def test_evidence_does_not_depend_on_the_cut(cut: int) -> None:
    rng = np.random.default_rng(2)
    client, log_e = rng.integers(6, size=300), rng.normal(0.05, 1, (300, 2))
    whole, pieces = make(), make()
    suspects = list(whole.judge(evidence(client.tolist(), log_e)).suspects)
    found: list[tuple[str, str]] = []
    for at in range(0, 300, cut):
        found += pieces.judge(evidence(client[at : at + cut].tolist(), log_e[at : at + cut])).suspects
    assert sorted(found) == suspects
    assert [whole.evidence(c) for c in CLIENTS] == [pieces.evidence(c) for c in CLIENTS]


def test_a_client_is_suspected_at_the_threshold_and_reported_once() -> None:
    made = make()
    assert made.threshold == pytest.approx(math.log(1e8))
    made.judge(evidence([1], np.array([[5.0, 3.0]])))
    assert made.judge(evidence([0], np.array([[made.threshold - 1e-6, 0.0]]))).suspects == ()
    assert made.judge(evidence([0, 0], np.array([[1.0, 0.0], [-9.0, 0.0]]))).suspects == (("c_0", "x"),)
    assert made.judge(evidence([0], np.array([[50.0, 0.0]]))).suspects == ()
    assert made.evidence("c_1") == {"x": 5.0, "y": 3.0}
    assert made.suspects() == [("c_0", "x")]
    made.release("c_0")
    assert made.suspects() == [] and made.evidence("c_0") == {"x": 0.0, "y": 0.0}


def test_the_threshold_grows_with_traffic_and_tests() -> None:
    assert make(n30=3e9).threshold == pytest.approx(math.log(6e9))


def test_honest_clients_are_rarely_suspected() -> None:
    """E[e] = 1: a client of N events crosses log A with probability at most N/A."""
    made, rng = make(n30=0.0), np.random.default_rng(3)
    for _ in range(50):
        z = rng.standard_normal((600, 2))
        made.judge(evidence(rng.integers(6, size=600).tolist(), z - 0.5))
    assert made.suspects() == []


def test_the_smallest_evidence_is_evicted_and_never_a_suspect() -> None:
    made = ClientAccount(1.0, ("x",), 0.0, max_clients=10)
    names = tuple(f"n{i}" for i in range(30))
    gains = np.array([[float(i % 7)] for i in range(30)])
    gains[4] = 99.0
    for i in range(30):
        made.judge(ClientEvidence("d", gains[i : i + 1], np.array([i], np.int32), names, ("x",)))
    held = [n for n in names if made.evidence(n)["x"] > 0]
    assert len(held) <= 10 and made.suspects() == [("n4", "x")] and made.evicted >= 20
    assert made.evidence("n27")["x"] == 6.0 and made.evidence("n22")["x"] == 0.0


def test_a_restored_account_goes_on_as_the_old_one() -> None:
    rng = np.random.default_rng(4)
    one = make()
    stored: dict[str, Page] = {}
    for _ in range(6):
        client, log_e = rng.integers(6, size=40).tolist(), rng.normal(0.6, 1, (40, 2))
        two = make()
        stored |= one.dirty()
        two.restore(stored)
        assert one.judge(evidence(client, log_e)) == two.judge(evidence(client, log_e))
        assert [one.evidence(c) for c in CLIENTS] == [two.evidence(c) for c in CLIENTS]
    assert one.suspects() and one.suspects() == two.suspects()
    assert one.dirty() and not one.dirty()


def test_pages_of_other_tests_are_refused() -> None:
    one = make()
    one.judge(evidence([0], np.array([[1.0, 1.0]])))
    with pytest.raises(StateError, match="is of tests"):
        ClientAccount(1.0, ("z",), 0.0).restore(one.dirty())


@pytest.mark.parametrize("log_e", [[[math.nan, 0.0]], [[0.0]]])
def test_evidence_that_cannot_be_judged_is_refused(log_e: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="evidence of d"):
        make().judge(evidence([0], np.array(log_e)))
