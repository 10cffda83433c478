"""One watched model: its counts, its clients, the events waiting for the next cut, and its detectors.

Batches are cut at every 1,024th event of the model and at ticks, never at the end of a poll, so that what detectors
see does not depend on how records arrive. A model without a reference learns one from its first events.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from alerts.incidents import Incident
from detectors.base import Finding, Rows
from detectors.drift.segments import segments_of
from detectors.reference import Origin, Reference
from detectors.traffic.subject import DEFAULT, TrafficSettings
from monitor.clients import ClientLedger
from monitor.intake.columns import (
    MAX_FIELDS,
    MAX_TEXT,
    SCORE,
    VALUE,
    Place,
    Schema,
    build_batch,
    build_reference,
    codes_of,
    infer_schema,
    logged_names,
)
from monitor.intake.events import Event
from monitor.intake.joins import JoinSettings
from monitor.labels import Cut, ModelLabels
from monitor.lineup import PanelSettings
from monitor.panel import Panel, Restored
from monitor.rollout import Rollout
from monitor.sampling import Sampling
from monitor.sensing import Sensing
from monitor.state.codec import array_text, text_array
from monitor.state.unit import StatePage, SubjectRow

ANOTHER_REFERENCE = "another reference is in force"
CUT = 1_024
MAX_LEARNING_BYTES = 16 * 1024 * 1024
"""Of a provisional reference: it is part of the state, and who writes to the topic decides how large events are."""
PROVISIONAL_ROWS = 500
"""Live events a model without a reference learns its provisional one from. They are not judged themselves."""
_VERSION = 1
COUNTS, CLIENTS, _LEARNING, _LABELS = "watch.counts", "watch.clients", "watch.learning", "watch.labels"
_VERSIONS = "watch.versions"
_WATCHING, _RELEARNING, _HELD = range(3)
OnNewVersion = Literal["inherit", "fresh", "hold"]
Report = Callable[["Watch", Finding, Rows], Incident | None]


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """What the configuration says of one model."""

    panel: PanelSettings = field(default_factory=PanelSettings)
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    labels: JoinSettings = field(default_factory=JoinSettings)
    traffic: TrafficSettings | None = DEFAULT
    """None: the request rate and latency of predictions are not watched."""
    on_new_version: OnNewVersion = "inherit"
    threshold: Mapping[str, float] = field(default_factory=dict)
    """Decision threshold of the score, by class."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A reference with the schema that its rows imply."""

    schema: Schema
    reference: Reference


class Learning(NamedTuple):
    """A provisional reference in the making; `expected_end` in epoch seconds, NaN while nothing tells it."""

    rows: int
    of: int
    expected_end: float


