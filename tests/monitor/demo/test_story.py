from __future__ import annotations

import json
from itertools import takewhile

import pytest

from monitor.demo.story import Timeline, live_messages, sentence
from monitor.demo.traffic import CreditTraffic

START = 1_800_000_000.0


def test_the_drift_comes_and_goes_and_comes_again() -> None:
    timeline = Timeline(honest=10.0, drift=5.0, between=20.0)
    stages = [timeline.drift_at(t) for t in (0.0, 9.9, 10.0, 14.9, 15.0, 34.9, 35.0, 39.9, 40.0)]
    assert stages == [None, None, "income", "income", None, None, "income", "income", None]
    assert sentence("income") != sentence(None)


def test_live_messages_drift_when_the_timeline_says_so_and_are_due_at_their_own_time() -> None:
    timeline = Timeline(honest=4.0, drift=4.0, between=4.0)
    messages = live_messages(CreditTraffic(1), timeline, START, 350.0)
    seen = list(takewhile(lambda m: (m.at or 0.0) < START + 12.0, messages))
    events = [json.loads(m.value) for m in seen]
    assert [m.key for m in seen] == [e["client"].encode() for e in events]
    assert len({e["event_id"] for e in events}) == len(events) == pytest.approx(12 * 350, rel=0.1)
    income: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for message, event in zip(seen, events, strict=True):
        assert message.at is not None
        income[int((message.at - START) // 4)].append(event["features"]["income"])
    before, during, after = (sum(v) / len(v) for v in income.values())
    assert during / before == pytest.approx(0.7, abs=0.05)
    assert after / before == pytest.approx(1.0, abs=0.06)
