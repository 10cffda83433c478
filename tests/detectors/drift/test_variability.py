"""Where traffic varies too much it is told, by column and in which way; independent events are not told of."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.drift.smallest import SHIFTS
from detectors.drift.variability import FAR, Variability
from tests.long.simulated import Law, Watch, batches, days_before, drawn, reference

A_DAY = 1 / 30


def told(law: Law, ordered: int, events: int) -> Variability:
    """After so many events; the noise is learnt from that many `ordered` ones before (none: from live ones alone)."""
    watch = Watch(days_before(law, 2, ordered, 100_000) if ordered else reference(law, 2, 1_000))
    assert watch.drift.variability(A_DAY) is None  # nothing was judged yet
    assert not list(watch.alarms(batches(drawn(law, 2, events))))
    before = [page.tobytes() for page in watch.drift._page().values()]
    seen = watch.drift.variability(A_DAY)
    assert seen is not None and watch.drift.variability(A_DAY) == seen
    assert [page.tobytes() for page in watch.drift._page().values()] == before  # to look changes nothing
    return seen


@pytest.mark.parametrize(("ordered", "events"), [(0, 8_192), (20_000, 2_048)])
def test_independent_events_blunt_nothing(ordered: int, events: int) -> None:
    seen = told("iid", ordered, events)
    assert not seen.blunt and not seen.slow and seen.swing == 0
    assert seen.smallest < 1.8 * seen.independent and seen.design_effect < 1.7


def test_columns_that_wander_are_named() -> None:
    seen = told("wander", 60_000, 2_048)
    names = [name for name, _ in seen.blunt]
    assert set(names[:7]) == {*(f"n{i}" for i in range(6)), "prediction.score"}  # the score follows n0, n1 and n5
    assert seen.slow and seen.smallest > FAR * seen.independent
    effects = [v for _, v in seen.blunt]
    assert effects == sorted(effects, reverse=True) and effects[-1] > 2.5


def test_sessions_blunt_all_columns_and_are_no_wander() -> None:
    seen = told("sessions", 20_000, 2_048)
    assert len(seen.blunt) == seen.means == 13 and not seen.slow


def test_while_noise_is_assumed_nothing_is_said_of_columns() -> None:
    seen = told("sessions", 0, 1_024)
    assert not seen.blunt and seen.smallest > FAR * seen.independent


def test_the_smallest_shift_is_that_of_all_sizes() -> None:
    """Halving finds what trying every size does."""
    watch = Watch(reference("iid", 2, 1_000))
    list(watch.alarms(batches(drawn("iid", 2, 4_096))))
    seen, slow = watch.drift.variability(A_DAY), watch.drift.sensitivity(A_DAY)
    assert seen is not None and slow.found[0].what == "mean"
    assert (seen.smallest, seen.independent) == (slow.found[0].change, slow.calm[0].change)
    assert np.isin([seen.smallest, seen.independent], SHIFTS).all()
