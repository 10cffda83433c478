"""The error rate: quiet while nothing changes, found when it rises, told with its numbers, by version, and restored."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.base import Context, StateError
from detectors.performance.error_rate import ErrorRate, Params
from detectors.performance.second_opinion import SecondOpinion
from detectors.performance.spread import Spread
from detectors.performance.versions import SLOTS
from tests.detectors.performance.labelled import Judged, labels, wrong


def test_a_rise_is_found_and_told_with_its_numbers() -> None:
    run = Judged().feed(labels(wrong(1, (5_000, 0.1), (1_000, 0.3))))
    (alarm,) = run.alarms
    assert 5_000 <= alarm.position < 5_400
    onset, observed, expected, name = run.why[0]
    assert abs(onset - 5_000 * 0.864) < 50 * 0.864
    assert 0.2 < observed < 0.45 and 0.08 < expected < 0.12
    assert name == "wrong predictions of version 1"


def test_steady_errors_never_alarm() -> None:
    for seed in range(40):
        assert not Judged().feed(labels(wrong(seed, (4_000, 0.02 + 0.01 * seed)))).alarms


def test_errors_in_runs_do_not_alarm() -> None:
    """Sessions of ten labels share a rate of their own."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rate = np.repeat(rng.beta(0.3, 2.7, 3_000), 10)
        assert not Judged().feed(labels((rng.random(len(rate)) < rate).astype(np.float64))).alarms


def test_fewer_errors_are_no_alarm() -> None:
    assert not Judged().feed(labels(wrong(1, (5_000, 0.3), (5_000, 0.05)))).alarms


def test_it_recovers_and_finds_the_next_rise() -> None:
    run = Judged().feed(labels(wrong(2, (5_000, 0.1), (1_000, 0.4), (4_000, 0.1), (1_000, 0.4))))
    assert len(run.alarms) == 2 and len(run.recovered) >= 1
    assert 6_000 < run.recovered[0] < 7_000 and 10_000 < run.alarms[1].position < 10_400
    assert run.why[1][2] == pytest.approx(0.1, abs=0.02)  # what was wrong meanwhile was not learnt


def test_versions_are_watched_apart() -> None:
    """A version that is new and worse is not a rise of the old one; one that gets worse is."""
    good, bad = wrong(3, (6_000, 0.1)), wrong(4, (6_000, 0.3))
    mixed = np.stack([good, bad], axis=1).ravel()
    assert not Judged().feed(labels(mixed, ("1", "2"))).alarms
    bad[3_000:] = wrong(5, (3_000, 0.6))
    run = Judged().feed(labels(np.stack([good, bad], axis=1).ravel(), ("1", "2")))
    assert [a.streams for a in run.alarms] == [(1,)] and run.why[0][3] == "wrong predictions of version 2"


def test_a_version_that_gives_its_slot_away_closes_its_incident() -> None:
    error = wrong(6, (5_000, 0.1), (500, 0.6), (2_000, 0.1))
    versions = ["1"] * 5_500 + [f"v{i // 400}" for i in range(2_000)]
    run = Judged().feed(labels(error, versions))
    assert len(run.alarms) == 1 and len(run.recovered) == 1
    assert not run.account.latches and len(versions) > SLOTS


def test_numbers_are_judged_by_their_distance_from_the_label() -> None:
    rng = np.random.default_rng(7)
    error = np.abs(rng.normal(0, 5.0, 6_000))
    assert not Judged().feed(labels(error, numeric=True)).alarms
    error[4_000:] *= 2
    error[100], error[3_000] = np.inf, 1e308
    run = Judged().feed(labels(error, numeric=True))
    assert run.alarms and 4_000 <= run.alarms[0].position < 4_300
    _, observed, expected, name = run.why[0]
    assert name == "distance from the label of version 1, at most 8.82528"
    assert expected == pytest.approx(3.8, abs=0.2) and 5.0 < observed < 7.0


