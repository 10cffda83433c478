"""The note that a model's traffic varies too much: when it is looked for, what it says, that it goes and survives."""

from __future__ import annotations

import math

import pytest

from detectors.drift.predictive import PredictiveDrift
from detectors.drift.variability import Variability
from monitor.sensing import FIRST, Sensing, note_of, sense
from monitor.state.codec import decode, encode
from monitor.watch import Prepared
from tests.monitor.test_sampling import START, SUBJECT, drifting, feed, pipeline, records

__all__ = ["drifting"]

BLUNT = (("n1", 4.2), ("n0", 3.9), ("n5", 3.1), ("n3", 3.0))
WANDERS = Variability(0.32, 0.15, 2.2, 13, BLUNT, True, 0.0, 0.26)
CALM = Variability(0.17, 0.15, 1.05, 13, (), False, 0.0, 0.0)


def test_what_varies_what_pages_and_what_to_do() -> None:
    text = note_of(WANDERS)
    assert text.startswith("Reduced sensitivity: 4 of 13 numeric columns wander (n1 4.2x, n0 3.9x, n5 3.1x and 1 more:")
    assert "pages from 0.32 sd in half of the columns, with independent events from 0.15 sd." in text
    assert "Slow drift pages beyond the 0.26 sd" in text and "two whole weeks" in text
    bursts = note_of(WANDERS._replace(slow=False, strayed=0.0, swing=0.1, smallest=math.nan))
    assert "resemble their neighbours" in bursts and "No lasting shift of a mean pages" in bursts
    assert "A season of 0.10 sd is allowed for." in bursts and "Slow drift" not in bursts
    assert "\n" not in note_of(WANDERS._replace(blunt=(("a\nb", 4.0),) * 13)) and len(note_of(WANDERS)) < 1_000


@pytest.mark.parametrize(("blunt", "means", "said"), [(0, 13, False), (2, 13, False), (3, 13, True), (1, 1, True)])
def test_one_column_of_many_is_no_matter_of_the_model(blunt: int, means: int, said: bool) -> None:
    assert bool(note_of(WANDERS._replace(blunt=BLUNT[:blunt], means=means))) == said


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Variability | None]:
    """What the next looks see: the first of the list, until it is the last."""
    seen: list[Variability | None] = [WANDERS]

    def variability(self: PredictiveDrift, alarms_a_day: float) -> Variability | None:
        assert 0 < alarms_a_day < 1
        return seen[0]

    monkeypatch.setattr(PredictiveDrift, "variability", variability)
    return seen


def test_the_note_stands_in_status_and_metrics_and_goes_away(
    drifting: list[bytes], looks: list[Variability | None]
) -> None:
    p = pipeline()
    units = list(feed(p, drifting[:2_000], {}))
    assert [u.subjects[0].note for u in units][:2] == ["", ""]  # nothing is known before some events were judged
    assert not p.watches[SUBJECT].sensing.known
    list(feed(p, drifting[:2_500], {}, 2_000))
    watch = p.watches[SUBJECT]
    value = p.metrics.registry.get_sample_value
    label = {"model": "credit-risk"}
    assert watch.row().note == note_of(WANDERS) and value("modelwarden_sensitivity_reduced", label) == 1
    assert value("modelwarden_smallest_mean_shift_sd", label) == 0.32
    assert value("modelwarden_smallest_mean_shift_independent_sd", label) == 0.15
    assert value("modelwarden_design_effect", label) == 2.2
    assert not [i for i in p.book.open() if i.kind == "monitor_health"]  # it is no incident
    looks[0] = CALM
    p.tick(START + 2_500)
    assert watch.row().note  # too soon for another look
    watch.watermark += 86_400
    watch.sensing._events -= 3_200
    p.tick(START + 2_501)
    p.tick(START + 2_502)
    assert watch.row().note == "" and value("modelwarden_sensitivity_reduced", label) == 0


def test_it_survives_a_restart_and_not_another_reference(
    drifting: list[bytes], looks: list[Variability | None]
) -> None:
    p = pipeline()
    units = list(feed(p, drifting[:2_500], {}))
    page = next(s for s in reversed([s for u in units for s in u.pages]) if s.detector == "watch.counts")
    again = Sensing()
    again.restore(decode(encode(page.arrays, page.version), page.version))
    assert again.note == note_of(WANDERS) and again.page()["sensing"].tolist() == page.arrays["sensing"].tolist()
    watch = p.watches[SUBJECT]
    assert watch.panel is not None and not again.due(watch.panel, watch.watermark)
    fresh = Sensing()
    fresh.restore({})  # of a version that did not look
    assert fresh.due(watch.panel, watch.watermark) and fresh.note == ""
    assert watch.row().note and watch._schema is not None
    watch.use(Prepared(watch._schema, watch.panel.context.reference))
    assert not watch.sensing.known and watch.row().note == ""


def test_an_error_is_no_end(drifting: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: PredictiveDrift, alarms_a_day: float) -> Variability | None:
        raise ZeroDivisionError

    monkeypatch.setattr(PredictiveDrift, "variability", broken)
    p = pipeline()
    list(feed(p, drifting[:3_000], {}))
    assert p.watches[SUBJECT].predictions == 3_000 and p.watches[SUBJECT].row().note == ""


def test_a_tick_looks_at_one_model(drifting: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    p = pipeline()
    lines = drifting[:2_300]
    for i in range(2):
        name = f'"model":"m{i}"'.encode()
        other = [line.replace(b'"model":"credit-risk"', name) for line in lines]
        p.feed("predictions", 0, records(other, i * len(lines)))
    p.tick(START)
    assert sum(w.sensing.known for w in p.watches.values()) == 1
    p.tick(START + 1)
    assert sum(w.sensing.known for w in p.watches.values()) == 2
    assert all(math.isfinite(w.sensing.smallest) and w.sensing._events >= FIRST for w in p.watches.values())
    sense(p.watches.values())  # nothing is due


def test_what_is_known_of_a_detector_goes_with_it(drifting: list[bytes], looks: list[Variability | None]) -> None:
    """One that starts anew has seen fewer events than the note speaks of; one that was stopped sees none."""
    p = pipeline()
    list(feed(p, drifting[:2_500], {}))
    watch = p.watches[SUBJECT]
    assert watch.panel is not None and watch.row().note
    watch.sensing._events = 5_000_000
    assert watch.sensing.due(watch.panel, watch.watermark)
    runner = next(r for r in watch.panel._runners if isinstance(r.detector, PredictiveDrift))
    runner.failure = "stopped"
    p.tick(START + 2_501)
    assert watch.row().note == "" and not watch.sensing.known
    label, value = {"model": "credit-risk"}, p.metrics.registry.get_sample_value
    assert value("modelwarden_sensitivity_reduced", label) == 0
    assert math.isnan(value("modelwarden_smallest_mean_shift_sd", label) or 0.0)
    assert not watch.sensing.due(watch.panel, watch.watermark)
