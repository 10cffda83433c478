"""The smallest changes that page: they follow budget, noise and season, and the detector does find them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detectors.account import SumAccount
from detectors.base import Context, Views
from detectors.drift.params import Params
from detectors.drift.predictive import PredictiveDrift
from detectors.drift.smallest import Sensitivity, Smallest
from tests.detectors import streams

MONTH = 30 * 86_400.0


def made(params: Params) -> PredictiveDrift:
    return PredictiveDrift(Context("model:/simulated", streams.reference(1), streams.PER_DAY), params)


def of_means(told: tuple[Smallest, ...]) -> Smallest:
    return next(one for one in told if one.what == "mean")


@pytest.fixture(scope="module")
def settled() -> tuple[PredictiveDrift, Sensitivity]:
    """A detector that has seen 8,000 independent events, and what it can find then."""
    detector = made(Params(season_swing=0.0))
    context = detector.context
    account = SumAccount(1.0, MONTH)
    account.register(detector.name, detector.streams(), detector.bets(), detector.share)
    for one in streams.clean(5, 8_000):
        for evidence in detector.update(one, Views(one, context)):
            detector.react(account.judge(evidence))
    return detector, detector.sensitivity(1 / 30)


def test_every_family_is_told_in_its_unit(settled: tuple[PredictiveDrift, Sensitivity]) -> None:
    found = {one.what: one for one in settled[1].found}
    assert {found[what].unit for what in ("frequent category", "missing values", "new values")} == {"share"}
    assert (found["mean"].unit, found["spread"].unit, found["correlation"].unit) == ("sd", "factor", "r")
    assert 0.15 < found["mean"].change < 0.4 and found["spread"].change > 1
    assert 0 < found["missing values"].change < 0.1


def test_noise_that_is_assumed_asks_for_larger_changes(settled: tuple[PredictiveDrift, Sensitivity]) -> None:
    start = made(Params()).sensitivity(1 / 30)
    assert start.assumed == 4_000 and settled[1].assumed == 0
    assert of_means(start.found).change > 2 * of_means(settled[1].found).change
    assert of_means(start.calm).change == of_means(settled[1].calm).change


def test_a_larger_budget_finds_smaller_changes_or_finds_them_sooner(
    settled: tuple[PredictiveDrift, Sensitivity],
) -> None:
    detector, usual = settled
    many = of_means(detector.sensitivity(100 / 30).found)
    one = of_means(usual.found)
    assert (many.change, many.events) < (one.change, one.events)


def test_a_change_twice_as_large_is_found(settled: tuple[PredictiveDrift, Sensitivity]) -> None:
    detector, usual = settled
    size = 2 * of_means(usual.found).change
    context = Context("model:/simulated", streams.reference(1), streams.PER_DAY)
    detector = PredictiveDrift(context, Params(season_swing=0.0))
    account = SumAccount(1.0, MONTH)
    account.register(detector.name, detector.streams(), detector.bets(), detector.share)
    alarms = []
    for one in streams.shifted(5, 12_000, 8_000, f"mean{size:.3f}"):
        for evidence in detector.update(one, Views(one, context)):
            verdict = account.judge(evidence)
            detector.react(verdict)
            alarms += [verdict.alarm] if verdict.alarm else []
    assert alarms and alarms[0].position > 8_000


def test_asking_does_not_change_what_is_judged() -> None:
    one, two = made(Params()), made(Params())
    two.sensitivity(1 / 30)
    batch = streams.clean(5, 1_000)[0]
    told = [[e.log_e for e in detector.update(batch, Views(batch, detector.context))] for detector in (one, two)]
    assert all(np.array_equal(a, b) for a, b in zip(*told, strict=True))
    assert not any(math.isnan(one.change) for one in one.sensitivity(1 / 30).calm)
