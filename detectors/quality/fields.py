"""Exact rule: a field that is gone, null, not finite or of the wrong type in every event of a run, or that is new.

A run counts when the reference makes it practically impossible: with a fault share `a` of the reference (smoothed),
`k` faulty events in a row have probability a^k; `k` is the smallest with a^k <= `chance`. Partial faults (40 % nulls)
are no runs: they are the business of the statistical streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from detectors.base import (
    ABSENT_CODE,
    F64,
    I64,
    JOINS,
    MISTYPED_CODE,
    NULL_CODE,
    Batch,
    Bool,
    Cell,
    Context,
    Finding,
    Measure,
    Page,
    StateError,
    SubjectRef,
    Views,
    register,
)
from detectors.quality.rule import Rule, packed_json, unpacked_json

FAULTS = ("absent", "null", "not_finite", "mistyped")
_NUMERIC = (Cell.ABSENT, Cell.NULL, Cell.NOT_FINITE, Cell.MISTYPED)
_CATEGORY = (ABSENT_CODE, NULL_CODE, None, MISTYPED_CODE)


@dataclass(frozen=True)
class Params:
    """Parameters of the field rule."""

    chance: float = 1e-12
    """Probability that a run of the reported length is chance, per field and start of a run."""
    min_run: int = 10
    """Shortest run that is reported, however clean the reference."""
    max_share: float = 0.2
    """A fault the reference itself shows in more than this share of rows is normal, and not watched."""
    new_field_events: int = 10
    """Events that must carry a field unknown to the reference before it is reported."""
    new_field_gone: int = 1_000
    """Events without a reported new field after which its incident closes."""
    max_new_fields: int = 20
    """New fields remembered at a time: names come from records, and must not grow state."""


_TOGETHER = 10
"""Events apart that runs of several fields begin when one source broke them."""


class _Turn(NamedTuple):
    """A run that reached its length: of faults (opens) or of good events (closes)."""

    row: int
    column: int
    opens: bool


@register
class FieldRule(Rule):
    """Vanished, null, non-finite, mistyped and new fields."""

    name = "field_rule"
    kind = "data_quality"
    scope = "feature"
    inputs = frozenset({"features", "reference"})
    every_event = True
    state_version = 1
    Params = Params

    def __init__(self, context: Context, params: Any) -> None:
        super().__init__(context, params)
        reference = self.reference
        self._fields = reference.fields
        faults = _faults(reference.rows)
        self._columns = tuple((f, k) for f in self._fields for k in FAULTS)
        self._expected: F64 = faults.mean(axis=0)
        smoothed = (faults.sum(axis=0) + 1.0) / (len(reference) + 2.0)
        length = np.ceil(np.log(params.chance) / np.log(smoothed)).astype(np.int64)
        self._length: I64 = np.maximum(length, params.min_run)
        self._watched: Bool = self._expected <= params.max_share
        n = len(self._columns)
        self._bad_run = np.zeros(n, np.int64)
        self._good_run = np.zeros(n, np.int64)
        self._since = np.zeros(n)
        self._open = np.zeros(n, np.bool_)
        self._new: dict[str, tuple[int, int, float, bool]] = {}

    def update(self, batch: Batch, views: Views) -> Iterator[Finding]:
        """Findings in the order of the rows that trigger them."""
        if not len(batch):
            return
        self.changed = True
        faults = _faults(batch)
        found = [*self._runs(batch, faults), *self._new_fields(batch)]
        yield from sorted(found, key=lambda f: f.row)

    def pages(self) -> dict[str, Page]:
        return {
            "runs": {
                "bad": self._bad_run.copy(),
                "good": self._good_run.copy(),
                "since": self._since.copy(),
                "open": self._open.copy(),
            },
            "new": {
                "names": packed_json(list(self._new)),
                "rows": np.array(list(self._new.values()), np.float64).reshape(len(self._new), 4),
            },
        }

    def restore(self, pages: Mapping[str, Page]) -> None:
        runs = pages.get("runs", {})
        if set(runs) != {"bad", "good", "since", "open"} or any(len(a) != len(self._columns) for a in runs.values()):
            raise StateError(f"{self.name}: stored runs do not fit the {len(self._columns)} watched columns")
        self._bad_run, self._good_run = runs["bad"].astype(np.int64), runs["good"].astype(np.int64)
        self._since, self._open = runs["since"].astype(np.float64), runs["open"].astype(np.bool_)
        names = unpacked_json(pages["new"]["names"])
        rows = pages["new"]["rows"].tolist()
        self._new = {n: (int(a), int(b), t, bool(o)) for n, (a, b, t, o) in zip(names, rows, strict=True)}

    def _runs(self, batch: Batch, faults: Bool) -> list[Finding]:
        """Lengths of the runs at every row, vectorised; then the few rows where one reaches its length.

        A column without a fault, of which none is told either, only grows its run of good events.
        """
        n = len(batch)
        at = np.flatnonzero(faults.any(axis=0) | self._open)
        bad, good = _run_lengths(faults[:, at], self._bad_run[at]), _run_lengths(~faults[:, at], self._good_run[at])
        length, watched = self._length[at], self._watched[at]
        turns = [_Turn(i, int(at[j]), True) for i, j in np.argwhere((bad == length) & watched).tolist()]
        turns += [_Turn(i, int(at[j]), False) for i, j in np.argwhere((good == length) & watched).tolist()]
        since = np.full(len(self._since), batch.time[-1])
        begun = np.clip(n - bad[-1], 0, n - 1)
        since[at] = np.where(bad[-1] > n, self._since[at], batch.time[begun])
        self._bad_run, self._good_run = np.zeros_like(self._bad_run), self._good_run + n
        self._bad_run[at], self._good_run[at] = bad[-1], good[-1]
        found = []
        for turn in sorted(turns):
            if turn.opens != self._open[turn.column]:
                together = self._together(at, bad[turn.row], turn.column) if turn.opens else ()
                self._open[turn.column] = turn.opens
                found.append(self._finding(batch, turn, together))
        self._since = since
        return found

    def _together(self, at: I64, run: I64, column: int) -> tuple[str, ...]:
        """Causes of the columns among `at`, told already, that broke in the same way when `column` did: what takes a
        whole source away is one incident. `run` (at,) holds the lengths of their runs."""
        fault = self._columns[column][1]
        own = int(run[np.flatnonzero(at == column)[0]])
        near = at[self._open[at] & (np.abs(run - own) <= _TOGETHER)]
        return tuple(_cause(*self._columns[j]) for j in near.tolist() if self._columns[j][1] == fault)

    def _finding(self, batch: Batch, turn: _Turn, together: tuple[str, ...]) -> Finding:
        field, fault = self._columns[turn.column]
        length = int(self._length[turn.column])
        begin = turn.row - length + 1
        now = float(batch.time[turn.row])
        onset = float(batch.time[begin] if begin >= 0 else self._since[turn.column]) if turn.opens else now
        expected = float(self._expected[turn.column])
        measure = Measure(self.name, f"{field}:{fault}", 1.0, expected, "share", length, onset, now, field, fault)
        found = self._report(batch, turn.row, field, _cause(field, fault), measure, turn.opens)
        return replace(found, detail={JOINS: "\n".join(together)}) if together else found

    def _report(
        self, batch: Batch, row: int, field: str, cause: str, measure: Measure, opens: bool, info: bool = False
    ) -> Finding:
        return self.finding(
            batch,
            row,
            cause,
            (SubjectRef("feature", field),),
            (measure,),
            opens=opens,
            onset=measure.since,
            severity="info" if info else "warning",
        )

    def _new_fields(self, batch: Batch) -> list[Finding]:
        """A field that is new counts up to its report; one reported closes when it has been gone long enough."""
        found = []
        for name, rows in batch.new_fields:
            if name not in self._new and len(self._new) >= self.params.max_new_fields:
                continue
            seen, _, since, is_open = self._new.get(name, (0, 0, float(batch.time[rows[0]]), False))
            due = self.params.new_field_events - seen
            if not is_open and due <= len(rows):
                is_open = True
                row = int(rows[max(due, 1) - 1])
                found.append(self._new_finding(batch, row, name, since, self.params.new_field_events, True))
            self._new[name] = (seen + len(rows), batch.start + int(rows[-1]), since, is_open)
        for name, (seen, last, since, is_open) in list(self._new.items()):
            gone = last + self.params.new_field_gone - batch.start
            if gone < len(batch):
                del self._new[name]
                if is_open:
                    found.append(self._new_finding(batch, gone, name, since, seen, False))
        return found

    def _new_finding(self, batch: Batch, row: int, name: str, since: float, seen: int, opens: bool) -> Finding:
        now = float(batch.time[row])
        measure = Measure(
            self.name, f"{name}:new_field", float(seen), 0.0, "events", seen, since, now, name, "new field"
        )
        return self._report(batch, row, name, f"new_field:{name}", measure, opens, info=True)


def _cause(field: str, fault: str) -> str:
    return f"{fault}:{field}"


def _faults(batch: Batch) -> Bool:
    """(n, fields × faults): which fault each cell has."""
    d = len(batch.numeric.names)
    out = np.zeros((len(batch), d + len(batch.category.names), len(FAULTS)), np.bool_)
    numeric, category = batch.numeric.status, batch.category.codes
    for k, (status, code) in enumerate(zip(_NUMERIC, _CATEGORY, strict=True)):
        if numeric.any():
            out[:, :d, k] = numeric == status
        if code is not None and category.min(initial=0) < 0:
            out[:, d:, k] = category == code
    return out.reshape(len(batch), -1)


def _run_lengths(hit: Bool, carried: I64) -> I64:
    """(n, columns): how many hits in a row end at each row, `carried` from before the first."""
    rows = np.arange(len(hit))[:, None]
    last_miss = np.maximum.accumulate(np.where(hit, -1, rows), axis=0)
    lengths: I64 = np.where(last_miss < 0, rows + 1 + carried, rows - last_miss)
    return np.where(hit, lengths, 0)
