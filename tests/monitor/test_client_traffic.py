from __future__ import annotations

import numpy as np
import pytest

from detectors.base import F64, Finding, Page
from detectors.traffic.subject import TrafficSettings
from monitor.client_traffic import LEAST_SHARE, SLOTS, STRETCH, ClientTraffic

START = 1_800_000_000.0
MINUTE = 60.0


def minutes(seed: int, n: int, rates: dict[str, float], begin: int = 0) -> list[tuple[list[str | None], F64]]:
    """Events of `n` minutes: `rates` requests a minute by client, one batch a minute."""
    rng = np.random.default_rng([seed, begin])
    made = []
    for minute in range(begin, begin + n):
        who = [c for c, rate in rates.items() for _ in range(rng.poisson(rate))]
        order = rng.permutation(len(who))
        time = np.sort(START + MINUTE * (minute + rng.random(len(who))))
        latency = 10 * np.exp(rng.normal(0, 0.3, len(who)))
        rows = np.column_stack([time, np.zeros(len(who)), latency, np.full(len(who), np.nan)])
        made.append(([who[i] for i in order], rows))
    return made


class Told:
    def __init__(self, made: ClientTraffic) -> None:
        self.made = made
        self.found: list[Finding] = []

    def feed(self, batches: list[tuple[list[str | None], F64]]) -> Told:
        for clients, rows in batches:
            if len(rows):
                self.made.add(clients, rows.T, self.report)
        return self

    def report(self, finding: Finding) -> str | None:
        self.found.append(finding)
        return f"inc{len(self.found)}"


USUAL = {"a": 40.0, "b": 30.0, "c": 25.0}


def test_steady_clients_are_watched_and_not_told_of() -> None:
    told = Told(ClientTraffic(TrafficSettings())).feed(minutes(1, 700, {**USUAL, "rare": 0.5}))
    assert told.made.clients == ["a", "b", "c"] and told.found == []


@pytest.mark.parametrize(("client", "rate"), [("b", 120.0), ("a", 0.0)])
def test_a_client_that_asks_more_or_nothing_at_all_is_named_without_a_page(client: str, rate: float) -> None:
    told = Told(ClientTraffic(TrafficSettings())).feed(minutes(1, 700, USUAL))
    told.feed(minutes(1, 30, {**USUAL, client: rate}, 700))
    assert told.found
    first = told.found[0]
    assert (first.kind, first.severity, first.action) == ("traffic_anomaly", "info", "open")
    assert {(s.type, s.id) for f in told.found for s in f.subjects} == {("client", client)}
    assert {f.cause for f in told.found} == {f"traffic:client:{client}"}
    assert first.time < START + 715 * MINUTE
    told.found.clear()
    told.feed(minutes(1, 120, USUAL, 730))
    assert [f.action for f in told.found] == ["recover"]


def test_newcomers_take_the_place_of_who_has_gone() -> None:
    names = {f"c{i}": 10.0 for i in range(SLOTS)}
    told = Told(ClientTraffic(TrafficSettings()))
    told.feed(minutes(1, STRETCH // 80 + 5, names))
    assert set(told.made.clients) == set(names)
    new = {name: rate for name, rate in names.items() if name != "c3"} | {"new": 30.0}
    told.feed(minutes(1, 3 * STRETCH // 100, new, 100))
    assert "new" in told.made.clients and "c3" not in told.made.clients
    assert len(told.made.clients) == SLOTS and LEAST_SHARE < 0.05


def test_principals_are_named_where_accesses_are_watched() -> None:
    told = Told(ClientTraffic(TrafficSettings(), "principal")).feed(minutes(1, 700, USUAL))
    told.feed(minutes(1, 30, {**USUAL, "b": 200.0}, 700))
    assert [(s.type, s.id) for s in told.found[0].subjects] == [("principal", "b")]


@pytest.mark.parametrize("at", [60, 300, 720])
def test_restored_it_goes_on_as_the_old_one(at: int) -> None:
    batches = minutes(1, 700, USUAL) + minutes(1, 60, {**USUAL, "b": 120.0}, 700)
    whole = Told(ClientTraffic(TrafficSettings()))
    pages: dict[str, Page] = {}
    for i in range(0, at, 20):
        whole.feed(batches[i : i + 20])
        pages |= {name: {k: a.copy() for k, a in page.items()} for name, page in whole.made.dirty().items()}
    again = Told(ClientTraffic(TrafficSettings()))
    again.made.restore(pages)
    before = len(whole.found)
    whole.feed(batches[at:])
    again.feed(batches[at:])
    assert again.made.clients == whole.made.clients

    def news(told: Told, skip: int) -> list[tuple[str, float, str]]:
        return [(f.action, f.time, f.cause) for f in told.found[skip:]]

    assert news(again, 0) == news(whole, before)


def test_pages_of_a_former_client_are_emptied() -> None:
    names = {f"c{i}": 10.0 for i in range(SLOTS)}
    told = Told(ClientTraffic(TrafficSettings())).feed(minutes(1, 400, names))
    pages = told.made.dirty()
    slot = told.made.clients.index("c3")
    assert any(page for name, page in pages.items() if name.startswith(f"client{slot}."))
    new = {name: rate for name, rate in names.items() if name != "c3"} | {"new": 30.0}
    told.feed(minutes(1, 3 * STRETCH // 100, new, 400))
    pages |= told.made.dirty()
    again = ClientTraffic(TrafficSettings())
    again.restore(pages)
    assert again.clients == told.made.clients
