"""The latches of a model's account and the incidents they belong to: an incident ends with the last of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView
from dataclasses import dataclass

from detectors.base import Evidence, Finding, Page, Rows, Verdict
from monitor.state.codec import array_text, text_array


@dataclass(slots=True)
class Found:
    """A finding to be reported: latches an alarm has `closed`, or the one whose opening (`opened`) is a recovery."""

    finding: Finding
    closed: tuple[str, ...] = ()
    opened: str = ""


class Latches:
    """Latch key → id of the incident that its alarm opened or joined."""

    def __init__(self) -> None:
        self._incidents: dict[str, str] = {}
        self.changed = False
        """Since the last page was taken."""

    def keys(self) -> KeysView[str]:
        """The latches that are closed."""
        return self._incidents.keys()

    def hold(self, keys: Iterable[str], incident: str) -> None:
        """These belong to the incident."""
        self._incidents.update(dict.fromkeys(keys, incident))
        self.changed = True

    def release(self, key: str) -> str | None:
        """This one has opened. Its incident where it was the last of it, else None."""
        incident = self._incidents.pop(key, None)
        self.changed = True
        return None if incident in self._incidents.values() else incident

    def page(self) -> Page:
        """All state as arrays."""
        self.changed = False
        return {"keys": text_array(list(self._incidents)), "incidents": text_array(list(self._incidents.values()))}

    def load(self, page: Page) -> None:
        """Take what `page` gave."""
        self._incidents = dict(zip(array_text(page["keys"]), array_text(page["incidents"]), strict=True))


def recoveries(verdict: Verdict, evidence: Evidence, batch: Rows) -> Iterator[Found]:
    """A finding for each latch that the verdict on `evidence` has opened."""
    row = int(evidence.row[max(verdict.consumed - 1, 0)])
    now = float(batch.time[row])
    for latch in verdict.recovered:
        recovery = Finding(
            detector=verdict.detector,
            kind="feature_drift",
            account="drift",
            severity="info",
            time=now,
            row=row,
            position=int(evidence.position[max(verdict.consumed - 1, 0)]),
            subjects=(),
            onset=now,
            measures=(),
            action="recover",
        )
        yield Found(recovery, opened=latch.key)
