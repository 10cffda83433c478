"""The labels of one watched model: from events to the columns of the join, and from joined pairs to a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.base import F64, I32, I64, Bool, LabelBatch, Page
from monitor.intake.columns import VALUE, Place, Schema, identity_of
from monitor.intake.events import Event
from monitor.intake.joins import NONE, NUMBER, Answers, Asked, Joined, JoinSettings, LabelJoin, Told, id_keys
from monitor.label_segments import LabelSegments
from monitor.state.codec import array_text, text_array

MAX_VERSIONS = 1_000
MAX_VERSION_TEXT = 200
LAGS = 1_024
"""Joined labels whose lag the metrics summarise."""
_MAX_SCORE = 1e30


@dataclass(frozen=True, slots=True)
class Cut:
    """The predictions of one cut. The first `skipped` were learnt from and not judged; `judged` came before the cut.

    `watermark` is the newest prediction time before the cut.
    """

    events: Sequence[Event]
    places: Sequence[Place]
    skipped: int
    judged: int
    watermark: float


class ModelLabels:
    """Labels that wait for the next cut, and the join with its pages."""

    def __init__(self, subject: str, settings: JoinSettings, classes: Sequence[str]) -> None:
        self.subject = subject
        self.join = LabelJoin(settings)
        self._id_key = settings.id_key
        self.judged = 0
        """Joined labels given to detectors."""
        self.lags: deque[float] = deque(maxlen=LAGS)
        self.segments = LabelSegments()
        self._answers = Answers()
        self._classes = tuple(classes)
        self._events: list[Event] = []
        self._places: list[Place] = []
        self._before: list[int] = []
        self._versions: dict[str, int] = {}
        self._versions_changed = False

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: Event, place: Place, before: int) -> None:
        """Queue a label that comes after `before` predictions of the same cut."""
        self._events.append(event)
        self._places.append(place)
        self._before.append(before)

    def cut(self, cut: Cut, schema: Schema | None) -> LabelBatch | None:
        """Join what is queued with the predictions of the cut. The batch for detectors, if there is something."""
        told, events, places = self._told(), self._events, self._places
        before = np.array(self._before, np.int64)
        self._events, self._places, self._before = [], [], []
        asked = self._asked(cut.events)
        marks = np.maximum.accumulate(np.concatenate([[cut.watermark], asked.time]))
        joined = self.join.add(asked, told, cut.watermark)
        self.lags.extend((joined.time - joined.asked)[~np.isnan(joined.asked)].tolist())
        if schema is None or not len(joined):
            return None
        # how many predictions had come when the pair was complete
        come = np.where(joined.by_label, 0, joined.source + 1)
        come[joined.by_label] = before[joined.source[joined.by_label]]
        error, known = _errors(joined, schema)
        rows = np.flatnonzero(known & (come >= cut.skipped + ~joined.by_label))
        if not len(rows):
            return None
        pairs = zip(joined.by_label[rows].tolist(), joined.source[rows].tolist(), strict=True)
        sources = [(events[i], places[i]) if label else (cut.events[i], cut.places[i]) for label, i in pairs]
        classes = {self._answers.one(text): i for i, text in enumerate(schema.classes)}
        batch = LabelBatch(
            subject=self.subject,
            start=self.judged,
            time=joined.time[rows],
            asked=joined.asked[rows],
            clock=marks[come[rows]],
            position=cut.judged + come[rows] - cut.skipped,
            identity=identity_of([place for _, place in sources]),
            event_ids=tuple(event.event_id for event, _ in sources),
            version=self._version_codes(joined.version[rows], [event for event, _ in sources]),
            versions=tuple(self._versions),
            classes=schema.classes,
            answer=_codes(joined.answer[rows], joined.answer_kind[rows], classes),
            label=_codes(joined.label[rows], joined.label_kind[rows], classes),
            error=error[rows],
            score=joined.score[rows],
            weight=joined.weight[rows],
            sample_weight=joined.sample_weight[rows],
            numeric=VALUE in schema.outputs_numeric,
            member=self.segments.bits(joined.segments[rows]) if self.segments.names else None,
            segments=tuple(self.segments.names),
        )
        self.judged += len(batch)
        return batch

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        pages = self.join.dirty()
        if pages:
            pages["head"]["judged"] = np.array([self.judged], np.int64)
        if self._versions_changed:
            self._versions_changed = False
            pages["versions"] = {"names": text_array(list(self._versions))}
        return {**pages, **self.segments.dirty()}

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the pages of an equal one."""
        if "head" in pages:
            self.judged = int(pages["head"]["judged"][0])
        if "versions" in pages:
            self._versions = {name: i for i, name in enumerate(array_text(pages["versions"]["names"]))}
        self.segments.restore(pages)
        self.join.restore(pages)

    def _asked(self, events: Sequence[Event]) -> Asked:
        said = [e.prediction for e in events]
        if None in said:
            said = [_answer(e, self._classes) for e in events]
        answer, kind = self._answers.column(said)
        names = [e.model_version for e in events]
        versions = {name: self._version(name) for name in dict.fromkeys(names)}
        return Asked(
            key=id_keys([e.event_id for e in events], self._id_key),
            time=np.array([e.time for e in events], np.float64),
            answer=answer,
            kind=kind,
            score=self._scores(events),
            weight=np.array([e.sample_weight for e in events], np.float64),
            version=np.fromiter(map(versions.__getitem__, names), np.int64, len(names)),
            segments=self.segments.of(events),
        )

    def _scores(self, events: Sequence[Event]) -> F64:
        """The score of each predicted class, NaN where unknown."""
        scored, said = [e.scores for e in events], []
        if {dict}.issuperset(map(type, scored)):
            with suppress(KeyError, TypeError):  # no prediction, or one that is not among them as it is
                said = [scores[e.prediction] for scores, e in zip(scored, events, strict=True)]
        if said and {float}.issuperset(map(type, said)):
            scores = np.array(said, np.float64)
            scores[~(np.abs(scores) < _MAX_SCORE)] = np.nan
            return scores
        return np.array([_score(e, self._classes) for e in events], np.float64)

    def _told(self) -> Told:
        events = self._events
        answer, kind = self._answers.column([e.label for e in events])
        own, own_kind = self._answers.column([_answer(e, self._classes) for e in events])
        return Told(
            key=id_keys([e.event_id for e in events], self._id_key),
            before=np.array(self._before, np.int64),
            time=np.array([e.time for e in events], np.float64),
            answer=answer,
            kind=kind,
            weight=np.array([e.sample_weight for e in events], np.float64),
            own=own,
            own_kind=own_kind,
        )

    def _version(self, name: str | None) -> int:
        if name is None:
            return -1
        code = self._versions.get(name)
        if code is None:
            name = name[:MAX_VERSION_TEXT]
            if name not in self._versions and len(self._versions) >= MAX_VERSIONS:
                return -1
            code = self._versions.setdefault(name, len(self._versions))
            self._versions_changed = True
        return code

    def _version_codes(self, codes: I64, events: Sequence[Event]) -> I32:
        """The prediction's version, or that which its label names."""
        return np.array(
            [c if c >= 0 else self._version(e.model_version) for c, e in zip(codes.tolist(), events, strict=True)],
            np.int32,
        )