def test_a_distance_with_heavy_tails_is_quiet_until_it_rises_and_recovers() -> None:
    for seed in range(12):
        error = np.abs(np.random.default_rng(seed).standard_t(2.2, 6_000))
        assert not Judged().feed(labels(error, numeric=True)).alarms
        error[4_000:4_600] = 1.8 * error[4_000:4_600]
        run = Judged().feed(labels(error, numeric=True))
        assert len(run.alarms) == 1 and 4_000 <= run.alarms[0].position < 4_500
        assert len(run.recovered) == 1 and 4_600 < run.recovered[0] < 5_300


def test_predictions_that_were_perfect_may_err() -> None:
    error = np.zeros(3_000)
    error[2_000:] = np.arange(1_000) % 2
    run = Judged().feed(labels(error, numeric=True))
    assert len(run.alarms) == 1 and 2_000 <= run.alarms[0].position < 2_200


@pytest.mark.parametrize("numeric", [False, True])
@pytest.mark.parametrize("cut", [1, 30, 700])
def test_cuts_and_restarts_change_nothing(cut: int, numeric: bool) -> None:
    error = wrong(8, (3_000, 0.1), (800, 0.5), (1_200, 0.1))
    error = error * 3 + np.random.default_rng(8).random(len(error)) if numeric else error
    versions = [f"{(i // 100) % 6}" for i in range(len(error))]
    batch = labels(error, versions, numeric)
    whole = Judged().feed(batch)
    other = Judged()
    for begin in range(0, len(batch), 500):
        other.feed(batch.part(begin, begin + 500), cut)
        fresh = ErrorRate(Context("model:/m"), Params())
        other.detector._changed = True
        fresh.restore(other.detector.dirty())
        other.detector = fresh
    assert other.alarms == whole.alarms and other.why == whole.why and other.recovered == whole.recovered


def test_adwin_is_a_second_opinion_that_survives_restarts() -> None:
    error = wrong(9, (6_000, 0.1), (6_000, 0.4))
    whole = Judged(Params(adwin=True)).feed(labels(error))
    figures = whole.detector.figures()
    assert figures["adwin_detections"] >= 1 and 0 < figures["adwin_width"] <= 8_192
    parts, batch = Judged(Params(adwin=True)), labels(error)
    for begin in range(0, len(batch), 2_500):
        parts.feed(batch.part(begin, begin + 2_500), 100)
        fresh = ErrorRate(Context("model:/m"), Params(adwin=True))
        fresh.restore(parts.detector.dirty())
        parts.detector = fresh
    assert parts.detector.figures() == figures
    assert Judged().feed(labels(error)).alarms == whole.alarms  # it decides nothing
    assert Judged().detector.figures() == {}


def test_adwin_is_neither_blinded_nor_let_to_stop_the_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    opinion = SecondOpinion()
    opinion.update(np.array([np.nan, np.inf, -1.0, 1e308] * 250))
    opinion.update(np.ones(500))
    assert opinion.detections == 1

    class Panic(BaseException):
        pass

    def panic(*_: object) -> None:
        raise Panic

    monkeypatch.setattr("river.drift.ADWIN", panic)
    broken = SecondOpinion()
    broken.update(np.ones(10))
    assert broken.width == 0 and broken.detections == 0


def test_pages_that_do_not_fit_are_refused() -> None:
    run = Judged().feed(labels(wrong(1, (500, 0.1))))
    pages = run.detector.dirty()
    for broken in ({"state": {"null": np.zeros(3)}}, {"other": pages["state"]}):
        with pytest.raises(StateError):
            run.detector.restore(broken)


def test_the_spread_of_independent_blocks_is_near_one_and_of_runs_above() -> None:
    rng = np.random.default_rng(1)
    even, runs = Spread(1), Spread(1)
    for _ in range(250):
        level = rng.normal(0, 1.5)
        for z in rng.normal(0, 1, 8):
            even.learn(0, z)
            runs.learn(0, z + level)
    assert even.v.max() < 1.5 and runs.v[3, 0] > 5
    again = Spread(1)
    again.load(runs.page())
    assert np.array_equal(again.v, runs.v)
    runs.forget(0)
    assert np.array_equal(runs.v, Spread(1).v)
