from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from monitor.demo.produce import read_lines
from monitor.demo.traffic import (
    CATEGORICAL,
    FEATURES,
    INCOME_FACTOR,
    MODEL,
    NUMERIC,
    CreditTraffic,
    encode,
    write_events,
)
from monitor.intake.events import EventType, Record
from monitor.intake.formats.base import TopicRules, formats
from monitor.intake.identity import Pseudonyms

START = 1_800_000_000.0
N = 6_000
NEVER = 1e-4
"""Honest traffic may fail a test of one column this often; the seeds are fixed, so a failure is a change of law."""


def column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    return [row["features"][name] for row in rows]


def numbers(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [float(v) for v in column(rows, name) if v is not None]


def table(*samples: list[Any]) -> list[list[int]]:
    counts = [Counter(sample) for sample in samples]
    return [[c[value] for value in sorted(set().union(*counts), key=str)] for c in counts]


@pytest.fixture(scope="module")
def honest() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    traffic = CreditTraffic(3)
    return traffic.reference(N), traffic.events(N, START, 350.0)


@pytest.mark.parametrize("name", NUMERIC)
def test_honest_numbers_follow_the_law_of_the_reference(
    honest: tuple[list[dict[str, Any]], list[dict[str, Any]]], name: str
) -> None:
    reference, live = honest
    assert stats.ks_2samp(numbers(reference, name), numbers(live, name)).pvalue > NEVER
    halves = numbers(live[: N // 2], name), numbers(live[N // 2 :], name)
    assert stats.ks_2samp(*halves).pvalue > NEVER


@pytest.mark.parametrize("name", [*CATEGORICAL, "inquiries"])
def test_honest_categories_follow_the_law_of_the_reference(
    honest: tuple[list[dict[str, Any]], list[dict[str, Any]]], name: str
) -> None:
    reference, live = honest
    rare = 7 if name == "inquiries" else None
    values = [[None if v is not None and rare and v >= rare else v for v in column(r, name)] for r in (reference, live)]
    assert stats.chi2_contingency(table(*values)).pvalue > NEVER


def test_honest_answers_follow_the_law_of_the_reference(
    honest: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    scores = [[row["scores"]["yes"] for row in rows] for rows in honest]
    assert stats.ks_2samp(*scores).pvalue > NEVER
    assert stats.chi2_contingency(table(*([r["prediction"] for r in rows] for rows in honest))).pvalue > NEVER


def test_honest_drift_test_finds_the_drift(honest: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> None:
    """The tests above can fail: they do on drifted traffic."""
    drifted = CreditTraffic(3).events(500, START, 350.0, "income")
    assert stats.ks_2samp(numbers(honest[0], "income"), numbers(drifted, "income")).pvalue < 1e-12
    scores = [[row["scores"]["yes"] for row in rows] for rows in (honest[0], drifted)]
    assert stats.ks_2samp(*scores).pvalue < NEVER


def test_drift_moves_income_and_what_depends_on_it_only() -> None:
    still = CreditTraffic(5).events(400, START, 350.0)
    moved = CreditTraffic(5).events(400, START, 350.0, "income")
    ratio = np.array(numbers(moved, "income")) / np.array(numbers(still, "income"))
    assert ratio == pytest.approx(INCOME_FACTOR, abs=0.01)
    for name in set(FEATURES) - {"income", "amount"}:
        assert column(still, name) == column(moved, name)
    assert [(e["event_id"], e["ts"], e["client"]) for e in still] == [
        (e["event_id"], e["ts"], e["client"]) for e in moved
    ]
    assert sum(e["scores"]["yes"] for e in moved) < sum(e["scores"]["yes"] for e in still)


def test_same_seed_same_traffic_other_seed_other_traffic() -> None:
    first, again, other = CreditTraffic(1), CreditTraffic(1), CreditTraffic(2)
    assert first.reference(50) == again.reference(50) != other.reference(50)
    assert first.events(50, START, 10.0) == again.events(50, START, 10.0)
    assert [e["features"] for e in first.events(50, START, 10.0)] != [
        e["features"] for e in other.events(50, START, 10.0)
    ]


@given(st.lists(st.integers(0, 40), max_size=6))
@settings(max_examples=30, deadline=None)
def test_events_do_not_depend_on_how_many_are_asked_for_at_a_time(sizes: list[int]) -> None:
    whole = CreditTraffic(4)
    pieces = CreditTraffic(4)
    expected = whole.timed_events(sum(sizes), START, 350.0)
    made: list[tuple[float, dict[str, Any]]] = []
    at = START
    for size in sizes:
        made += pieces.timed_events(size, at, 350.0)
        at = made[-1][0] if made else START
    features = [e["features"] for _, e in made]
    assert features == [e["features"] for _, e in expected]
    assert [t for t, _ in made] == pytest.approx([t for t, _ in expected], abs=1e-5)
    assert [e["event_id"] for _, e in made] == [f"{MODEL}-{i}" for i in range(sum(sizes))]


def test_every_event_is_a_native_prediction_with_nothing_unknown() -> None:
    rules = TopicRules("predictions", Pseudonyms(b"k" * 32), live=True)
    native = formats()["native"]
    for i, (at, event) in enumerate(CreditTraffic(6).timed_events(300, START, 350.0)):
        decoded = native.decode(Record("predictions", 0, i, at, None, encode(event)), rules)
        (row,) = decoded.events
        assert (row.type, row.model, row.model_version, row.unknown_fields) == (EventType.PREDICTION, MODEL, "7", 0)
        assert row.time == pytest.approx(at, abs=0.001) and not row.time_corrected and not decoded.bad_rows
        assert row.features is not None and tuple(row.features) == FEATURES
        assert row.client is not None and event["client"] not in row.client


def test_volumes_by_zipf_and_mixes_of_their_own() -> None:
    traffic = CreditTraffic(8)
    events = traffic.events(20_000, START, 350.0)
    volume = Counter(e["client"] for e in events)
    assert set(volume) == set(traffic.clients) and len(traffic.clients) == 40
    expected = 20_000 / sum(1 / k for k in range(1, 41))
    assert volume[traffic.clients[0]] == pytest.approx(expected, rel=0.05)
    assert volume[traffic.clients[9]] == pytest.approx(expected / 10, rel=0.2)
    mixes = [[e["features"]["purpose"] for e in events if e["client"] == c] for c in traffic.clients[:6]]
    assert stats.chi2_contingency(table(*mixes)).pvalue < 1e-6


def test_times_follow_the_rate() -> None:
    times = [at for at, _ in CreditTraffic(9).timed_events(20_000, START, 350.0)]
    assert all(a <= b for a, b in pairwise(times))
    assert times[-1] - START == pytest.approx(20_000 / 350.0, rel=0.03)


def test_reference_rows_carry_no_identity_and_no_time() -> None:
    assert all(set(row) == {"features", "prediction", "scores"} for row in CreditTraffic(1).reference(20))


def test_clients_are_bounded() -> None:
    assert CreditTraffic(1, clients=1).events(5, START, 1.0)[0]["client"] == CreditTraffic(1, clients=1).clients[0]
    with pytest.raises(ValueError, match="from 1 to 40"):
        CreditTraffic(1, clients=41)


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz"])
def test_written_events_come_back_and_are_the_same_bytes_each_time(tmp_path: Path, name: str) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        assert write_events(tmp_path / folder / name, CreditTraffic(1).events(30, START, 5.0)) == 30
    first, second = (tmp_path / folder / name for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert [json.loads(line) for line in read_lines(first)] == CreditTraffic(1).events(30, START, 5.0)