def _errors(joined: Joined, schema: Schema) -> tuple[F64, Bool]:
    """The error of each pair, and where there is one."""
    if VALUE in schema.outputs_numeric:
        known: Bool = (joined.answer_kind == NUMBER) & (joined.label_kind == NUMBER)
        with np.errstate(over="ignore"):
            return np.abs(joined.answer - joined.label), known
    differs = (joined.answer_kind != joined.label_kind) | (joined.answer != joined.label)
    return differs.astype(np.float64), joined.answer_kind != NONE


def _codes(values: F64, kinds: Any, classes: Mapping[tuple[float, int], int]) -> I32:
    pairs = zip(values.tolist(), kinds.tolist(), strict=True)
    return np.array([classes.get(pair, -1) for pair in pairs], np.int32)


def _answer(event: Event, classes: Sequence[str]) -> Any:
    """What the model answered: its prediction, else the class with the highest score."""
    if event.prediction is not None or event.scores is None:
        return event.prediction
    scored = [(v, c) for c, v in _scores(event, classes).items() if isinstance(v, int | float)]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def _score(event: Event, classes: Sequence[str]) -> float:
    """The score of the predicted class, NaN where unknown."""
    if event.scores is None:
        return np.nan
    answer = _answer(event, classes)
    value = _scores(event, classes).get(answer if isinstance(answer, str) else str(answer))
    if type(value) is not float and type(value) is not int:
        return np.nan
    return float(value) if abs(value) < _MAX_SCORE else np.nan


def _scores(event: Event, classes: Sequence[str]) -> Mapping[str, Any]:
    if isinstance(event.scores, dict):
        return event.scores
    if isinstance(event.scores, list) and len(event.scores) == len(classes):
        return dict(zip(classes, event.scores, strict=True))
    return {}
