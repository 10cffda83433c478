"""Events to columns: which fields are numbers and which are categories, and a Batch of any run of events.

All per-event Python of the hot path after decoding is here, and it runs column by column: a column of plain numbers
costs one list and one array, whatever its length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from detectors.base import (
    ABSENT_CODE,
    F64,
    I32,
    I64,
    MISTYPED_CODE,
    NULL_CODE,
    U8,
    Batch,
    Category,
    Cell,
    Identity,
    Numeric,
)
from detectors.batch import KNOWN_WORDS
from detectors.reference import Origin, Reference
from monitor.intake.events import Event

MAX_FIELDS = 1_000
"""Fields watched of one model: names come from records, and must not grow state without bound."""
MAX_NEW_FIELDS = 20
MAX_NAME = 200
"""Characters of a field's name. Longer ones are told by their beginning and a hash."""
MAX_TEXT = 256
"""Characters of a category that count, in references and live: longer texts are told apart by their beginning."""
SCORE, CLASS, VALUE = "prediction.score", "prediction.class", "prediction.value"
_ABSENT = object()
_NO_FEATURES: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Schema:
    """Fields of a model: numeric and categorical inputs, and the columns that its answers become.

    `vocabulary` holds, per categorical field, the reference's values in order of first appearance. `positive` is the
    class whose score is watched where there are two classes, None for the highest score.
    """

    numeric: tuple[str, ...]
    category: tuple[str, ...]
    vocabulary: tuple[tuple[str, ...], ...]
    outputs_numeric: tuple[str, ...]
    outputs_category: tuple[str, ...]
    classes: tuple[str, ...]
    positive: str | None
    closed: bool = False
    """The fields were declared: others are not watched, and are no news."""
    logged: tuple[str, ...] = ()
    """Names of the inputs as events have them, numeric ones first; empty where all of them are shown as they are."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs as events have them, numeric ones first."""
        return self.logged or (*self.numeric, *self.category)


Place = tuple[str, int, int, int]
"""Where an event was logged: topic, partition, offset, row."""


def infer_schema(events: Sequence[Event], declared: Sequence[str] = (), classes: Sequence[str] = ()) -> Schema:
    """Decide field by field from reference events: numeric when most of its non-null values are numbers.

    `declared` fixes the fields and their order; without it all fields seen are taken, sorted. ValueError when no
    event carries features.
    """
    rows = [features_of(e) for e in events]
    names = tuple(declared) or tuple(sorted({name for row in rows for name in row}))
    if not names:
        raise ValueError("the reference has no features: its rows need `features` or `input`")
    names = names[:MAX_FIELDS]
    numeric = tuple(n for n in names if _mostly(_is_number, [row.get(n) for row in rows]))
    category = tuple(n for n in names if n not in numeric)
    vocabulary = tuple(_vocabulary([row.get(n) for row in rows], _text) for n in category)
    predictions = [e.prediction for e in events if e.prediction is not None]
    scored = any(e.scores is not None for e in events)
    is_value = bool(predictions) and _mostly(_is_number, predictions) and not scored and not classes
    found = () if is_value else _vocabulary(predictions, _class_text)
    known = tuple(c[:MAX_TEXT] for c in classes) or tuple(sorted(found))
    outputs_numeric = ((VALUE,) if is_value else ()) + ((SCORE,) if scored else ())
    outputs_category = (CLASS,) if predictions and not is_value else ()
    positive = known[-1] if len(known) == 2 else None
    logged = (*numeric, *category)
    shown = tuple(shown_names(logged).values())
    return Schema(
        shown[: len(numeric)], shown[len(numeric) :], vocabulary, outputs_numeric, outputs_category, known, positive,
        closed=bool(declared), logged=() if shown == logged else logged,
    )  # fmt: skip


def logged_names(schema: Schema | None) -> dict[str, str]:
    """By the name that is shown: the one that events have, where it is another."""
    if schema is None or not schema.logged:
        return {}
    pairs = zip((*schema.numeric, *schema.category), schema.logged, strict=True)
    return {shown: logged for shown, logged in pairs if shown != logged}


