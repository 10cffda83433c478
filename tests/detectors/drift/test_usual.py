"""What is usual at an hour, in the fields' own units, and whys that compare with it: a season is not an effect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from alerts.why import sentence
from detectors.account import SumAccount
from detectors.base import Batch, Context, Explanation, Measure, Views
from detectors.drift.calendar import learnt
from detectors.drift.history import History
from detectors.drift.params import Params
from detectors.drift.predictive import PredictiveDrift
from detectors.drift.target import Target, target
from detectors.drift.usual import Usual, tilted
from detectors.reference import Reference
from tests.detectors import streams
from tests.detectors.drift.test_calendar import DAY, MONDAY, PER_DAY, moved, place, seasonal

SWING, SHIFT = 0.8, 0.6
PEAK = 6 * 3_600.0


class At(History):
    """A history of which only the times of blocks are asked: all lie within a minute of this one."""

    def __init__(self, of: Target, time: float) -> None:
        super().__init__(of)
        self._time = time

    def times(self, block: int) -> tuple[float, float]:
        return self._time - 30 + block, self._time + 30 + block


def usual(reference: Reference, of: Target, hour: float) -> Usual:
    return Usual(of, learnt(reference, of, 0.3), At(of, MONDAY + 5 * DAY + hour), 0, 8)


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Four days: n0 swings by 0.8 σ, so does the logarithm of n2; c0 is v1 more often in the first half of a day."""
    rows = seasonal(4, SWING).rows
    values, codes = rows.numeric.values.copy(), rows.category.codes.copy()
    wave = np.sin(2 * np.pi * rows.time / DAY)
    values[:, 2] *= np.exp(SWING * wave)
    codes[:, 0] = np.random.default_rng(1).random(len(rows)) < 0.4 + 0.2 * wave
    rows = replace(
        rows,
        numeric=replace(rows.numeric, values=values),
        category=replace(rows.category, codes=codes.astype(np.int32)),
    )
    return Reference(rows, "file", "usual", ordered=True)


@pytest.fixture(scope="module")
def of(reference: Reference) -> Target:
    return target(Context("model:/simulated", reference, PER_DAY))


@pytest.mark.parametrize(("hour", "sign"), [(PEAK, 1), (3 * PEAK, -1), (2 * PEAK, 0)])
def test_means_medians_and_shares_follow_the_hour(reference: Reference, of: Target, hour: float, sign: int) -> None:
    told = usual(reference, of, hour)
    expected = {"n0:mean": sign * SWING, "n2:mean": np.exp(0.5 + sign * SWING)}
    for name, truth in expected.items():
        column = of.scores[place(of, name)].column
        mean = told.mean(place(of, name))
        assert mean == pytest.approx(truth, abs=0.25 * float(of.raw_sd[column]))
        if sign:
            assert abs(mean - truth) < 0.35 * abs(float(of.raw_mean[column]) - truth)
    assert told.share(place(of, "c0:category 'v1'")) == pytest.approx(0.4 + sign * 0.2, abs=0.05)
    law = told.law(of.scores[place(of, "c0:category 'v1'")].column)
    assert law is not None and law.sum() == pytest.approx(1.0) and law[:2].sum() > 0.99


def test_streams_without_a_season_have_nothing_usual_at_an_hour(reference: Reference, of: Target) -> None:
    calendar = learnt(reference, of, 0.3)
    assert calendar is not None
    told = usual(reference, of, PEAK)
    still = next(i for i in of.location.values() if calendar.period[i] == 0)
    assert told.mean(still) is None and told.law(of.scores[still].column) is None
    assert told.share(len(of.scores) - 1) is None  # counts keep their season: it is allowed for
    nothing = Usual(of, None, At(of, MONDAY), 0, 1)
    assert nothing.mean(place(of, "n0:mean")) is None and nothing.law(0) is None


def test_a_tilted_normal_law_is_the_same_law_elsewhere() -> None:
    edges = np.linspace(-6, 6, 601)
    share, score = np.diff(norm.cdf(edges)), (edges[:-1] + edges[1:]) / 2
    law = tilted(share, score, np.array([0.0, 0.7, -50.0]))
    assert law[0] == pytest.approx(share, abs=1e-9)
    assert law[1] @ score == pytest.approx(0.7, abs=1e-9)
    assert np.sqrt(law[1] @ score**2 - 0.49) == pytest.approx(1.0, abs=0.01)
    assert np.isfinite(law).all() and law[2] @ score < -4  # beyond the scores: as near as they go


def shifted_at_the_peak() -> Batch:
    """Two and a quarter days of the same season; n0 is 0.6 σ higher in the last hours, at its peak."""
    rows = moved(replace(streams.join(streams.clean(2, int(2.3 * PER_DAY))), start=4 * PER_DAY), SWING)
    values = rows.numeric.values.copy()
    values[int(2.2 * PER_DAY) :, 0] += SHIFT
    return replace(rows, numeric=replace(rows.numeric, values=values))


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    """Of the first alarm."""
    context = Context("model:/simulated", seasonal(4, SWING), PER_DAY)
    detector, account = PredictiveDrift(context, Params()), SumAccount(1.0, 30 * DAY)
    account.register(detector.name, detector.streams(), detector.bets(), detector.share)
    for one in streams.cut(shifted_at_the_peak(), [500] * 100):
        for evidence in detector.update(one, Views(one, context)):
            verdict = account.judge(evidence)
            detector.react(verdict)
            if verdict.alarm is not None:
                return detector.explain(verdict.alarm.streams, verdict.alarm.block)
    raise AssertionError("the shift was not found")


def measure(explanation: Explanation, stream: str, statistic: str) -> Measure:
    return next(m for m in explanation.measures if (m.stream, m.statistic) == (stream, statistic))


def test_a_shift_at_the_peak_is_told_against_what_is_usual_then(explanation: Explanation) -> None:
    mean, whole = (measure(explanation, "n0:mean", s) for s in ("mean", "whole_reference"))
    assert mean.expected == pytest.approx(0.95 * SWING, abs=0.1)  # the hours around the peak
    assert whole.expected == pytest.approx(0.0, abs=0.05) and whole.observed == mean.observed
    assert mean.observed - mean.expected == pytest.approx(SHIFT, abs=0.25)
    median = measure(explanation, "n0:median", "median")
    assert median.expected == pytest.approx(mean.expected, abs=0.1)
    assert measure(explanation, "n0:median", "whole_reference").expected == pytest.approx(0.0, abs=0.05)


def test_a_season_is_no_effect(explanation: Explanation) -> None:
    mean = measure(explanation, "n0:mean", "mean")
    assert explanation.effects["n0"] == pytest.approx(
        (mean.observed - mean.expected) / np.hypot(1, SWING / 2**0.5), rel=0.1
    )
    assert explanation.effects["n0"] < 0.75 < mean.observed / np.hypot(1, SWING / 2**0.5)
    assert measure(explanation, "n0:psi", "psi").observed < 0.8


def test_the_sentence_says_what_is_usual_at_these_hours(explanation: Explanation) -> None:
    text = sentence("feature_drift", explanation.measures, explanation.onset)
    assert (
        text.startswith("n0: mean 0.7")
        and " is usual at these hours, " in text
        and " over the whole reference)" in text
    )
