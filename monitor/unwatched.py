"""Models that are not watched because the limit is reached: their events are counted, by model up to a bound."""

from __future__ import annotations

from monitor.intake.events import Event, EventType
from monitor.state.unit import SubjectRow

MAX_MODELS = 100
"""Models counted by name; the rest are counted together."""
OTHERS = "(other models)"


class Unwatched:
    """Counts by subject, stored as subject rows with `unwatched` set."""

    def __init__(self) -> None:
        self._rows: dict[str, SubjectRow] = {}
        self._changed: set[str] = set()

    def count(self, subject: str, event: Event) -> None:
        """One prediction or label of a model that is not watched."""
        if subject not in self._rows and len(self._rows) >= MAX_MODELS:
            subject = OTHERS
        row = self._rows.get(subject) or _empty(subject, event)
        is_label = event.type is EventType.LABEL
        self._rows[subject] = row._replace(
            predictions=row.predictions + (not is_label),
            labels=row.labels + is_label,
            events=row.events + 1,
            watermark=max(row.watermark, event.time),
        )
        self._changed.add(subject)

    def remember(self, row: SubjectRow) -> None:
        """Take a stored row."""
        self._rows[row.subject] = row

    def release(self, subject: str) -> SubjectRow | None:
        """The counts of a model that is watched from now on."""
        self._changed.discard(subject)
        return self._rows.pop(subject, None)

    def take_changes(self) -> list[SubjectRow]:
        """Rows changed since the last call."""
        changed = [self._rows[subject] for subject in sorted(self._changed)]
        self._changed.clear()
        return changed


def _empty(subject: str, event: Event) -> SubjectRow:
    together = subject == OTHERS
    return SubjectRow(
        subject=subject,
        model=OTHERS if together else event.model,
        tenant="" if together else event.tenant,
        predictions=0,
        labels=0,
        labels_matched=0,
        events=0,
        clients=0,
        clients_exact=False,
        state="off",
        attack_state="off",
        unwatched=True,
        watermark=0.0,
    )
