"""Requests joined to responses: in either order, bounded by age and bytes, and the same after any restart."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from monitor.intake.events import Event, EventType, Half, Rejected, Tensor
from monitor.intake.pairing import LONGEST_STEP, OVERHEAD, PAGE_HALVES, Pairing, PairingRules, split_stored
from monitor.metrics import Metrics
from monitor.state.codec import decode, encode
from monitor.state.unit import StatePage

AT = 1_795_161_600.0


def pairing(**rules: Any) -> Pairing:
    return Pairing(PairingRules("in", **rules), Metrics(), lambda model, tenant: (("a", "b"), ("no", "yes")))


def request(key: str, rows: int = 1, at: float = AT, offset: int = 0, **more: Any) -> Half:
    values: list[Any] = [float(i) for i in range(2 * rows)]
    return Half(key, False, at, ("in", 0, offset), rows, [Tensor("x", 2, values)], **{"client": "c_1", **more})


def response(key: str, rows: int = 1, at: float = AT + 0.25, offset: int = 0, **more: Any) -> Half:
    tensors = [Tensor("predict", 1, [1] * rows), Tensor("predict_proba", 2, [0.2, 0.8] * rows)]
    return Half(key, True, at, ("out", 3, offset), rows, tensors, **{"model": "m", "model_version": "v3", **more})


def test_a_pair_is_the_events_of_its_rows() -> None:
    expected = [
        Event(
            EventType.PREDICTION, time=AT + 0.25, row=i, event_id=f"k/{i}", request_id="k", model="m",
            model_version="v3", client="c_1", features={"a": 2.0 * i, "b": 2.0 * i + 1},
            prediction="yes", scores={"no": 0.2, "yes": 0.8}, latency_ms=250.0,
        )
        for i in range(2)
    ]  # fmt: skip
    for first, second in ((request, response), (response, request)):
        p = pairing()
        assert p.pair(first("k", 2, offset=5)).events == []
        events, place = p.pair(second("k", 2, offset=5))
        assert events == expected and place == ("out", 3, 5)
        assert p.counts["paired"] == 1 and p.bytes == 0
    p = pairing()
    p.pair(request("one"))
    (event,) = p.pair(response("one", at=AT - 5)).events
    assert event.event_id == "one" and event.latency_ms is None


def test_pairs_that_do_not_fit_are_refused_and_used_up() -> None:
    p = pairing()
    p.pair(request("k", 2))
    with pytest.raises(Rejected, match="2 rows"):
        p.pair(response("k", 3))
    p.pair(request("n"))
    with pytest.raises(Rejected, match="model"):
        p.pair(response("n", model=None))
    assert p.counts["mismatched"] == 2 and p.bytes == 0
    p.pair(request("f"))
    assert p.pair(Half("f", True, AT, ("out", 0, 0), 0, [], failed=True)).events == []
    assert p.counts["failed"] == 1 and p.bytes == 0


def test_columns_of_tensors_never_share_a_name() -> None:
    def features(*tensors: Tensor) -> dict[str, Any] | None:
        p = pairing()
        p.pair(msgspec.structs.replace(request("k"), tensors=list(tensors)))
        (event,) = p.pair(response("k")).events
        return event.features

    wide, narrow = Tensor("a", 2, [1.0, 2.0]), Tensor("a_0", 1, [3.0])
    assert features(wide, Tensor("b", 1, [3.0])) == {"a_0": 1.0, "a_1": 2.0, "b": 3.0}
    assert features(wide, narrow) == {"a[0]": 1.0, "a[1]": 2.0, "a_0": 3.0}
    assert features(narrow, wide) == {"a_0": 3.0, "a[0]": 1.0, "a[1]": 2.0}
    for twice in ((narrow, narrow), (wide, narrow, Tensor("a[1]", 1, [4.0]))):
        with pytest.raises(Rejected, match=r"two inputs of the request are named 'a(_0|\[1\])'"):
            features(*twice)


def test_equal_keys_are_paired_in_order() -> None:
    p = pairing()
    p.pair(request("k", client="c_1"))
    p.pair(request("k", client="c_2"))
    assert p.counts["duplicate"] == 1
    assert [p.pair(response("k")).events[0].client for _ in range(2)] == ["c_1", "c_2"]
    p.pair(response("k"))
    assert p.counts["paired"] == 2 and p.bytes > 0


def test_halves_that_wait_too_long_are_counted() -> None:
    p = pairing(max_age=60.0)
    p.tick(AT)
    p.pair(request("a"))
    p.pair(response("b"))
    for second in range(1, 61):
        p.tick(AT + second)
    assert p.counts["unanswered"] == p.counts["unmatched"] == 0
    p.tick(AT + 61)
    assert p.counts["unanswered"] == p.counts["unmatched"] == 1 and p.bytes == 0


def test_a_halt_of_the_daemon_lets_nothing_expire() -> None:
    p = pairing(max_age=60.0)
    p.tick(AT)
    p.pair(request("a"))
    p.tick(AT + 86_400)
    p.tick(AT - 86_400)
    assert len(p.pair(response("a")).events) == 1
    assert LONGEST_STEP < 60


def test_memory_is_bounded_and_the_oldest_go_first() -> None:
    p = pairing(max_bytes=20 * OVERHEAD)
    for i in range(1_000):
        p.pair(request(str(i)))
        assert p.bytes <= 20 * OVERHEAD
    kept = 1_000 - p.counts["dropped"]
    assert 5 < kept < 20
    assert p.pair(response("999")).events and not p.pair(response("0")).events


def store(p: Pairing, kept: dict[str, StatePage]) -> dict[str, StatePage]:
    pages = {page.page: page._replace(arrays=decode(encode(page.arrays, 1), 1)) for page in p.dirty()}
    return kept | pages


def test_a_restart_at_any_commit_changes_nothing() -> None:
    rng = random.Random(3)
    halves = [h for i in range(900) for h in (request(str(i % 700), offset=i), response(str(i % 700), offset=i))]
    halves = [h for h in halves if rng.random() > 0.2]
    rng.shuffle(halves)
    rules = {"max_age": 40.0, "max_bytes": 250 * OVERHEAD}

    def run(restart: bool) -> tuple[list[list[Event]], dict[str, int]]:
        p, told, kept = pairing(**rules), [], dict[str, StatePage]()
        for i, half in enumerate(halves):
            told.append(p.pair(half).events)
            if i % 10 == 9:
                p.tick(AT + i / 10)
                kept = store(p, kept)
                if restart:
                    p = pairing(**rules)
                    p.restore(kept.values())
        return told, p.counts

    calm, counts = run(False)
    assert run(True) == (calm, counts)
    assert min(counts[name] for name in ("paired", "unanswered", "unmatched", "duplicate", "dropped")) > 0


def test_a_commit_writes_only_the_pages_that_changed() -> None:
    p = pairing()
    for i in range(4 * PAGE_HALVES):
        p.pair(request(str(i)))
    assert len(p.dirty()) == 5
    p.pair(response(str(PAGE_HALVES)))
    assert sorted(page.page for page in p.dirty()) == ["000001", "counts"]
    assert [page.page for page in p.dirty()] == ["counts"]


def test_pages_that_emptied_are_used_again() -> None:
    p, names = pairing(), set()
    for i in range(5 * PAGE_HALVES):
        p.pair(request(str(i)))
        p.pair(response(str(i)))
        names |= {page.page for page in p.dirty()}
    assert names == {"000000", "counts"}


def test_stored_pages_are_told_apart_from_those_of_models() -> None:
    p = pairing()
    p.pair(request("a"))
    other = StatePage("model:/m", "x", "", "all", 1, {})
    own, others = split_stored([*p.dirty(), other])
    assert others == [other] and set(own) == {"in"}
    with pytest.raises(ValueError, match="version 9"):
        pairing().restore([own["in"][0]._replace(version=9)])