class Watch:
    """State and detectors of one model. One thread owns it."""

    def __init__(self, subject: str, model: str, tenant: str, settings: WatchSettings) -> None:
        self.subject = subject
        self.model = model
        self.tenant = tenant
        self.settings = settings
        self.predictions = 0
        self.labels = 0
        self.watermark = 0.0
        self.clients = ClientLedger()
        self.sampling = Sampling()
        self.sensing = Sensing()
        self.joined = ModelLabels(subject, settings.labels, settings.classes)
        self.panel: Panel | None = None
        self.content = ""
        """Content hash of the stored version in use."""
        self.content_changed = False
        """Whether the stored state is that of another version."""
        self.training: Sequence[Event] = ()
        """Rows the model was trained on, where they are given; a reference prepared from now on has them."""
        self.learnt: list[Event] | None = None
        """Rows of a provisional reference just made, until the caller has taken them for storage."""
        self.learnt_for: str | None = None
        """The new version they were learnt for, where one has taken over."""
        self.off: str | None = None
        """Why the model cannot be watched, where it cannot."""
        self.rollout = Rollout()
        self.rolled: str | None = None
        """A version that has just taken over and changed how the model is watched; the caller empties it."""
        self.held: str | None = None
        """The version that waits for somebody to say that it may be watched by the present reference."""
        self._relearning = False
        self._schema: Schema | None = None
        self._learning: list[Event] = []
        self._learning_changed = False
        self._judged = 0
        self._events: list[Event] = []
        self._places: list[Place] = []
        self._changed = True

    @property
    def predicts_numbers(self) -> bool:
        """Whether the model predicts numbers, not classes, as far as its reference shows."""
        return self._schema is not None and VALUE in self._schema.outputs_numeric

    def prepare(self, rows: Sequence[Event], origin: Origin) -> Prepared:
        """A reference of this model made of these rows, not yet in force. ValueError when they carry no features."""
        schema = infer_schema(rows, self.settings.features, self.settings.classes)
        reference = build_reference(rows, schema, origin, self.subject)
        if self.training:
            places = [("training", 0, i, 0) for i in range(len(self.training))]
            reference = replace(reference, training=build_batch(self.subject, 0, self.training, places, schema))
        return Prepared(schema, reference)

    def use(self, prepared: Prepared, content: str = "") -> None:
        """Watch against this reference from now on, with detectors that have seen nothing.

        `content` is the hash it is stored under, where that is another one than its own.
        """
        self.content, self._changed = content or prepared.reference.version, True
        self._schema = prepared.schema
        settings = replace(self.settings.panel, thresholds=_thresholds(prepared.schema, self.settings.threshold))
        self.panel = Panel(self.subject, self.model, prepared.reference, settings)
        self.sensing = Sensing()
        self._watch_segments()

    def _watch_segments(self) -> None:
        """Remember of every prediction which of the watched segments it is of."""
        if self.panel is not None:
            found = segments_of(self.panel.context.reference, self.settings.panel.segments)
            self.joined.segments.watch(found, logged_names(self._schema))

    def add_prediction(self, event: Event, place: Place) -> bool:
        """Queue one prediction. True when a cut is due."""
        self._events.append(event)
        self._places.append(place)
        return (self.predictions + len(self._events)) % CUT == 0

    def add_label(self, event: Event, place: Place) -> bool:
        """Queue one label. True when a cut is due."""
        self.labels += 1
        self._changed = True
        self.joined.add(event, place, len(self._events))
        return self.labels % CUT == 0

    @property
    def queued(self) -> list[Event]:
        """Predictions that the next cut judges; a cut leaves this list as it is."""
        return self._events

    def cut(self, report: Report) -> None:
        """Give the queued events to the detectors: predictions, then the labels that can be joined."""
        events, places = self._events, self._places
        if not events and not len(self.joined):
            return
        self._events, self._places = [], []
        self._changed = True
        before = (self.predictions, self._judged, self.watermark)
        self._cut_predictions(events, places, report)
        predictions, judged, watermark = before
        learnt = self.predictions - predictions - (self._judged - judged)
        cut = Cut(events, places, learnt, judged, watermark)
        labels = self.joined.cut(cut, self._schema if self.panel is not None else None)
        if labels is not None and self.panel is not None and self.held is None:
            self.panel.detect_labels(labels, lambda finding, source: report(self, finding, source))
        self._roll(events)

    def _cut_predictions(self, events: list[Event], places: list[Place], report: Report) -> None:
        if self._schema is None and self.off is None:
            take = self._rows_to_learn(events)
            self._count(events[:take])
            self._learn([e for e in events[:take] if self._teaches(e)])
            events, places = events[take:], places[take:]
        if not events:
            return
        self._count(events)
        if self._schema is not None and self.panel is not None and self.held is None:
            batch = build_batch(self.subject, self._judged, events, places, self._schema)
            self._judged += len(events)
            self.panel.detect(batch, lambda finding, source: report(self, finding, source), self.sampling.of(batch))

    def _rows_to_learn(self, events: Sequence[Event]) -> int:
        """How many of the events belong to the stretch that a provisional reference is learnt from."""
        missing = PROVISIONAL_ROWS - len(self._learning)
        if not self._relearning:
            return min(missing, len(events))
        teach = [i for i, e in enumerate(events, 1) if self._teaches(e)]
        return teach[missing - 1] if len(teach) >= missing else len(events)

    def _teaches(self, event: Event) -> bool:
        return not self._relearning or event.model_version == self.rollout.current

    def _roll(self, events: Sequence[Event]) -> None:
        """See whether a new version has taken over, and do what the configuration wants then."""
        version = self.rollout.add(events)
        if version is None or self.panel is None or self.settings.on_new_version == "inherit":
            return
        self.rolled = version
        if self.settings.on_new_version == "hold":
            self.held = version
        else:
            self.panel, self._schema, self._relearning, self._learning = None, None, True, []
            self._learning_changed = True

    def sample(self, one_in: int) -> None:
        """Judge one prediction in so many from the next cut on."""
        self.sampling.one_in = one_in
        self._changed = True

    def release(self) -> None:
        """Watch a version that was held."""
        self.held = None
        self._changed = True

    def advance(self, report: Report) -> None:
        """Let detectors see how far time has come."""
        if self.held is None and self.panel is not None and self._schema is not None:
            empty = build_batch(self.subject, self._judged, [], [], self._schema)
            self.panel.advance(self.watermark, empty, lambda finding, source: report(self, finding, source))

    def sense(self) -> None:
        """Find out which changes the detectors can find now."""
        if self.panel is not None:
            self.sensing.look(self.panel, self.watermark)
            self._changed = True

    @property
    def learning(self) -> Learning:
        """How far the provisional reference is, and when it will be complete if events come as they did."""
        n, times = len(self._learning), [event.time for event in self._learning]
        span = max(times) - min(times) if n > 1 else 0.0
        end = max(times) + span / (n - 1) * (PROVISIONAL_ROWS - n) if span > 0 else float("nan")
        return Learning(n, PROVISIONAL_ROWS, end)

    @property
    def state(self) -> str:
        """off, calibrating (it learns its reference), held (a new version waits) or watching."""
        if self.off:
            return "off"
        return "calibrating" if self.panel is None else "watching" if self.held is None else "held"

    def row(self) -> SubjectRow:
        """Counts and condition as `status` shows them."""
        return SubjectRow(
            subject=self.subject,
            model=self.model,
            tenant=self.tenant,
            predictions=self.predictions,
            labels=self.labels,
            labels_matched=self.joined.join.counts.matched,
            events=self.predictions + self.labels,
            clients=self.clients.distinct,
            clients_exact=self.clients.exact,
            state=self.state,
            attack_state="off" if self.off or self.panel is None else self.panel.attack_state,
            unwatched=False,
            watermark=self.watermark or -math.inf,  # no event yet
            sample_rate=1 / self.sampling.one_in,
            unjudged=self.sampling.unjudged,
            note=self.sensing.note if self.panel is not None else "",
        )

    def dirty(self) -> list[StatePage]:
        """Pages changed since the last call. Only after a cut: queued events are in no page."""
        pages: list[StatePage] = []
        if self._changed:
            self._changed = False
            counts = np.array([self.predictions, self.labels, self._judged], np.int64)
            condition = _RELEARNING if self._relearning else _WATCHING if self.held is None else _HELD
            page = {"counts": counts, "watermark": np.array([self.watermark]), "condition": np.array([condition])}
            page["sampling"] = self.sampling.page()
            page |= self.sensing.page()
            page["reference"] = text_array([self.content if self.panel is not None else ""])
            if self.held is not None and self.panel is not None:
                page["held"] = text_array([self.held, self.panel.context.reference.version])
            pages.append(self._page(COUNTS, "all", page))
        if self._learning_changed:
            self._learning_changed = False
            pages.append(
                self._page(_LEARNING, "rows", {"rows": np.frombuffer(pack_rows(self._learning), np.uint8).copy()})
            )
        pages += [self._page(_VERSIONS, name, page) for name, page in self.rollout.dirty().items()]
        pages += [self._page(CLIENTS, name, page) for name, page in self.clients.dirty().items()]
        pages += [self._page(_LABELS, name, page) for name, page in self.joined.dirty().items()]
        return pages + (self.panel.dirty() if self.panel is not None else [])

    def restore(self, pages: Iterable[StatePage], counted: SubjectRow | None = None) -> Restored:
        """Take stored pages; the reference, if there is one, must be in use already.

        `counted` has the counts of the last commit: they hold where the page with them cannot be read.
        """
        stored = list(pages)
        self.clients.restore({p.page: p.arrays for p in stored if p.detector == CLIENTS})
        anew = self._restore_labels([p for p in stored if p.detector == _LABELS], counted)
        if counted is not None:
            self.predictions, self.labels, self.watermark = (
                counted.predictions,
                counted.labels,
                max(counted.watermark, 0.0),
            )
            self._judged = self.predictions
        for page in stored:
            if page.detector == COUNTS:
                self.predictions, self.labels, self._judged = page.arrays["counts"].tolist()
                self.watermark = float(page.arrays["watermark"][0])
                self.sampling.restore(page.arrays.get("sampling"))
                self.sensing.restore(page.arrays)
                self._restore_condition(page.arrays)
                before = array_text(page.arrays["reference"]) if "reference" in page.arrays else ()
                self.content_changed = self.panel is not None and any(c not in ("", self.content) for c in before)
            elif page.detector == _VERSIONS:
                self.rollout.restore(page.arrays)
        for page in stored:
            if page.detector == _LEARNING and self.panel is None:
                self._learning = unpack_rows(page.arrays["rows"].tobytes())
        if self.panel is None:
            return Restored(anew, ())
        restored = self.panel.restore(p for p in stored if not p.detector.startswith("watch."))
        return restored._replace(anew=restored.anew | anew)

    def _restore_condition(self, arrays: Mapping[str, Any]) -> None:
        """Go on learning for a new version, or holding it, unless the configuration or the reference has changed."""
        condition = int(arrays["condition"][0]) if "condition" in arrays else _WATCHING
        if condition == _RELEARNING and self.settings.on_new_version == "fresh":
            self.panel, self._schema, self._relearning = None, None, True
        if condition == _HELD and self.settings.on_new_version == "hold" and self.panel is not None:
            version, reference = array_text(arrays["held"])
            self.held = version if reference == self.panel.context.reference.version else None

    def _restore_labels(self, stored: Sequence[StatePage], counted: SubjectRow | None) -> dict[str, str]:
        """Predictions that wait for labels. Without their pages labels are joined to later predictions only."""
        anew: dict[str, str] = {}
        try:
            self.joined.restore({p.page: p.arrays for p in stored})
        except Exception as error:
            self.joined = ModelLabels(self.subject, self.settings.labels, self.settings.classes)
            self._watch_segments()
            anew[_LABELS] = f"stored predictions cannot be read: {error}"[:400]
        if counted is not None:
            counts = self.joined.join.counts
            counts.matched = max(counts.matched, counted.labels_matched)
        return anew

    def _count(self, events: Sequence[Event]) -> None:
        self.predictions += len(events)
        names, codes = codes_of([e.client for e in events])
        time = np.array([e.time for e in events])
        self.clients.add(codes, names, time)
        self.watermark = max(self.watermark, float(time.max(initial=self.watermark)))

    def _learn(self, events: Sequence[Event]) -> None:
        self._learning += map(slim, events)
        self._learning_changed = True
        if len(pack_rows(self._learning)) > MAX_LEARNING_BYTES:
            self.off = f"its first events are larger than {MAX_LEARNING_BYTES:,} bytes: give it a reference"
            self._learning = []
            return
        if len(self._learning) < PROVISIONAL_ROWS:
            return
        rows, self._learning = self._learning, []
        try:
            self.use(self.prepare(rows, "live"))
        except ValueError as error:
            self.off = str(error)
        else:
            self.learnt = rows
            self.learnt_for, self._relearning = (self.rollout.current if self._relearning else None), False

    def _page(self, detector: str, name: str, arrays: dict[str, Any]) -> StatePage:
        return StatePage(self.subject, detector, "", name, _VERSION, arrays)


