"""Which version of a model answers: a new one takes over when it makes most of the last 200 predictions.

A typing error in one record, or a canary with a tenth of the traffic, is no new version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from detectors.base import Page
from monitor.intake.events import Event
from monitor.state.codec import array_text, text_array

RECENT: Final = 200
"""Predictions that are looked at."""
_NONE = "\0"
"""Stands for no version in a page: no version of an event is called so."""


class Rollout:
    """The version that answers, and those of the last predictions."""

    def __init__(self) -> None:
        self.current: str | None = None
        self._recent: list[str | None] = []
        self._changed = False

    def add(self, events: Sequence[Event]) -> str | None:
        """Count predictions. The version that has taken over with them, where another answered before."""
        versions = [event.model_version for event in events[-RECENT:]]
        if {self.current}.issuperset(versions) and {self.current}.issuperset(self._recent):
            self._changed |= len(self._recent) < RECENT
            self._recent = [*self._recent, *versions][-RECENT:]
            return None
        self._changed = True
        self._recent = [*self._recent, *versions][-RECENT:]
        others = Counter(name for name in self._recent if name is not None and name != self.current)
        found, number = others.most_common(1)[0] if others else (None, 0)
        if self.current is None:
            self.current = found
        elif 2 * number > RECENT:
            self.current = found
            return found
        return None

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        if not self._changed:
            return {}
        self._changed = False
        names = [_NONE if name is None else name for name in (self.current, *self._recent)]
        return {"versions": {"names": text_array(names)}}

    def restore(self, page: Page) -> None:
        """Take the page of an equal one."""
        self.current, *self._recent = [None if name == _NONE else name for name in array_text(page["names"])]
