"""Exact rule: a numeric field that varied in the reference and now repeats one value, over several clients.

A value that `s` of the reference's rows have (smoothed) comes `k` times in a row with probability s^k; the rule wants
s^k <= `chance`, three times the longest run of the reference, and twice the longest run that was reported before:
references in no order do not show that a field changes by the hour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from detectors.base import (
    F64,
    I64,
    Batch,
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

_COUNTED = 64
"""Clients counted by name in one run."""


@dataclass(frozen=True)
class Params:
    """Parameters of the stuck rule."""

    chance: float = 1e-12
    """Probability that a run of the reported length is chance, per field and start of a run."""
    min_run: int = 20
    """Shortest run that is reported."""
    min_values: int = 10
    """Fields with fewer distinct values in the reference are not watched."""
    max_share: float = 0.6
    """Nor are runs of a value that more than this share of the reference has."""
    clients: int = 3
    """Clients that must have sent the run, where clients are known: one that repeats itself is no fault. For the same
    reason the run must be long enough without the client that sent most of it."""
    moved: int = 10
    """Events with another value after which the incident closes."""


@dataclass(slots=True)
class _Run:
    """The run of one field: its value, length, begin, and events by client; whether it was reported."""

    value: float = math.nan
    length: int = 0
    since: float = 0.0
    clients: dict[str, int] = field(default_factory=dict)
    stuck: bool = False
    stuck_at: float = 0.0
    moved: int = 0
    longest: int = 0
    """Longest run reported so far."""


@dataclass(frozen=True, slots=True)
class _Column:
    """What the reference says of one field."""

    values: F64
    share: F64
    rows: int
    longest: int

    def share_of(self, value: float) -> float:
        """Smoothed share of a value."""
        i = int(np.searchsorted(self.values, value))
        known = i < len(self.values) and self.values[i] == value
        return float(self.share[i]) if known else 1.0 / (self.rows + 2.0)


@register
class StuckRule(Rule):
    """Numeric fields that stand still."""

    name = "stuck_rule"
    kind = "data_quality"
    scope = "feature"
    inputs = frozenset({"features", "reference"})
    every_event = True
    state_version = 1
    Params = Params

    def __init__(self, context: Context, params: Any) -> None:
        super().__init__(context, params)
        numeric = self.reference.rows.numeric
        self._names = numeric.names
        self._columns = [_column(numeric.values[:, j], numeric.status[:, j]) for j in range(len(numeric.names))]
        self._watched = [j for j, c in enumerate(self._columns) if len(c.values) >= params.min_values]
        self._runs = [_Run() for _ in self._names]

    def update(self, batch: Batch, views: Views) -> Iterator[Finding]:
        """Findings in the order of the rows that trigger them."""
        if not len(batch):
            return
        self.changed = True
        found = [finding for j in self._watched for finding in self._field(batch, j)]
        yield from sorted(found, key=lambda f: f.row)

    def pages(self) -> dict[str, Page]:
        return {"runs": {"json": packed_json([asdict(run) for run in self._runs])}}

    def restore(self, pages: Mapping[str, Page]) -> None:
        try:
            runs = [_Run(**run) for run in unpacked_json(pages["runs"]["json"])]
        except (KeyError, ValueError, TypeError) as error:
            raise StateError(f"{self.name}: stored runs cannot be read: {error}") from error
        if len(runs) != len(self._names):
            raise StateError(f"{self.name}: stored runs are of {len(runs)} fields, not {len(self._names)}")
        self._runs = runs

    def _field(self, batch: Batch, j: int) -> Iterator[Finding]:
        """One field: its runs of equal values among the cells that hold a number, one after the other."""
        rows = np.flatnonzero(batch.numeric.status[:, j] == Cell.VALID)
        if not len(rows):
            return
        values = batch.numeric.values[rows, j]
        cuts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1, [len(rows)]])
        calm = not (np.diff(cuts) >= self.params.min_run).any()
        last = len(cuts) - 2
        for k in range(last + 1):
            if k == 1 and calm and not self._runs[j].stuck and k < last:
                break  # no run in between can matter
            begin, end = int(cuts[k]), int(cuts[k + 1])
            yield from self._extend(batch, j, rows[begin:end], float(values[begin]), fresh=k > 0)
        else:
            return
        yield from self._extend(batch, j, rows[int(cuts[last]) :], float(values[-1]), fresh=True)

    def _extend(self, batch: Batch, j: int, rows: I64, value: float, fresh: bool) -> Iterator[Finding]:
        run = self._runs[j]
        if run.stuck and value != run.stuck_at:
            left = self.params.moved - run.moved
            run.moved += len(rows)
            if left <= len(rows):
                run.stuck, run.moved = False, 0
                yield self._finding(batch, j, int(rows[left - 1]), None)
        if fresh or value != run.value:
            run.value, run.length, run.clients, run.since = value, 0, {}, float(batch.time[rows[0]])
        if run.stuck:
            run.length += len(rows)
            run.longest = max(run.longest, run.length)
            return
        due = self._count(batch, rows, run, self._need(j, run))
        if due is None:
            return
        row = int(rows[due])
        length = run.length
        run.stuck, run.stuck_at, run.moved = True, value, 0
        run.length += len(rows) - 1 - due
        run.longest = max(run.longest, run.length)
        share = self._columns[j].share_of(value)
        measure = Measure(
            self.name, f"{self._names[j]}:stuck", 1.0, share, "share", length, run.since, float(batch.time[row]),
            self._names[j], "one value",
        )  # fmt: skip
        yield self._finding(batch, j, row, measure)

    def _count(self, batch: Batch, rows: I64, run: _Run, need: int) -> int | None:
        """Count rows into the run up to the one that makes it reportable, whose index is returned, else all of them.

        It must be long enough without the client that sent most of it. Events without a client are as good as those
        of another one.
        """
        top = max(run.clients.values(), default=0)
        for i, code in enumerate(batch.client[rows].tolist()):
            client = batch.clients[code] if code >= 0 else f"\0{run.length}"
            run.length += 1
            if client in run.clients or len(run.clients) < _COUNTED:
                run.clients[client] = run.clients.get(client, 0) + 1
                top = max(top, run.clients[client])
            if run.length - top >= need and len(run.clients) >= self.params.clients:
                return i
        return None

    def _need(self, j: int, run: _Run) -> int:
        """Length at which a run of this value is reported."""
        column = self._columns[j]
        share = column.share_of(run.value)
        if share > self.params.max_share:
            return 1 << 62
        chance = math.ceil(math.log(self.params.chance) / math.log(share))
        return max(int(self.params.min_run), chance, 3 * column.longest, 2 * run.longest)

    def _finding(self, batch: Batch, j: int, row: int, measure: Measure | None) -> Finding:
        name = self._names[j]
        return self.finding(
            batch,
            row,
            f"stuck:{name}",
            (SubjectRef("feature", name),),
            () if measure is None else (measure,),
            opens=measure is not None,
            onset=None if measure is None else measure.since,
        )


def _column(values: F64, status: Any) -> _Column:
    good = values[status == Cell.VALID]
    distinct, counts = np.unique(good, return_counts=True)
    cuts = np.concatenate([[0], np.flatnonzero(good[1:] != good[:-1]) + 1, [len(good)]])
    longest = int(np.diff(cuts).max(initial=0))
    share = np.asarray((counts + 1.0) / (len(good) + 2.0), np.float64)
    return _Column(distinct, share, len(good), longest)
