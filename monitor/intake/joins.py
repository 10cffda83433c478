"""Labels joined to predictions by event id, as if events came one by one, whatever the cuts.

The first prediction with an id wins. The first label of a prediction is what detectors get; a later one replaces it
in the counts (a correction). A label waits a while for its prediction. A label that carries the model's answer
itself needs no prediction.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from detectors.base import F64, I64, U8, Bool, Page
from monitor.intake.early import EarlyLabels, too_long
from monitor.intake.pending import ROW_BYTES, U16, U64, Columns, Pending

NONE, NUMBER, TEXT = 0, 1, 2
"""What an answer is. A text stands in the columns as 52 bits of its hash."""
_CARRIED = ("key", "time", "answer", "kind", "weight")
_RIGHT, _WRONG, _UNCOMPARED = 1, 2, 3
"""Marks of predictions with a label; the last: the prediction had no answer."""


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """How long predictions wait for labels (seconds), and in how much memory (bytes)."""

    max_delay: float = 60 * 86_400.0
    max_bytes: int = 256 * 2**20
    id_key: bytes = b""
    """Keys the hashes of event ids (at most 64 bytes): who chooses ids must not choose what is sampled."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Columns of consecutive predictions; `key` 0 where there is no id."""

    key: U64
    time: F64
    answer: F64
    kind: U8
    score: F64
    weight: F64
    version: I64
    segments: U16
    """Code of the declared segments it is of, 0 for none."""


@dataclass(frozen=True, slots=True)
class Told:
    """Columns of consecutive labels. `before` counts the predictions of the same cut that came before each.

    `own` and `own_kind` are the model's answer where the label carries it, kind NONE where not.
    """

    key: U64
    before: I64
    time: F64
    answer: F64
    kind: U8
    weight: F64
    own: F64
    own_kind: U8


@dataclass(frozen=True, slots=True)
class Joined:
    """Joined labels in the order in which their pairs became complete, all (n,).

    `by_label` says what completed the pair: row `source` of the labels of this cut, else of its predictions. `time`
    is the label's, `asked` the prediction's (NaN where unknown), `weight` 1 over the rate of the sample.
    """

    by_label: Bool
    source: I64
    time: F64
    asked: F64
    answer: F64
    answer_kind: U8
    label: F64
    label_kind: U8
    score: F64
    weight: F64
    sample_weight: F64
    version: I64
    segments: U16

    def __len__(self) -> int:
        return len(self.time)


@dataclass(slots=True)
class JoinCounts:
    """Counts since the first start. `wrong` of `compared` joined labels, corrections included, differ from the answer.

    `unsampled`: labels of predictions outside the sample. `late`: past max_delay. `unmatched`: no prediction came.
    """

    matched: int = 0
    corrected: int = 0
    duplicates: int = 0
    unsampled: int = 0
    late: int = 0
    unusable: int = 0
    compared: int = 0
    wrong: int = 0