def build_batch(subject: str, start: int, events: Sequence[Event], places: Sequence[Place], schema: Schema) -> Batch:
    """The columns of `events`, the first of which is the subject's event number `start`."""
    rows = [features_of(e) for e in events]
    columns = _columns(rows, schema.names)
    numeric, absent = _numeric(schema.numeric, columns[: len(schema.numeric)], len(rows))
    category, absent_too = _category(schema.category, schema.vocabulary, columns[len(schema.numeric) :], len(rows))
    clients, client = codes_of([e.client for e in events])
    segments, segment = codes_of([e.segment for e in events])
    versions, version = codes_of([e.model_version for e in events])
    return Batch(
        subject=subject,
        start=start,
        time=np.array([e.time for e in events], np.float64),
        identity=identity_of(places),
        client=client,
        clients=clients,
        version=version,
        versions=versions,
        numeric=numeric,
        category=category,
        outputs_numeric=_outputs_numeric(schema, events),
        outputs_category=_outputs_category(schema, events),
        event_ids=tuple(e.event_id for e in events),
        new_fields=() if schema.closed else _new_fields(rows, schema, absent + absent_too),
        margin=_margins([e.scores for e in events]),
        segment=segment if segments else None,
        segments=segments,
    )


def build_reference(events: Sequence[Event], schema: Schema, origin: Origin, subject: str) -> Reference:
    """A reference from its events. Its version is the hash of its content, whatever the source.

    Rows that carry times are put in their order, which then has a meaning: neighbours in time resemble each other.
    """
    ordered = len({e.time for e in events}) > 1
    if ordered:
        events = sorted(events, key=lambda e: e.time)
    places = [("reference", 0, i, 0) for i in range(len(events))]
    rows = build_batch(subject, 0, events, places, schema)
    right = _right(events) if schema.outputs_category else None
    return Reference(rows, origin, content_hash(rows, right), ordered, right=right)


def _right(events: Sequence[Event]) -> F64 | None:
    """Whether each answer is its label, NaN without a label; None where no row has one."""
    pairs = [(_class_text(e.prediction), _class_text(e.label)) for e in events]
    if all(told is None for _, told in pairs):
        return None
    return np.array([np.nan if None in pair else float(pair[0] == pair[1]) for pair in pairs], np.float64)


def content_hash(rows: Batch, right: F64 | None = None) -> str:
    """Hash of the columns that a reference consists of."""
    digest = hashlib.blake2b(b"" if right is None else right.tobytes(), digest_size=16)
    for table in (rows.numeric, rows.outputs_numeric):
        digest.update(repr(table.names).encode() + table.values.tobytes() + table.status.tobytes())
    for column in (rows.category, rows.outputs_category):
        digest.update(repr((column.names, column.vocabulary)).encode() + column.codes.tobytes())
    return digest.hexdigest()


def features_of(event: Event) -> Mapping[str, Any]:
    """The input fields of an event by name; those of a vector are x0, x1, ..."""
    if event.features is not None:
        return event.features
    if event.vector is None:
        return _NO_FEATURES
    return {f"x{i}": v for i, v in enumerate(event.vector[:MAX_FIELDS])}


