"""Events as detectors see them: columns of inputs, outputs and labels, with where each was logged."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
Bool = npt.NDArray[np.bool_]
Page = dict[str, npt.NDArray[Any]]
"""One unit of stored state: named arrays. monitor/state/codec.py writes it with a version and a checksum."""


class Cell(IntEnum):
    """What a numeric cell held. Only VALID and FILLED cells carry a finite number; all others hold 0.0."""

    VALID = 0
    NULL = 1
    """The field was there and null."""
    ABSENT = 2
    """The record had no such field."""
    NOT_FINITE = 3
    """NaN or infinite."""
    MISTYPED = 4
    """Text, a truth value or a structure where a number is expected."""
    FILLED = 5
    """A field that the version does not send: a value of the reference stands for it, unrelated to the other fields."""


NULL_CODE, ABSENT_CODE, MISTYPED_CODE = -1, -2, -3
"""Category codes below zero: null, field absent, not text. Codes from zero on index the column's vocabulary."""


KNOWN_WORDS = 1_000
"""Values of a categorical column that have the same code in every batch of a model, at most."""


@dataclass(frozen=True, slots=True)
class Numeric:
    """Numeric columns: `values` (n, d) float64, finite everywhere; `status` (n, d) of `Cell`; `names` (d,)."""

    names: tuple[str, ...]
    values: F64
    status: U8

    def part(self, rows: I64) -> Numeric:
        """The columns of some events."""
        return Numeric(self.names, self.values[rows], self.status[rows])


@dataclass(frozen=True, slots=True)
class Category:
    """Categorical columns: `codes` (n, c) int32 into `vocabulary[c]`, or one of the codes below zero; `names` (c,).

    The vocabulary of a column begins with values of the reference, in its order, up to KNOWN_WORDS of them; others
    follow in the order in which this batch shows them. Codes of those hold for this batch only, in the reference too.
    """

    names: tuple[str, ...]
    codes: I32
    vocabulary: tuple[tuple[str, ...], ...]

    @property
    def known(self) -> list[int]:
        """Of the reference's columns: how many of the first codes mean the same in every batch."""
        return [min(len(words), KNOWN_WORDS) for words in self.vocabulary]

    def part(self, rows: I64) -> Category:
        """The columns of some events."""
        return Category(self.names, self.codes[rows], self.vocabulary)


@dataclass(frozen=True, slots=True)
class Identity:
    """Where each event was logged: `topic` indexes `topics`; partition, offset and row are int64; all (n,)."""

    topics: tuple[str, ...]
    topic: I32
    partition: I64
    offset: I64
    row: I64

    def part(self, rows: slice | I64) -> Identity:
        """Those of some events."""
        return Identity(self.topics, self.topic[rows], self.partition[rows], self.offset[rows], self.row[rows])

    def at(self, i: int) -> str:
        """The identity of event `i` as one stable string."""
        return f"{self.topics[self.topic[i]]}/{self.partition[i]}/{self.offset[i]}/{self.row[i]}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Frozen columns of consecutive events of one subject. Event `i` is row `i` of every column.

    `start` is the running number (from 0) of the first event among the subject's events, `time` the event times in
    epoch seconds. `client` indexes `clients` (pseudonyms), -1 where no client is known. `outputs` holds what the
    model answered as further columns: the numeric `score` or `prediction`, the categorical `class`. `new_fields`
    names fields the schema does not know, with the rows (int64, ascending) that have each. `event_ids` are
    chosen by clients: good for display, never a key.
    """

    subject: str
    start: int
    time: F64
    identity: Identity
    client: I32
    clients: tuple[str, ...]
    version: I32
    versions: tuple[str, ...]
    numeric: Numeric
    category: Category
    outputs_numeric: Numeric
    outputs_category: Category
    event_ids: tuple[str | None, ...]
    new_fields: tuple[tuple[str, I64], ...] = ()
    margin: F64 | None = None
    """(n,) largest score minus the second largest, NaN where scores are not logged; None where no event has any."""
    segment: I32 | None = None
    """(n,) index into `segments` of the segment an event carries itself, -1 without; None where no event has one."""
    segments: tuple[str, ...] = ()
    one_in: int = 1
    """The batch is a uniform sample: each event stands for so many. Who counts events of clients weighs by it."""

    def __len__(self) -> int:
        return len(self.time)

    def part(self, rows: I64, one_in: int) -> Batch:
        """The events `rows` (ascending), a uniform sample of one in `one_in`. `start` stays that of the whole."""
        held, client = np.unique(self.client[rows], return_inverse=True)
        known = held[held >= 0]
        return Batch(
            subject=self.subject,
            start=self.start,
            time=self.time[rows],
            identity=self.identity.part(rows),
            client=(client.reshape(-1) - (len(held) - len(known))).astype(np.int32),
            clients=tuple(self.clients[c] for c in known.tolist()),
            version=self.version[rows],
            versions=self.versions,
            numeric=self.numeric.part(rows),
            category=self.category.part(rows),
            outputs_numeric=self.outputs_numeric.part(rows),
            outputs_category=self.outputs_category.part(rows),
            event_ids=tuple(self.event_ids[i] for i in rows.tolist()),
            new_fields=tuple((n, at) for n, all_ in self.new_fields if len(at := np.flatnonzero(np.isin(rows, all_)))),
            margin=None if self.margin is None else self.margin[rows],
            segment=None if self.segment is None else self.segment[rows],
            segments=self.segments,
            one_in=one_in,
        )


@dataclass(frozen=True, slots=True)
class LabelBatch:
    """Frozen columns of joined labels of one subject, in the order in which label and prediction had both come.

    `time` is the label's and `asked` the prediction's (NaN where unknown), in epoch seconds; `clock` the newest time of
    any prediction by then, and `position` the running number of the next prediction: labels may bear any time, so
    budgets and causes go by these. `answer` and `label` index `classes` (-1: none of them, or a number). `error` is 1
    where they differ, else 0; of a model that predicts numbers (`numeric`) the distance. `score` is that of the
    predicted class (NaN where unknown), `weight` 1 / the rate at which predictions were sampled. `identity` and
    `event_ids` are those of the record that made the pair complete.
    """

    subject: str
    start: int
    time: F64
    asked: F64
    clock: F64
    position: I64
    identity: Identity
    event_ids: tuple[str | None, ...]
    version: I32
    versions: tuple[str, ...]
    classes: tuple[str, ...]
    answer: I32
    label: I32
    error: F64
    score: F64
    weight: F64
    sample_weight: F64
    numeric: bool
    member: U64 | None = None
    """(n,) bit k: the prediction was of `segments[k]`; None where no segment is declared."""
    segments: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.time)

    def part(self, first: int, last: int) -> LabelBatch:
        """Rows `first` to `last` (exclusive)."""
        rows = slice(first, last)
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        taken: dict[str, Any] = {n: c[rows] for n, c in columns.items() if isinstance(c, np.ndarray)}
        return replace(
            self, **taken, start=self.start + first, identity=self.identity.part(rows), event_ids=self.event_ids[rows]
        )


Rows = Batch | LabelBatch
"""What a finding may come from: `row` indexes it."""
