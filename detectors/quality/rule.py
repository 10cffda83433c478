"""What the exact rules of data quality share: a reference, pages that are due when an event came, their findings."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import Any

import numpy as np

from detectors.base import Batch, Context, Detector, Finding, Measure, Page, Severity, SubjectRef
from detectors.reference import Reference


class Rule(Detector):
    """An exact rule that judges rows against a reference. Its state has changed since the last `dirty` where
    `changed` is set. ValueError without a reference."""

    def __init__(self, context: Context, params: Any) -> None:
        super().__init__(context, params)
        if not isinstance(context.reference, Reference):
            raise ValueError(f"{self.name} needs a reference")
        self.reference = context.reference
        self.changed = False

    def dirty(self) -> dict[str, Page]:
        if not self.changed:
            return {}
        self.changed = False
        return self.pages()

    @abstractmethod
    def pages(self) -> dict[str, Page]:
        """All of the state."""

    def finding(
        self,
        batch: Batch,
        row: int,
        cause: str,
        subjects: tuple[SubjectRef, ...],
        measures: tuple[Measure, ...],
        *,
        opens: bool,
        onset: float | None = None,
        severity: Severity = "warning",
    ) -> Finding:
        """What a row of the batch shows. `onset` in epoch seconds, else the time of the row."""
        now, version = float(batch.time[row]), int(batch.version[row])
        return Finding(
            detector=self.name,
            kind=self.kind,
            account="rules",
            severity=severity,
            time=now,
            row=row,
            position=batch.start + row,
            subjects=subjects,
            onset=now if onset is None else onset,
            measures=measures,
            cause=cause,
            action="open" if opens else "recover",
            model_version=batch.versions[version] if version >= 0 else None,
        )


def packed_json(value: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A value as an array of the bytes of its JSON."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8).copy()


def unpacked_json(packed: np.ndarray[Any, Any]) -> Any:
    """The inverse of `packed_json`; ValueError when it is none."""
    return json.loads(packed.tobytes())