def shown_names(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Each name as it is shown and stored: names come from records, and may be anything.

    No two are shown alike, and none as one in `taken`.
    """
    names, used = tuple(dict.fromkeys(names)), set(taken)
    shown = {name: name for name in names if _is_name(name) and name not in used}
    used.update(shown)
    for name in names:
        if name not in shown:
            options = (_told(name, size) for size in range(4, 64))
            shown[name] = next(option for option in options if option not in used)
            used.add(shown[name])
    return {name: shown[name] for name in names}


def _told(name: str, size: int) -> str:
    """The name's beginning and a hash of so many bytes."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in name[:MAX_NAME])
    return f"{text}~{hashlib.blake2b(name.encode(), digest_size=size).hexdigest()}"


def _is_name(name: str) -> bool:
    return len(name) <= MAX_NAME and name.isprintable()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _mostly(test: Callable[[Any], bool], values: Sequence[Any]) -> bool:
    present = [v for v in values if v is not None]
    return bool(present) and 2 * sum(map(test, present)) > len(present)


def _text(value: Any) -> str | None:
    """A category as text; None for what is no category (numbers where text is expected, structures)."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return None


def _class_text(value: Any) -> str | None:
    """A predicted class as text: integers are classes too."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)


def category_text(value: Any) -> str | None:
    """A value as the category it counts as; None for what is none."""
    text = _text(value)
    return None if text is None else text[:MAX_TEXT]


def _vocabulary(values: Sequence[Any], text: Callable[[Any], str | None]) -> tuple[str, ...]:
    texts = dict.fromkeys(t[:MAX_TEXT] for v in values if (t := text(v)) is not None)
    return tuple(texts)[:KNOWN_WORDS]


def identity_of(places: Sequence[Place]) -> Identity:
    """The columns of where events were logged."""
    topic, *where = zip(*places, strict=True) if places else ((), (), (), ())
    topics, code = codes_of(topic)
    return Identity(topics, code, *(np.array(column, np.int64) for column in where))


def codes_of(values: Sequence[str | None]) -> tuple[tuple[str, ...], I32]:
    """Distinct texts in order of appearance, and for each value its index, -1 for None."""
    distinct = tuple(v for v in dict.fromkeys(values) if v is not None)
    index: dict[str | None, int] = {v: i for i, v in enumerate(distinct)}
    index[None] = -1
    return distinct, np.fromiter(map(index.__getitem__, values), np.int32, len(values))


def _columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Sequence[Sequence[Any]]:
    """The values of each field, _ABSENT where a row has none."""
    if len(names) > 1:
        try:
            return list(zip(*map(itemgetter(*names), rows), strict=True)) if rows else [()] * len(names)
        except KeyError:
            pass
    return [[row.get(name, _ABSENT) for row in rows] for name in names]


def _numeric(names: Sequence[str], columns: Sequence[Sequence[Any]], n: int) -> tuple[Numeric, F64]:
    values = np.zeros((n, len(names)))
    status = np.zeros((n, len(names)), np.uint8)
    for j, column in enumerate(columns):
        _numeric_column(column, values[:, j], status[:, j])
    return Numeric(tuple(names), values, status), (status == Cell.ABSENT).sum(axis=1).astype(np.float64)


def _numeric_column(column: Sequence[Any], values: F64, status: U8) -> None:
    """Fill one column in place. Plain floats and integers take the fast way."""
    if not {float, int}.issuperset(map(type, column)):
        status[:] = [_cell(v) for v in column]
        column = [v if s == Cell.VALID else 0.0 for v, s in zip(column, status.tolist(), strict=True)]
    values[:] = np.array(column, np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        status[bad] = Cell.NOT_FINITE
        values[bad] = 0.0


def _cell(value: Any) -> int:
    if value is None:
        return Cell.NULL
    if value is _ABSENT:
        return Cell.ABSENT
    return Cell.VALID if _is_number(value) else Cell.MISTYPED


def _category(
    names: Sequence[str], vocabulary: Sequence[tuple[str, ...]], columns: Sequence[Sequence[Any]], n: int
) -> tuple[Category, F64]:
    codes = np.zeros((n, len(names)), np.int32)
    words = []
    for j, column in enumerate(columns):
        codes[:, j], known = _category_column(column, vocabulary[j], _text)
        words.append(known)
    absent = (codes == ABSENT_CODE).sum(axis=1).astype(np.float64)
    return Category(tuple(names), codes, tuple(words)), absent


def _category_column(
    column: Sequence[Any], known: tuple[str, ...], text: Callable[[Any], str | None]
) -> tuple[I32, tuple[str, ...]]:
    index = {word: i for i, word in enumerate(known)}
    try:
        return np.fromiter(map(index.__getitem__, column), np.int32, len(column)), known
    except (KeyError, TypeError):  # a value the reference has not, or what is no text: one by one
        codes = []
    for value in column:
        if type(value) is not str:
            if value is None or value is _ABSENT:
                codes.append(NULL_CODE if value is None else ABSENT_CODE)
                continue
            value = text(value)
            if value is None:
                codes.append(MISTYPED_CODE)
                continue
        if len(value) > MAX_TEXT:
            value = value[:MAX_TEXT]
        codes.append(index.setdefault(value, len(index)))
    return np.array(codes, np.int32), tuple(index)


def _outputs_numeric(schema: Schema, events: Sequence[Event]) -> Numeric:
    n, d = len(events), len(schema.outputs_numeric)
    values, status = np.zeros((n, d)), np.zeros((n, d), np.uint8)
    for j, name in enumerate(schema.outputs_numeric):
        column = [e.prediction for e in events] if name == VALUE else _score_column([e.scores for e in events], schema)
        _numeric_column(column, values[:, j], status[:, j])
    return Numeric(schema.outputs_numeric, values, status)


def _score_column(scores: Sequence[Any], schema: Schema) -> Sequence[Any]:
    if schema.positive is not None:
        try:
            return [s[schema.positive] for s in scores]
        except (KeyError, TypeError):  # lists, or none at all
            pass
    return [_score(s, schema) for s in scores]


def _score(scores: Any, schema: Schema) -> Any:
    """The positive class's score of two, else the highest; None where none is given."""
    if isinstance(scores, dict):
        if schema.positive is not None and schema.positive in scores:
            return scores[schema.positive]
        numbers = [v for v in scores.values() if _is_number(v)]
    elif isinstance(scores, list):
        if schema.positive is not None and len(scores) == len(schema.classes):
            return scores[schema.classes.index(schema.positive)]
        numbers = [v for v in scores if _is_number(v)]
    else:
        return None
    return max(numbers) if numbers else None


def _margins(scores: Sequence[Any]) -> F64 | None:
    """Largest score minus the second largest, NaN where scores are missing; None where no event has any.

    A single score is that of one of two classes.
    """
    rows: Sequence[Sequence[Any]]
    if {dict}.issuperset(map(type, scores)):
        rows = list(map(tuple, map(dict.values, scores)))
    else:
        rows = [s if type(s) is list else list(s.values()) if type(s) is dict else [] for s in scores]
    width = len(rows[0]) if rows else 0
    if width > 1 and {width}.issuperset(map(len, rows)):
        flat = list(chain.from_iterable(rows))
        if {float, int}.issuperset(map(type, flat)):
            table = np.array(flat, np.float64).reshape(len(rows), width)
            top = np.partition(table, width - 2, axis=1)[:, -2:]
            top[~np.isfinite(table).all(axis=1)] = np.nan
            return top[:, 1] - top[:, 0]
    if not any(rows):
        return None
    return np.array([_margin([float(v) for v in row if _is_number(v)]) for row in rows])


def _margin(scores: list[float]) -> float:
    if len(scores) == 1:
        return abs(2 * scores[0] - 1) if 0 <= scores[0] <= 1 else np.nan
    if not scores or not np.isfinite(scores).all():
        return np.nan
    second, first = sorted(scores)[-2:]
    return first - second


def _outputs_category(schema: Schema, events: Sequence[Event]) -> Category:
    if not schema.outputs_category:
        return Category((), np.zeros((len(events), 0), np.int32), ())
    codes, words = _category_column([e.prediction for e in events], schema.classes, _class_text)
    return Category(schema.outputs_category, codes[:, None], (words,))


def _new_fields(rows: Sequence[Mapping[str, Any]], schema: Schema, absent: F64) -> tuple[tuple[str, I64], ...]:
    """Fields outside the schema with the rows that have them: only rows with surplus keys are searched."""
    known = frozenset(schema.names)
    size = np.fromiter(map(len, rows), np.float64, len(rows))
    found: dict[str, list[int]] = {}
    for i in np.flatnonzero(size > len(known) - absent).tolist():
        for name in shown_names(sorted(rows[i].keys() - known), (*schema.numeric, *schema.category)).values():
            if name in found or len(found) < MAX_NEW_FIELDS:
                found.setdefault(name, []).append(i)
    return tuple((name, np.array(at, np.int64)) for name, at in sorted(found.items()))