def _thresholds(schema: Schema, by_class: Mapping[str, float]) -> dict[str, float]:
    """Where the watched score of two classes decides: its own class may be named, or the other one."""
    if schema.positive is None:
        return {}
    other = next(c for c in schema.classes if c != schema.positive)
    at = by_class.get(schema.positive, 1 - by_class[other] if other in by_class else None)
    return {} if at is None else {SCORE: at}


def slim(event: Event) -> Event:
    """What a reference needs of an event: features and answers, no identifier, nothing without bound."""
    features = None if event.features is None else dict(islice(map(_slim_item, event.features.items()), MAX_FIELDS))
    return Event(
        event.type,
        event.time,
        model_version=event.model_version,
        segment=event.segment,
        features=features,
        vector=None if event.vector is None else event.vector[:MAX_FIELDS],
        prediction=_slim_value(event.prediction),
        label=_slim_value(event.label),
        scores=event.scores if len(event.scores or ()) <= MAX_FIELDS else None,
    )


def _slim_item(item: tuple[str, Any]) -> tuple[str, Any]:
    return item[0], _slim_value(item[1])  # a name that is cut would be another one


def _slim_value(value: Any) -> Any:
    """Scalars as they are, long texts cut; of a structure only that it is one."""
    if isinstance(value, str):
        return value[:MAX_TEXT]
    return value if value is None or isinstance(value, bool | int | float) else []


def pack_rows(rows: Sequence[Event]) -> bytes:
    """Reference rows as bytes."""
    return msgspec.msgpack.encode([slim(e) for e in rows])


def unpack_rows(data: bytes) -> list[Event]:
    """The rows that `pack_rows` packed."""
    return msgspec.msgpack.decode(data, type=list[Event])
