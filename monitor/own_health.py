"""Incidents about the monitor itself: lost records, unusable references, stopped detectors, models beyond the limit.

A condition that is checked at every start (`LASTING`) closes when a start finds it mended; one that only happens
(`FADING`) closes when it has not happened for an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from alerts.incidents import Incident, IncidentBook, Sighting
from detectors.base import Finding, Measure, Severity, SubjectRef
from monitor.lineup import SHADOW
from monitor.troubles import Trouble

DAEMON = "daemon"
"""Subject of these incidents."""
QUIET_SECONDS = 3_600.0
LASTING = ("reference:", "detector:", "anew:", "source:", "task:", "config:")
FADING = ("lost:", "unwatched", "keyed:")


class OwnHealth:
    """Opens, feeds and closes incidents of kind `monitor_health` through `apply`."""

    def __init__(self, apply: Callable[[Sighting], Incident | None], open_incidents: Iterable[Incident]) -> None:
        self._apply = apply
        self._last: dict[str, float] = {i.cause: 0.0 for i in open_incidents if i.subject == DAEMON}
        self._raised: set[str] = set()
        self._lately: set[str] = set()
        """What happened since the last tick, whose time is not known before the next one."""

    def begin(self, at: float) -> None:
        """A session begins: what is open was last seen now."""
        self._last = dict.fromkeys(self._last, at)

    def tell(
        self,
        cause: str,
        measure: Measure,
        at: float,
        severity: Severity = "warning",
        more: tuple[Measure, ...] = (),
        subject: str = "",
    ) -> None:
        """Something is wrong, with a watched subject or (none) the monitor.

        `cause` begins with one of LASTING or FADING, or whoever tells says when it is `over`.
        """
        self._last[cause] = at
        self._raised.add(cause)
        self._apply(self._sighting(cause, "open", at, severity, measure.detector, (measure, *more), subject))

    def hear(self, trouble: Trouble, at: float) -> None:
        """The same, of a condition that has a name."""
        self.tell(trouble.cause, trouble.measure, at, trouble.severity, subject=trouble.subject)

    def touch(self, cause: str, at: float) -> bool:
        """It happened again, since the last tick: true where that is known already, and only the time is new."""
        if cause not in self._last:
            return False
        self._last[cause] = at
        self._lately.add(cause)
        return True

    def causes(self) -> list[str]:
        """What is open."""
        return list(self._last)

    def over(self, cause: str, at: float) -> None:
        """It is mended: close it."""
        if cause in self._last:
            self._close(cause, at)

    def resolved(self, book: IncidentBook) -> None:
        """Somebody may have closed one by hand: if it happens again, that is news."""
        live = {i.cause for i in book.open() if i.subject == DAEMON}
        self._last = {cause: last for cause, last in self._last.items() if cause in live}

    def fade(self, at: float) -> None:
        """A tick: close what has not happened for long. What happened since the last one happened now."""
        self._last.update((cause, max(at, self._last[cause])) for cause in self._lately if cause in self._last)
        self._lately.clear()
        for cause in [c for c, last in self._last.items() if c.startswith(FADING) and at - last > QUIET_SECONDS]:
            self._close(cause, at)

    def mended(self, at: float) -> None:
        """A start is complete: close lasting conditions that it did not find."""
        for cause in [c for c in self._last if c.startswith(LASTING) and c not in self._raised]:
            self._close(cause, at)

    def _close(self, cause: str, at: float) -> None:
        del self._last[cause]
        self._raised.discard(cause)
        self._apply(self._sighting(cause, "recover", at, "info", "monitor", ()))

    def _sighting(
        self,
        cause: str,
        action: str,
        at: float,
        severity: Severity,
        detector: str,
        measures: tuple[Measure, ...],
        subject: str = "",
    ) -> Sighting:
        finding = Finding(
            detector=detector,
            kind="monitor_health",
            account="rules",
            severity=severity,
            time=at,
            row=-1,
            position=0,
            subjects=tuple(SubjectRef("series", m.stream) for m in measures),
            onset=min((m.since for m in measures), default=at),
            measures=measures,
            cause=cause,
            action="open" if action == "open" else "recover",
        )
        model, tenant = _model_of(subject)
        return Sighting(finding, DAEMON, model, tenant, f"{cause}/{at:.3f}", None)


def _model_of(subject: str) -> tuple[str | None, str]:
    """Name and tenant of the model that a subject is; None and no tenant where it is none."""
    if not subject.startswith("model:"):
        return None, ""
    tenant, _, model = subject.removeprefix("model:").removesuffix(SHADOW).partition("/")
    return model, tenant
