from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from detectors.base import ClientEvidence
from detectors.client_account import ClientAccount
from detectors.moves.second_stage import SecondStage
from monitor.client_budget import HEAVY, ClientBudget, held_by
from monitor.clients import ClientLedger
from monitor.intake.columns import build_batch
from monitor.intake.events import Event
from monitor.panel import Panel
from tests.detectors.moves.worlds import CENTRE, events, honest_rows
from tests.monitor.test_suspects_and_names import SCHEMA, SUBJECT, Watch, drawn, later

FLOOD = 20_480


@dataclass
class Counted:
    """A model as the budget sees it."""

    panel: Panel | None = None
    clients: ClientLedger = field(default_factory=ClientLedger)

    def count(self, given: list[Event]) -> None:
        places = [("t", 0, i, 0) for i in range(len(given))]
        batch = build_batch(SUBJECT, 0, given, places, SCHEMA)
        self.clients.add(batch.client, batch.clients, batch.time)


def ledger(*queries: int) -> ClientLedger:
    made = ClientLedger()
    for i, n in enumerate(queries):
        names = (f"m{len(queries)}-{i}",)
        made.add(np.zeros(n, np.int32), names, np.zeros(n))
    return made


def test_a_flood_of_new_ids_drives_out_no_attacker_under_watch() -> None:
    watch = Watch().calibrated()
    model = Counted(watch.panel)
    # The attacker begins: watched, and not yet named.
    attack = later(drawn(200, 3), "c_attacker")
    watch.feed(attack[:5])
    assert watch.panel.suspicion is not None and "c_attacker" in watch.panel.suspicion.marked
    assert watch.of("model_extraction") == []
    # Every second id asks something far away, so that it leaves evidence too.
    rows = honest_rows(FLOOD, 31)
    rows[::2] = np.round(CENTRE + (rows[::2] - CENTRE) * 4, 2)
    flood = events(rows, "c_flood", start=attack[4].time + 1)
    for i, event in enumerate(flood):
        event.client = f"c_new{i}"
    budget = ClientBudget(held_by(model) + 300_000)
    for begin in range(0, FLOOD, 1_024):
        part = flood[begin : begin + 1_024]
        watch.feed(part)
        model.count(part)
        assert budget.keep([model])[0] <= budget.limit
        assert "c_attacker" in watch.panel.suspicion.marked
    assert watch.panel.suspicion.account.evicted > 0 and not model.clients.exact
    assert abs(model.clients.distinct - FLOOD) < 0.05 * FLOOD
    watch.feed(later(drawn(200, 3)[5:], "c_attacker", after=FLOOD + 10))
    (named,) = watch.of("model_extraction")
    assert [s.id for s in named.subjects] == ["c_attacker"]


def test_a_large_model_gives_way_before_a_small_one() -> None:
    small, large = Counted(clients=ledger(*[1] * 50)), Counted(clients=ledger(*[1] * 2_000, *range(10, 10 + HEAVY)))
    room = held_by(small) * 10
    assert ClientBudget(room).keep([small, large]) == [held_by(small), held_by(large)]
    assert len(small.clients) == 50 and small.clients.exact
    assert held_by(small) + held_by(large) <= room
    kept = {c.client for c in large.clients.counts()}
    assert {f"m2100-{i}" for i in range(2_000, 2_100)} <= kept


def test_within_the_budget_nothing_is_touched() -> None:
    model = Counted(clients=ledger(*[1] * 2_000))
    assert ClientBudget().keep([model, Counted()]) == [held_by(model), 0]
    assert model.clients.exact and len(model.clients) == 2_000


def test_heavy_hitters_stay_whatever_the_budget() -> None:
    model = Counted(clients=ledger(*range(1, 1_001)))
    ClientBudget(1).keep([model])
    assert [c.queries for c in model.clients.counts()] == list(range(1_000, 1_000 - HEAVY, -1))


@pytest.mark.parametrize("most", [0, 3])
def test_evidence_that_is_kept_is_as_it_was(most: int) -> None:
    account = ClientAccount(1.0, ["a", "b"], 1e6)
    given = [(f"c{i}", float(i)) for i in range(1, 11)]
    log_e = np.array([[0.0, e] for _, e in given])
    names = tuple(c for c, _ in given)
    usual = (0.0, 0.0)
    account.judge(ClientEvidence("x", log_e, np.zeros(10), np.arange(10, dtype=np.int32), names, ("a", "b"), usual))
    account.shrink(most, {"c2"})
    left = [c for c, _ in given if account.evidence(c)["b"] > 0]
    assert left == (["c2"] if not most else ["c2", "c9", "c10"])
    assert all(account.evidence(c)["b"] == pytest.approx(e) for c, e in given if c in left)
    assert account.clients == len(left)


def test_trails_of_suspects_stay() -> None:
    watch = Watch().calibrated()
    given = [e for k in range(60) for e in later(drawn(5, 40 + k), f"c_t{k}", after=k)]
    watch.feed(sorted(given, key=lambda e: e.time))
    assert watch.panel.suspicion is not None
    second = watch.panel.suspicion.second
    assert isinstance(second, SecondStage) and second.watched > 17
    weakest = second._list._by_evidence()[:3]
    second.shrink(0, set(weakest))
    assert second.clients > set(weakest)
    assert second.watched == 16
