"""Exact rule: a field set or its types that change with a new model version are one `schema_change`, and no fault.

The first events of a version that was not there before are its trial. A field that is absent or of the wrong type in
all of them has changed with the version; so has one that is new in all of them. From the version's first event on the
other detectors see, in place of such a cell, a value of the reference: the change neither alarms nor blinds them.
A field that goes wrong in the middle of a version is a fault as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from detectors.base import (
    ABSENT_CODE,
    F64,
    I64,
    MISTYPED_CODE,
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

_SPREAD = 2_654_435_761
"""Odd and large: running numbers times this, modulo the reference, visit its rows in no order."""


@dataclass(frozen=True)
class Params:
    """Parameters of the schema rule."""

    trial: int = 10
    """First events of a new version that must all show a change."""
    max_share: float = 0.2
    """A field that is absent or mistyped in more than this share of the reference is free to be so."""
    accepted: float = 86_400.0
    """Seconds without an event of another version after which the incident closes: the new schema is the schema."""
    max_versions: int = 64
    """Versions remembered at a time; the one heard least recently is forgotten first."""
    max_new_fields: int = 20
    """New fields counted in one trial."""


@dataclass(slots=True)
class _Version:
    """A version: its first and last event, the faults of its trial by column, and what it changed."""

    first: float
    last: float
    seen: int = 0
    faults: list[int] = field(default_factory=list)
    new: dict[str, int] = field(default_factory=dict)
    changed: list[int] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    open: bool = False
    old: bool = False
    """It was there first: it has no trial."""


@register
class SchemaRule(Rule):
    """Fields that vanish, appear or change type with a new model version."""

    name = "schema_rule"
    kind = "schema_change"
    scope = "model"
    inputs = frozenset({"features", "reference"})
    every_event = True
    state_version = 1
    Params = Params

    def __init__(self, context: Context, params: Any) -> None:
        super().__init__(context, params)
        reference = self.reference
        rows = reference.rows
        self._names = reference.fields
        self._numeric = len(rows.numeric.names)
        self._expected: F64 = _faults(rows).mean(axis=0)
        self._watched: Bool = self._expected <= params.max_share
        self._rows = len(rows)
        self._versions: dict[str, _Version] = {
            name: _Version(0.0, 0.0, old=True) for name in rows.versions[: params.max_versions]
        }
        self._found: list[Finding] = []

    def screen(self, batch: Batch) -> Batch:
        """The batch with cells that changed with their version replaced. Findings wait for `update`."""
        if not len(batch):
            return batch
        self.changed = True
        faults = _faults(batch) & self._watched
        masked = np.zeros_like(faults)
        hidden: dict[str, Bool] = {}
        before = {name: v.last for name, v in self._versions.items()}
        if not self._versions:
            self._versions[_name(batch, 0)] = _Version(float(batch.time[0]), float(batch.time[0]), old=True)
        codes, firsts = np.unique(batch.version, return_index=True)
        for code in codes[np.argsort(firsts)].tolist():
            rows = np.flatnonzero(batch.version == code)
            self._hear(batch, _name(batch, int(rows[0])), rows, faults, masked, hidden)
        self._close(batch, before)
        self._found.sort(key=lambda f: f.row)
        while len(self._versions) > self.params.max_versions:
            del self._versions[min(self._versions, key=lambda v: self._versions[v].last)]
        return self._replaced(batch, masked, hidden)

    def update(self, batch: Batch, views: Views) -> Iterator[Finding]:
        """What `screen` found in this batch."""
        found, self._found = self._found, []
        yield from found

    def pages(self) -> dict[str, Page]:
        state = {name: asdict(v) for name, v in self._versions.items()}
        return {"versions": {"json": packed_json(state)}}

    def restore(self, pages: Mapping[str, Page]) -> None:
        try:
            state = unpacked_json(pages["versions"]["json"])
            versions = {name: _Version(**v) for name, v in state.items()}
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise StateError(f"{self.name}: stored versions cannot be read: {error}") from error
        if any(len(v.faults) not in (0, len(self._names)) for v in versions.values()):
            raise StateError(f"{self.name}: stored versions are not of {len(self._names)} fields")
        self._versions = versions

    # --- one version -------------------------------------------------------------------------------------------------

    def _hear(
        self, batch: Batch, name: str, rows: I64, faults: Bool, masked: Bool, hidden: dict[str, Bool]
    ) -> None:  # fmt: skip
        version = self._versions.get(name)
        time = batch.time[rows]
        if version is None:
            version = self._versions[name] = _Version(float(time[0]), float(time[0]))
        version.last = max(version.last, float(time.max()))
        if version.old:
            return
        left = max(self.params.trial - version.seen, 0)
        trial, after = rows[:left], rows[left:]
        version.seen = min(version.seen + len(rows), self.params.trial)
        if len(trial):
            self._try(batch, version, trial, faults)
            masked[trial] |= faults[trial]
            if version.seen == self.params.trial:
                self._decide(batch, name, version, int(trial[-1]))
        changed = np.ix_(after, np.array(version.changed, np.int64))
        masked[changed] |= faults[changed]
        for new, where in batch.new_fields:
            mine = np.isin(where, trial) | (np.isin(where, after) & (new in version.added))
            hidden[new] = hidden.get(new, np.zeros(len(where), np.bool_)) | mine

    def _try(self, batch: Batch, version: _Version, trial: I64, faults: Bool) -> None:
        counts = faults[trial].sum(axis=0)
        version.faults = (counts + np.array(version.faults or [0] * len(counts))).tolist()
        for new, where in batch.new_fields:
            n = int(np.isin(trial, where).sum())
            if n and (new in version.new or len(version.new) < self.params.max_new_fields):
                version.new[new] = version.new.get(new, 0) + n

    def _decide(self, batch: Batch, name: str, version: _Version, row: int) -> None:
        version.changed = np.flatnonzero(np.array(version.faults) == self.params.trial).tolist()
        version.added = sorted(n for n, seen in version.new.items() if seen == self.params.trial)
        version.faults, version.new = [], {}
        if not version.changed and not version.added:
            return
        version.open = True
        now, n = float(batch.time[row]), self.params.trial
        measures = [
            Measure(
                self.name, f"{self._names[j]}:changed", 1.0, float(self._expected[j]), "share", n, version.first, now,
                self._names[j], "absent or of another type",
            )
            for j in version.changed
        ] + [
            Measure(self.name, f"{new}:added", 1.0, 0.0, "share", n, version.first, now, new, "new field")
            for new in version.added
        ]  # fmt: skip
        self._found.append(self._finding(batch, row, name, version.first, tuple(measures), True))

    def _close(self, batch: Batch, before: Mapping[str, float]) -> None:
        """Close where no other version was heard for long (accepted), or not this one (withdrawn)."""
        for name, version in self._versions.items():
            if not version.open:
                continue
            code = next((c for c, v in enumerate(batch.versions) if v == name), -1)
            mine = batch.version == code
            others = max(version.first, *(at for n, at in before.items() if n != name), 0.0)
            begin = 1 + next((f.row for f in self._found if f.model_version == name), -1)
            ends = [
                self._quiet_row(batch, ~mine, others, begin),
                self._quiet_row(batch, mine, before.get(name, version.first), begin),
            ]
            row = min((r for r in ends if r is not None), default=None)
            if row is not None:
                version.open = False
                self._found.append(self._finding(batch, row, name, float(batch.time[row]), (), False))

    def _quiet_row(self, batch: Batch, sends: Bool, last: float, begin: int) -> int | None:
        """The first row from `begin` on that comes long after the last event of those who send."""
        heard = np.maximum(np.maximum.accumulate(np.where(sends, batch.time, -np.inf)), last)
        late = np.flatnonzero(batch.time[begin:] - heard[begin:] >= self.params.accepted)
        return begin + int(late[0]) if len(late) else None

    def _finding(
        self, batch: Batch, row: int, version: str, onset: float, measures: tuple[Measure, ...], opens: bool
    ) -> Finding:
        subjects = tuple(SubjectRef("feature", m.field) for m in measures)
        found = self.finding(batch, row, f"schema:{version}", subjects, measures, opens=opens, onset=onset)
        return replace(found, model_version=version or None)

    # --- what the others see -----------------------------------------------------------------------------------------

    def _replaced(self, batch: Batch, masked: Bool, hidden: Mapping[str, Bool]) -> Batch:
        new_fields = tuple(
            (name, rows[~hidden[name]] if name in hidden else rows)
            for name, rows in batch.new_fields
            if name not in hidden or not hidden[name].all()
        )
        if not masked.any():
            return replace(batch, new_fields=new_fields)
        reference = self.context.reference.rows
        values, status, codes = batch.numeric.values.copy(), batch.numeric.status.copy(), batch.category.codes.copy()
        for j in np.flatnonzero(masked.any(axis=0)).tolist():
            rows = np.flatnonzero(masked[:, j])
            from_row = ((batch.start + rows) * _SPREAD) % self._rows
            if j < self._numeric:
                values[rows, j] = reference.numeric.values[from_row, j]
                stands = reference.numeric.status[from_row, j]
                status[rows, j] = np.where(stands == Cell.VALID, Cell.FILLED, stands)
            else:
                c = j - self._numeric
                stands_in = reference.category.codes[from_row, c]
                codes[rows, c] = np.where(stands_in < reference.category.known[c], stands_in, 0)
        return replace(
            batch,
            numeric=replace(batch.numeric, values=values, status=status),
            category=replace(batch.category, codes=codes),
            new_fields=new_fields,
        )


def _name(batch: Batch, row: int) -> str:
    """The version of a row, empty where it names none."""
    code = int(batch.version[row])
    return batch.versions[code] if code >= 0 else ""


def _faults(batch: Batch) -> Bool:
    """(n, fields): cells that are absent or of the wrong type."""
    status, codes = batch.numeric.status, batch.category.codes
    wrong: Bool = np.hstack(
        [
            (status == Cell.ABSENT) | (status == Cell.MISTYPED),
            (codes == ABSENT_CODE) | (codes == MISTYPED_CODE),
        ]
    )
    return wrong
