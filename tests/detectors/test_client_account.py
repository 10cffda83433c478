from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from detectors.base import F64, ClientEvidence, Page, StateError
from detectors.client_account import UNIT, ClientAccount

CLIENTS = tuple(f"c_{i}" for i in range(6))


TIME = np.arange(10_000.0)


def evidence(
    client: Sequence[int],
    log_e: F64,
    tests: tuple[str, ...] = ("x", "y"),
    start: int = 0,
    names: tuple[str, ...] = CLIENTS,
) -> ClientEvidence:
    code = np.array(client, np.int32)
    usual = (0.2,) * len(tests)
    return ClientEvidence(
        "d", np.asarray(log_e, np.float64), TIME[start : start + len(code)], code, names, tests, usual
    )


def make(**settings: float) -> ClientAccount:
    return ClientAccount(1.0, ("x", "y"), settings.get("n30", 0.0), int(settings.get("cap", 1_000)))


class Plain:
    """The rule as it is written down, one event at a time."""

    def __init__(self) -> None:
        self.state: dict[tuple[str, str], tuple[float, float, int, int]] = {}
        self.crossed: list[tuple[int, str, str, float, int, int]] = []

    def judge(self, given: ClientEvidence) -> None:
        over = set()
        for row, code in enumerate(given.client.tolist()):
            for k, test in enumerate(given.tests):
                key = (given.clients[code], test)
                g, since, n, hits = self.state.get(key, (0.0, 0.0, 0, 0))
                step = round(given.log_e[row, k] / UNIT) * UNIT
                if code < 0:
                    continue
                if g + step <= 0:
                    self.state[key] = (0.0, 0.0, 0, 0)
                    continue
                since = since if g > 0 else float(given.time[row])
                self.state[key] = (g + step, since, n + (step != 0), hits + (step > 0))
                if g + step >= math.log(1e8) and key not in over:
                    over.add(key)
                    self.crossed.append((row, *key, *self.state[key][1:]))
        for key in over:
            self.state[key] = (0.0, 0.0, 0, 0)


def random_evidence(rng: np.random.Generator, n: int, start: int = 0) -> ClientEvidence:
    client = rng.choice(6, n, p=[0.9, 0.02, 0.02, 0.02, 0.02, 0.02]) - (rng.random(n) < 0.1)
    log_e = np.where(rng.random((n, 2)) < 0.2, 0.0, rng.normal(0.2, 1, (n, 2)))
    return evidence(client.tolist(), log_e, start=start)


@pytest.mark.parametrize("seed", range(5))
def test_the_account_does_what_the_rule_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    made, plain = make(), Plain()
    for start in range(0, 2_000, 250):
        given = random_evidence(rng, 250, start)
        plain.crossed.clear()
        plain.judge(given)
        told = [(s.row, s.client, s.test, s.since, s.n, s.hits) for s in made.judge(given)]
        assert told == sorted(plain.crossed)
        for client in CLIENTS:
            want = {t: plain.state.get((client, t), (0.0,))[0] for t in ("x", "y")}
            assert made.evidence(client) == want
    assert plain.crossed


@pytest.mark.parametrize("cut", [1, 7, 64])
def test_evidence_does_not_depend_on_the_cut(cut: int) -> None:
    rng = np.random.default_rng(2)
    client, log_e = rng.integers(6, size=300).tolist(), rng.normal(-0.05, 1, (300, 2))
    whole, pieces = make(), make()
    assert whole.judge(evidence(client, log_e)) == ()
    for at in range(0, 300, cut):
        pieces.judge(evidence(client[at : at + cut], log_e[at : at + cut], start=at))
    assert [whole.evidence(c) for c in CLIENTS] == [pieces.evidence(c) for c in CLIENTS]


def test_a_client_is_suspected_at_the_threshold_and_then_judged_anew() -> None:
    made = make()
    assert made.threshold == pytest.approx(math.log(1e8))
    made.judge(evidence([1], np.array([[5.0, 3.0]])))
    assert made.judge(evidence([0], np.array([[made.threshold - 1e-4, 0.0]]), start=7)) == ()
    (suspect,) = made.judge(evidence([1, 0, 0], np.array([[0.0, 0.0], [1.0, 0.0], [-9.0, 0.0]]), start=8))
    assert (suspect.client, suspect.test, suspect.row, suspect.since) == ("c_0", "x", 1, 7.0)
    assert (suspect.n, suspect.hits) == (2, 2) and suspect.evidence["x"] == pytest.approx(made.threshold + 1, abs=1e-3)
    assert made.evidence("c_0") == {"x": 0.0, "y": 0.0}
    assert made.evidence("c_1") == {"x": 5.0, "y": 3.0}
    made.release("c_1")
    assert made.clients == 0


def test_honest_clients_take_no_room() -> None:
    made = make()
    made.judge(evidence([0, 1, 2], np.array([[1.0, 0.0], [-1.0, -1.0], [0.0, 0.0]])))
    assert made.clients == 1
    made.judge(evidence([0], np.array([[-2.0, 0.0]])))
    assert made.clients == 0


def test_the_threshold_grows_with_traffic_and_tests() -> None:
    assert make(n30=3e9).threshold == pytest.approx(math.log(6e9))


def test_honest_clients_are_rarely_suspected() -> None:
    """E[e] = 1: a client of N events crosses log A with probability at most N/A."""
    made, rng = make(n30=0.0), np.random.default_rng(3)
    for _ in range(50):
        z = rng.standard_normal((600, 2))
        assert made.judge(evidence(rng.integers(6, size=600).tolist(), z - 0.5)) == ()


def test_the_smallest_evidence_is_evicted() -> None:
    made = ClientAccount(1.0, ("x",), 0.0, max_clients=10)
    names = tuple(f"n{i}" for i in range(30))
    for i in range(30):
        made.judge(evidence([i], np.array([[float(i % 7)]]), ("x",), names=names))
    held = [n for n in names if made.evidence(n)["x"] > 0]
    assert len(held) <= 10 and made.evicted >= 10
    assert made.evidence("n27")["x"] == 6.0 and made.evidence("n22")["x"] == 0.0


def test_a_restored_account_goes_on_as_the_old_one() -> None:
    rng = np.random.default_rng(4)
    one = make()
    stored: dict[str, Page] = {}
    for _ in range(6):
        client, log_e = rng.integers(6, size=40).tolist(), rng.normal(0.9, 1, (40, 2))
        two = make()
        stored |= one.dirty()
        two.restore(stored)
        assert one.judge(evidence(client, log_e)) == two.judge(evidence(client, log_e))
        assert [one.evidence(c) for c in CLIENTS] == [two.evidence(c) for c in CLIENTS]
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
