"""The season that a reference shows: learnt from whole days, held out by days, taken away whatever the batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detectors.base import Batch, Context, Views
from detectors.drift.calendar import Calendar, learnt
from detectors.drift.params import Params
from detectors.drift.predictive import PredictiveDrift
from detectors.drift.scores import BLOCK
from detectors.drift.target import Target, target
from detectors.reference import Reference
from tests.detectors import streams

DAY = 86_400.0
PER_DAY = 5_000
MONDAY = 1_767_571_200.0  # 2026-01-05


def seasonal(days: float, swing: float, weekend: float = 0.0, seed: int = 1) -> Reference:
    """Rows in order, evenly over `days` days: n0 swings by `swing` σ each day, n1 is `weekend` σ higher on weekends."""
    rows = streams.join(streams.clean(seed, int(days * PER_DAY), PER_DAY))
    return Reference(moved(rows, swing, weekend), "file", f"seasonal-{seed}", ordered=True)


def moved(rows: Batch, swing: float, weekend: float = 0.0) -> Batch:
    time = MONDAY + np.arange(rows.start, rows.start + len(rows)) * DAY / PER_DAY
    values = rows.numeric.values.copy()
    values[:, 0] += swing * np.sin(2 * np.pi * time / DAY)
    values[:, 1] += 2 * weekend * (((time - MONDAY) // DAY) % 7 >= 5)
    return replace(rows, time=time, numeric=replace(rows.numeric, values=values))


def compiled(reference: Reference) -> Target:
    return target(Context("model:/simulated", reference, PER_DAY))


def learn(reference: Reference) -> Calendar:
    made = learnt(reference, compiled(reference), 0.3)
    assert made is not None
    return made


def place(of: Target, name: str) -> int:
    return [s.stream.name for s in of.scores].index(name)


def test_a_daily_swing_is_learnt_and_taken_away() -> None:
    reference = seasonal(4, 0.5)
    of, calendar = compiled(reference), learn(reference)
    at = place(of, "n0:mean")
    assert calendar.period[at] == 1
    assert calendar.amplitude[at] == pytest.approx(0.5, abs=0.07)
    assert calendar.swing[at] < 0.1
    live = moved(replace(streams.join(streams.clean(2, 4 * PER_DAY)), start=4 * PER_DAY), 0.5)
    sums, squares, _ = of.block_sums(of.binning.index(live))
    level, spread = calendar.without(live.time, sums, squares)
    hourly = [x[: len(x) // 8 * 8, at].reshape(-1, 8).mean(axis=1).std() / BLOCK for x in (sums, level)]
    assert hourly[1] < 0.4 * hourly[0]
    assert spread[:, at].sum() < squares[:, at].sum()


def test_a_weekend_needs_two_whole_weeks() -> None:
    short, long = (learn(seasonal(days, 0.0, weekend=0.5)) for days in (13, 14))
    at = place(compiled(seasonal(4, 0.0)), "n1:mean")
    assert short.period[at] != 2 and long.period[at] == 2
    assert long.explained[at] > 0.3


def test_without_a_season_none_is_found_and_little_is_allowed_for() -> None:
    reference = seasonal(4, 0.0)
    of, calendar = compiled(reference), learn(reference)
    assert (calendar.period > 0).mean() < 0.03
    assert np.median(calendar.swing[: of.linear]) < 0.2


def test_what_happened_on_one_day_is_no_season() -> None:
    reference = seasonal(4, 0.0)
    values = reference.rows.numeric.values.copy()
    values[PER_DAY // 4 : PER_DAY // 2, 0] += 2
    rows = replace(reference.rows, numeric=replace(reference.rows.numeric, values=values))
    bad = replace(reference, rows=rows)
    assert learn(bad).period[place(compiled(bad), "n0:mean")] == 0


@pytest.mark.parametrize("days", [0.5, 1.9])
def test_less_than_two_days_teach_nothing(days: float) -> None:
    reference = seasonal(days, 0.5)
    assert learnt(reference, compiled(reference), 0.3) is None


def test_rows_without_order_or_with_season_swing_0_teach_nothing() -> None:
    reference = seasonal(2, 0.5)
    of = compiled(reference)
    assert learnt(replace(reference, ordered=False), of, 0.3) is None
    assert learnt(reference, of, 0.0) is None
    backwards = replace(reference.rows, time=reference.rows.time[::-1].copy())
    assert learnt(replace(reference, rows=backwards), of, 0.3) is None


def test_hours_that_the_reference_does_not_show_have_no_season() -> None:
    """Office hours only: at night the curve would be anybody's guess."""
    whole = seasonal(4, 0.5).rows
    office = np.flatnonzero((whole.time - MONDAY) % DAY < 10 * 3_600)
    rows = streams.part(whole, 0, len(office))
    rows = replace(
        rows,
        time=whole.time[office],
        numeric=replace(rows.numeric, values=whole.numeric.values[office], status=whole.numeric.status[office]),
    )
    calendar = learn(Reference(rows, "file", "office", ordered=True))
    night = np.full(BLOCK, MONDAY + 15 * 3_600)
    assert (calendar.features(night) == 0).all()


def test_a_column_that_shows_the_time_keeps_some_variance() -> None:
    reference = seasonal(4, 0.0)
    values = reference.rows.numeric.values.copy()
    values[:, 0] = np.sin(2 * np.pi * reference.rows.time / DAY)
    rows = replace(reference.rows, numeric=replace(reference.rows.numeric, values=values))
    clock = replace(reference, rows=rows)
    of, calendar = compiled(clock), learn(clock)
    at = place(of, "n0:mean")
    sums, squares, _ = of.block_sums(of.binning.index(rows)[: len(rows) // BLOCK * BLOCK])
    _, spread = calendar.without(rows.time[: len(rows) // BLOCK * BLOCK], sums, squares)
    assert spread[:, at].mean() / BLOCK > 0.08 * of.spread[at] ** 2


def test_batches_do_not_matter_and_state_comes_back() -> None:
    reference = seasonal(2, 0.5)
    live = moved(replace(streams.join(streams.clean(2, 1_500)), start=2 * PER_DAY), 0.5)
    told = []
    for sizes in ([1_500], [7, 400, 93, 1_000]):
        context = Context("model:/simulated", reference, PER_DAY)
        detector = PredictiveDrift(context, Params())
        for one in streams.cut(live, sizes):
            for _ in detector.update(one, Views(one, context)):
                pass
        told.append(detector.dirty()["state"])
    assert all(np.array_equal(told[0][name], told[1][name], equal_nan=True) for name in told[0])
    again = PredictiveDrift(Context("model:/simulated", reference, PER_DAY), Params())
    again.restore({"state": told[0]})
    assert np.array_equal(again._page()["s1"], told[0]["s1"])