class LabelJoin:
    """The join of one model. Deterministic; its state is in pages."""

    def __init__(self, settings: JoinSettings) -> None:
        self.settings = settings
        self.counts = JoinCounts()
        self.pending = Pending(settings.max_bytes // ROW_BYTES)
        self.early = EarlyLabels()
        self._changed = False

    @property
    def unmatched(self) -> int:
        """Labels given up without a prediction."""
        return self.early.lost + self.counts.late + self.counts.unusable

    def add(self, asked: Asked, told: Told, watermark: float) -> Joined:
        """Take the predictions and labels of one cut; `watermark` is the newest prediction time before it.

        Each waits by the time as it was when it came, not by that of the end of the cut: a backlog, where one cut
        spans hours, gives the same pairs as a live stream.
        """
        self._changed = True
        marks: F64 = np.maximum.accumulate(np.concatenate([[watermark], asked.time]))
        if not watermark and len(asked.time):  # what came before the first prediction begins to wait with it
            marks[0] = marks[1]
            self.early.begin(float(marks[0]))
        self.pending.expire(watermark - self.settings.max_delay)
        self.early.expire(watermark)
        new = self._add_predictions(asked)
        labels = self._labels(told, asked.key[new], marks)
        order = self._order(labels, asked, new, marks)
        labels = {name: column[order] for name, column in labels.items()}
        at = np.where(labels["alone"], -1, self.pending.find(labels["key"]))
        usable = self._sift(labels, at)
        return self._join({name: column[usable] for name, column in labels.items()}, at[usable])

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        if not self._changed:
            return {}
        self._changed = False
        counts = np.array([getattr(self.counts, f.name) for f in fields(JoinCounts)], np.int64)
        head = {"pending": self.pending.head(), "early": self.early.head(), "counts": counts}
        return {**self.pending.dirty(), **self.early.dirty(), "head": head}

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the pages of an equal join. Without a head they are not used."""
        if "head" not in pages:
            return
        head = pages["head"]
        self.counts = JoinCounts(*head["counts"].tolist())
        self.pending.restore(head["pending"], pages)
        self.early.restore(head["early"], pages)

    # --- one cut -----------------------------------------------------------------------------------------------------

    def _add_predictions(self, asked: Asked) -> I64:
        """Store what is new; its rows, sorted by key."""
        with_id = np.flatnonzero(asked.key)
        keys, first = np.unique(asked.key[with_id], return_index=True)
        fresh = self.pending.find(keys) < 0
        self.counts.duplicates += len(with_id) - int(fresh.sum())
        rows = with_id[first[fresh]]
        arrival = np.sort(rows)
        columns = ("key", "time", "answer", "score", "weight", "version", "kind", "segments")
        self.pending.append({name: getattr(asked, name)[arrival] for name in columns})
        return rows

    def _labels(self, told: Told, new: U64, marks: F64) -> Columns:
        """The labels of this cut, after those that waited for one of its predictions (`source` -1)."""
        waited = self.early.take(new)
        n, m = len(waited["key"]), len(told.key)
        columns: Columns = {name: np.concatenate([waited[name], getattr(told, name)]) for name in _CARRIED}
        columns["clock"] = np.concatenate([waited["clock"], marks[told.before]])
        columns["before"] = np.concatenate([np.full(n, -1), told.before])
        columns["own"] = np.concatenate([np.zeros(n), told.own])
        columns["own_kind"] = np.concatenate([np.zeros(n, np.uint8), told.own_kind])
        columns["source"] = np.concatenate([np.full(n, -1), np.arange(m)])
        return columns

    def _order(self, labels: Columns, asked: Asked, new: I64, marks: F64) -> I64:
        """The order in which pairs become complete, without labels that waited too long for their prediction.

        Adds `completed`, the prediction that did it, else -1, and `alone`: the label carries the answer and its
        prediction is yet to come, so it is joined without.
        """
        keys = asked.key[new]
        completed: I64 = np.full(len(labels["key"]), -1, np.int64)
        labels["alone"] = np.zeros(len(completed), np.bool_)
        kept: Bool = np.ones(len(completed), np.bool_)
        if len(keys):
            i = np.minimum(np.searchsorted(keys, labels["key"]), len(keys) - 1)
            ahead = (keys[i] == labels["key"]) & (new[i] >= labels["before"])
            labels["alone"] = ahead & (labels["own_kind"] != NONE)
            waits = ahead & ~labels["alone"]
            completed[waits] = new[i[waits]]
            kept = ~(waits & too_long(labels["clock"], marks[new[i]]))
            self.early.lost += int((~kept).sum())
        labels["completed"] = completed
        when = np.where(completed >= 0, completed + 0.5, labels["before"])
        order: I64 = np.argsort(when, kind="stable")
        return order[kept[order]]

    def _sift(self, labels: Columns, at: I64) -> Bool:
        """Which labels can be joined; the others are counted, or wait."""
        found, own = at >= 0, labels["own_kind"] != NONE
        label = labels["kind"] != NONE
        asked = self.pending.column("time", np.maximum(at, 0))
        late = found & ~own & label & (labels["time"] - asked > self.settings.max_delay)
        nameless = ~own & (labels["key"] == 0)
        self.counts.unusable += int((~label | nameless).sum())
        self.counts.late += int(late.sum())
        missing = label & ~found & ~own & ~nameless
        sampled = self.pending.in_sample(labels["key"])
        self.counts.unsampled += int((missing & ~sampled).sum())
        waits = np.flatnonzero(missing & sampled)
        if len(waits):
            waits = waits[np.argsort(labels["source"][waits], kind="stable")]
            self.early.add({name: labels[name][waits] for name in (*_CARRIED, "clock")})
        usable: Bool = label & (own | (found & ~late))
        return usable

    def _join(self, labels: Columns, at: I64) -> Joined:
        """First labels are joined, later ones correct what was counted."""
        found, own = at >= 0, labels["own_kind"] != NONE
        here = np.maximum(at, 0)
        answer = np.where(own, labels["own"], self.pending.column("answer", here))
        kind = np.where(own, labels["own_kind"], self.pending.column("kind", here)).astype(np.uint8)
        differs = (kind != labels["kind"]) | (answer != labels["answer"])
        mark = np.where(kind == NONE, _UNCOMPARED, np.where(differs, _WRONG, _RIGHT)).astype(np.uint8)
        first = self._first(at, found)
        self._count(at, found, first, mark)
        rows = np.flatnonzero(first)
        at, found, own, here = at[rows], found[rows], own[rows], here[rows]
        by_label = labels["completed"][rows] < 0
        source = np.where(by_label, labels["source"][rows], labels["completed"][rows])
        return Joined(
            by_label=by_label,
            source=source.astype(np.int64),
            time=labels["time"][rows],
            asked=np.where(found, self.pending.column("time", here), math.nan),
            answer=answer[rows],
            answer_kind=kind[rows],
            label=labels["answer"][rows],
            label_kind=labels["kind"][rows].astype(np.uint8),
            score=np.where(found, self.pending.column("score", here), math.nan).astype(np.float64),
            weight=np.where(own, 1.0, self.pending.weights(here)),
            sample_weight=np.where(found, self.pending.column("weight", here), labels["weight"][rows]),
            version=np.where(found, self.pending.column("version", here), -1).astype(np.int64),
            segments=np.where(found, self.pending.column("segments", here), 0).astype(np.uint16),
        )

    def _first(self, at: I64, found: Bool) -> Bool:
        """Which labels are the first of their prediction. Those that need none always are."""
        first = ~found
        rows = np.flatnonzero(found)
        _, earliest = np.unique(at[rows], return_index=True)
        first[rows[earliest]] = True
        first[rows] &= self.pending.marks(at[rows]) == 0
        return first

    def _count(self, at: I64, found: Bool, first: Bool, mark: U8) -> None:
        """Counts, and the marks that the last label of each prediction leaves."""
        self.counts.matched += int(first.sum())
        self.counts.corrected += int((~first).sum())
        self.counts.compared += int((first & (mark != _UNCOMPARED)).sum())
        self.counts.wrong += int((mark[~found] == _WRONG).sum())
        rows = np.flatnonzero(found)[::-1]
        positions, last = np.unique(at[rows], return_index=True)
        marks, before = mark[rows[last]], self.pending.marks(positions)
        self.counts.wrong += int((marks == _WRONG).sum()) - int((before == _WRONG).sum())
        self.pending.mark(positions, marks)


_HASH_CACHE, _CACHED_TEXT = 10_000, 100
"""Texts remembered, and how long they may be."""


class Answers:
    """Predictions and labels as numbers: a class that is a number counts as that number, however it is written."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, int]] = {}

    def column(self, values: Sequence[Any]) -> tuple[F64, U8]:
        """Answers and what they are."""
        try:
            pairs = list(map(self._known.__getitem__, values))
        except (KeyError, TypeError):  # texts not met before, numbers, structures
            pairs = [self.one(v) for v in values]
        answers, kinds = zip(*pairs, strict=True) if pairs else ((), ())
        return np.array(answers, np.float64), np.array(kinds, np.uint8)

    def one(self, value: Any) -> tuple[float, int]:
        """One answer. Structures, nothing and numbers that are not finite are no answer."""
        if type(value) is float or type(value) is int:
            return _number(value)
        if type(value) is bool:
            value = "true" if value else "false"
        if type(value) is not str:
            return 0.0, NONE
        known = self._known.get(value)
        if known is None:
            if len(self._known) >= _HASH_CACHE:
                self._known.clear()
            known = _text(value)
            if len(value) <= _CACHED_TEXT:
                self._known[value] = known
        return known


def _number(value: float) -> tuple[float, int]:
    try:
        number = float(value)
    except OverflowError:
        return 0.0, NONE
    return (number, NUMBER) if math.isfinite(number) else (0.0, NONE)


def _text(text: str) -> tuple[float, int]:
    try:
        number = float(text) if len(text) <= 40 and "_" not in text else math.nan
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number, NUMBER
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return float(int.from_bytes(digest, "little") >> 12), TEXT


def id_keys(ids: Sequence[str | None], secret: bytes = b"") -> U64:
    """64-bit keys of event ids, hashed with `secret`; 0 where there is none."""
    keyed = hashlib.blake2b(digest_size=8, key=secret)
    digests = b"".join([_NO_KEY if i is None else _digest(keyed.copy(), i) for i in ids])
    keys: U64 = np.frombuffer(digests, "<u8").astype(np.uint64)
    if not keys.all():
        keys[(keys == 0) & np.array([i is not None for i in ids], np.bool_)] = 1
    return keys


_NO_KEY = bytes(8)


def _digest(state: hashlib.blake2b, text: str) -> bytes:
    state.update(text.encode("utf-8", "surrogatepass"))
    return state.digest()
