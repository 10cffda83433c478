"""How sharp the eyes of a model's drift detector are: looked at now and then, for metrics and a note in `status`.

A look plays changes against the bets, some 30 ms, so it is rare, and one model at a time: a tick looks at one at most.
What is known is part of the state, so that a restart neither forgets the note nor looks at all models at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from detectors.base import Page
from detectors.drift.variability import Variability
from monitor.panel import Panel
from monitor.printable import one_line, whereabouts
from monitor.state.codec import array_text, text_array

if TYPE_CHECKING:
    from monitor.watch import Watch

log = structlog.get_logger(__name__)
SOON: Final = (3_600.0, 25_600)
LATE: Final = (86_400.0, 3_200)
"""Seconds of event time and judged events after which there is a new look: the one or the other."""
FIRST: Final = 1_600
"""Events that the first look waits for."""
_BLUNT: Final = 0.2
"""Share of the means that must be blunt for a note: a single column that varies is no matter of the model."""
_NAMED: Final = 3
_MOST_NAME: Final = 40


class Sensing:
    """What the last look has shown. Numbers are NaN where nothing is known, and where no change is found."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Nothing is known."""
        self.smallest = self.independent = self.design_effect = math.nan
        """Smallest lasting shifts of a mean that page, in σ; see `Variability`."""
        self.note = ""
        """What is told of the model while it varies too much; empty otherwise."""
        self._time, self._events = -math.inf, 0

    @property
    def known(self) -> bool:
        """Whether there was a look."""
        return self._time > -math.inf

    def due(self, panel: Panel, time: float) -> bool:
        """Whether enough has happened until the event time `time`, or what is known is not of this detector."""
        if panel.drift is None:
            return self.known
        events = panel.drift.events
        if not self.known:
            return events >= FIRST
        if events < self._events:
            return True
        return any(time - self._time >= after and events - self._events >= least for after, least in (SOON, LATE))

    def look(self, panel: Panel, time: float) -> None:
        """Find out what can be found now."""
        detector = panel.drift
        if detector is None or detector.events < FIRST:
            self.forget()
            return
        self._time, self._events = time, detector.events
        try:
            seen = detector.variability(panel.drift_alarms_a_day)
        except Exception as error:  # it only tells: nothing else may stop with it
            log.warning("sensitivity unknown", model=panel.subject, error=whereabouts(error))
            return
        if seen is not None:
            self.smallest, self.independent, self.design_effect = seen.smallest, seen.independent, seen.design_effect
            self.note = note_of(seen)

    def page(self) -> Page:
        """What is stored."""
        numbers = [self.smallest, self.independent, self.design_effect, self._time, self._events]
        return {"sensing": np.array(numbers), "sensing_note": text_array([self.note])}

    def restore(self, page: Page) -> None:
        """Take what `page` gave, if it is there."""
        if "sensing" not in page or "sensing_note" not in page:
            return
        self.smallest, self.independent, self.design_effect, self._time, events = page["sensing"].tolist()
        self._events = int(events)
        self.note = array_text(page["sensing_note"])[0]


def sense(watches: Iterable[Watch]) -> None:
    """Look at the first model that is due."""
    for watch in watches:
        if watch.panel is not None and watch.held is None and watch.sensing.due(watch.panel, watch.watermark):
            watch.sense()
            return


def note_of(seen: Variability) -> str:
    """What to tell a user: what varies, what still pages, and what can be done. Empty while that is no matter."""
    if not seen.blunt or len(seen.blunt) < _BLUNT * seen.means:
        return ""
    named = ", ".join(f"{one_line(name)[:_MOST_NAME]} {v:.1f}x" for name, v in seen.blunt[:_NAMED])
    more = f" and {len(seen.blunt) - _NAMED} more" if len(seen.blunt) > _NAMED else ""
    what = "wander" if seen.slow else "have events that resemble their neighbours"
    text = (
        f"Reduced sensitivity: {len(seen.blunt)} of {seen.means} numeric columns {what} ({named}{more}: variance of"
        " sums of 1,600 events over that of independent ones)."
    )
    if math.isnan(seen.smallest):
        text += " No lasting shift of a mean pages in half of the columns"
    else:
        text += f" A lasting shift of a mean pages from {seen.smallest:.2f} sd in half of the columns"
    text += f", with independent events from {seen.independent:.2f} sd."
    if seen.strayed:
        text += f" Slow drift pages beyond the {seen.strayed:.2f} sd that the first days strayed from the reference."
    if seen.swing:
        text += f" A season of {seen.swing:.2f} sd is allowed for."
    return text + (_IF_SLOW if seen.slow else _IF_BURSTS)


_IF_SLOW: Final = (
    " False alarms may come up to twice as often as the budget says. If this follows hour or weekday, give a reference"
    " with times, in order, of two whole weeks; else a smaller `memory` of predictive_drift follows a wander sooner, or"
    " accept it."
)
_IF_BURSTS: Final = (
    " Sessions and batches do that, and the budget holds: accept it, or have one event of each of them watched."
)
