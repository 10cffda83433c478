"""A client's last distinct queries, and how the next one relates to them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from detectors.base import F64, I64, Bool, Page, StateError
from detectors.moves import rounded
from detectors.moves.scale import Scale
from detectors.views.projection import F32

WINDOW: Final = 64
NEIGHBOURS: Final = 24
"""Nearest own queries among which lines are sought."""
COPIED: Final = 0.3
"""Share of cells that a masked copy keeps."""
EDIT_CELLS: Final = 2
EDIT_LLR: Final = math.log(100)
MASK_LLR: Final = math.log(1000)
MASK_OFF_GRID: Final = 0.1
STRAIGHT: Final = 0.99999
_BESIDE: Final = 0.045
"""Share of the way from one query to another that a line through both may miss a third by."""
LINE_CELLS: Final = 3
"""Cells that must move between any two of three queries on a line."""
TINY: Final = 0.05
"""Share of what is near, below which a change of one number is a probe of the model's slope."""
_MIDPOINTS: Final = 16
_FIELD_MIDPOINTS: Final = 8
_UPPER: Final[F64] = np.triu(np.ones((NEIGHBOURS, NEIGHBOURS)), 1)
Link = Literal["near", "edit", "mask", "path", "free"]


def copied_gain(share: F64) -> F64:
    """Log likelihood ratio of each cell that agrees: a masked copy of an earlier query, or drawn from the reference."""
    gain: F64 = np.log((COPIED + (1 - COPIED) * share) / share) - math.log(1 - COPIED)
    return gain


@dataclass(frozen=True, slots=True)
class Query:
    """One distinct query of a client with what is known of it by itself."""

    cells: F32
    point: F64
    scaled: F64
    share: F64
    """(columns,) probability of each value in the reference."""
    copied: F64
    """(columns,) log likelihood ratio, where it agrees with an earlier query, that it is a masked copy of that one."""
    off_grid: float
    label: int
    margin: float
    log_e: F64


@dataclass(frozen=True, slots=True)
class Relation:
    """How a query relates to the earlier ones of its client. Indices count back from it: 1 is the previous one."""

    nearest: int
    distance: float
    step: float
    """Distance to the previous one."""
    changed: int
    """Fewest cells by which it differs from an earlier one, `edited` back."""
    edited: int
    copy: float
    """Log likelihood ratio that it is a masked copy of the one `copied` back."""
    copied: int
    flip: bool
    line: bool
    mirror: bool
    twin: bool
    """A mirrored pair that differs in one number only."""
    probe: bool
    """A tiny change of one number of an earlier query, as the previous one was: a derivative is being measured."""
    even: bool
    """The same step as the one before."""
    follows: bool | None
    """Made from the previous query rather than from that one's parent; None where there is no parent."""
    outcome: int
    """What the previous query brought, against what that one was made from: 0 the same answer no less sure, 1 less
    sure, 2 another answer."""


class Window:
    """The last 64 distinct queries: cells, points, labels, margins, and the thread of each."""

    def __init__(self, columns: int, dimensions: int, numbers: int) -> None:
        self.n = 0
        """Queries in it."""
        self._cells: F32 = np.zeros((2 * WINDOW, columns), np.float32)
        self._points: F64 = np.zeros((2 * WINDOW, dimensions))
        self._told: F64 = np.zeros((2 * WINDOW, 3))
        """Label, margin and thread."""
        self._begin = 0
        self._parent: F64 = np.zeros(dimensions + 3)
        """Point, label and margin of the query that the previous one is nearest to; the last says whether there is."""
        self._mid: F64 = np.zeros((_MIDPOINTS, dimensions))
        self._field_mid: F64 = np.zeros((_FIELD_MIDPOINTS, numbers))
        self._scaled: F64 = np.zeros(numbers)
        self._steps = 0
        """Steps taken: those of the midpoints."""
        self._probed = (-1, -1)
        """Columns in which the last two queries differed hardly from an earlier one; -1: none."""

    def thread(self, back: int) -> int:
        """Thread of the query `back` before."""
        return int(self._told[self._begin + self.n - back, 2])

    def points(self) -> F32:
        """(n, dimensions) the queries held, oldest first."""
        held: F32 = self._points[self._begin : self._begin + self.n].astype(np.float32)
        return held

    def rename(self, old: frozenset[int], new: int) -> None:
        """Queries of the threads `old` are of `new` from now on."""
        held = self._told[self._begin : self._begin + self.n, 2]
        held[np.isin(held, list(old))] = new

    def relate(self, q: Query, scale: Scale) -> Relation:
        """How `q` relates to the queries held; there must be one at least."""
        at = slice(self._begin, self._begin + self.n)
        gap = self._points[at] - q.point
        distance = np.sqrt(np.einsum("ij,ij->i", gap, gap))
        b = int(np.argmin(distance))
        same = self._cells[at] == q.cells
        equal = same.sum(axis=1)
        d = len(q.cells)
        back = self.n - 1 - int(np.argmax(equal[::-1]))
        copy = same @ q.copied + d * math.log(1 - COPIED)
        k = int(np.argmax(copy))
        follows, outcome = self._follow(q, float(distance[-1]))
        mirror, even = self._mirrored(q, gap, float(distance[-1]), same, scale)
        return Relation(
            nearest=self.n - b,
            distance=float(distance[b]),
            step=float(distance[-1]),
            changed=d - int(equal[back]),
            edited=self.n - back,
            copy=float(copy[k]),
            copied=self.n - k,
            flip=int(self._told[at, 0][b]) != q.label,
            line=self._on_line(gap, distance, same) or self._on_rounded_line(q, distance, scale),
            mirror=mirror,
            twin=mirror and int(equal[-1]) == d - 1,
            probe=self._probes(q, distance, same, equal, scale),
            even=even,
            follows=follows,
            outcome=outcome,
        )

    def take(self, q: Query, relation: Relation | None, thread: int) -> None:
        """Hold a query; of more than 64 the oldest goes."""
        if self.n:
            last = self._begin + self.n - 1
            self._mid[self._steps % _MIDPOINTS] = (q.point + self._points[last]) / 2
            self._field_mid[self._steps % _FIELD_MIDPOINTS] = (q.scaled + self._scaled) / 2
            self._steps += 1
        if relation is not None:
            at = self._begin + self.n - relation.nearest
            self._parent = np.concatenate([self._points[at], self._told[at, :2], [1.0]])
        self._scaled = q.scaled
        if self.n == WINDOW:
            self._begin += 1
            if self._begin > WINDOW:
                self._shift()
        else:
            self.n += 1
        at = self._begin + self.n - 1
        self._cells[at], self._points[at] = q.cells, q.point
        self._told[at] = q.label, q.margin, thread

    def _shift(self) -> None:
        for table in (self._cells, self._points, self._told):
            table[: WINDOW - 1] = table[self._begin : self._begin + WINDOW - 1]
        self._begin = 0

    def _on_line(self, gap: F64, distance: F64, same: Bool) -> bool:
        """Whether the query lies on the line through two earlier ones, three cells moving between any two of them."""
        near = np.argsort(distance, kind="stable")[:NEIGHBOURS]
        near = near[distance[near] > 1e-6]
        if len(near) < 2:
            return False
        unit = gap[near] / distance[near, None]
        cosine = np.abs(unit @ unit.T) * _UPPER[: len(near), : len(near)]
        pairs = np.flatnonzero(cosine > STRAIGHT)
        if not len(pairs):
            return False
        pairs = pairs[np.argsort(-cosine.ravel()[pairs], kind="stable")[:NEIGHBOURS]]
        a, b = near[pairs // len(near)], near[pairs % len(near)]
        # Neighbours seen from afar lie in one direction: the line between the two must lead here as well.
        along = gap[b] - gap[a]
        length = np.einsum("ij,ij->i", along, along)
        beside = length - (np.einsum("ij,ij->i", along, gap[a]) / distance[a]) ** 2
        lead = beside < _BESIDE**2 * length
        between = (self._cells[self._begin + a] != self._cells[self._begin + b]).sum(axis=1)
        moved = np.minimum(np.minimum((~same[a]).sum(axis=1), (~same[b]).sum(axis=1)), between)
        return bool((lead & (length > 0) & (moved >= LINE_CELLS)).any())

    def _on_rounded_line(self, q: Query, distance: F64, scale: Scale) -> bool:
        """The same of numbers that the model's interface rounds."""
        columns = scale.rounded
        if len(columns) < LINE_CELLS or self.n < 2:
            return False
        order = np.argsort(distance, kind="stable")
        some = np.concatenate([order[: NEIGHBOURS // 2], order[NEIGHBOURS // 2 :][-(NEIGHBOURS // 2) :]])
        held = self._cells[self._begin + some][:, columns].astype(np.float64)
        return rounded.on_some_line(q.cells[columns].astype(np.float64), held, scale.unit, scale.reach)

    def _probes(self, q: Query, distance: F64, same: Bool, equal: I64, scale: Scale) -> bool:
        """Whether this query and the previous one are some third one with one number hardly changed, not the same
        number as two queries ago: a derivative is being measured number by number."""
        base = (equal == len(q.cells) - 1) & (distance < TINY * scale.near)
        column = int(np.argmin(same[np.argmax(base)])) if base.any() else -1
        before, self._probed = self._probed[0], (self._probed[1], column)
        if not base[:-1].any() or before == column:
            return False
        at = slice(self._begin, self._begin + self.n - 1)
        last = self._cells[self._begin + self.n - 1]
        return bool((base[:-1] & ((self._cells[at] == last).sum(axis=1) >= len(q.cells) - 1)).any())

    def _mirrored(self, q: Query, gap: F64, step: float, same: Bool, scale: Scale) -> tuple[bool, bool]:
        """Finite differences: x + h and x − h around one midpoint. And whether the step is that of before again."""
        last = self._begin + self.n - 1
        middle, tolerance = (q.point + self._points[last]) / 2, 0.02 * step
        held = min(self._steps, _MIDPOINTS)
        found = False
        if held > 1:
            apart = self._mid[_ring(self._steps, held, _MIDPOINTS)] - middle
            found = bool((np.einsum("ij,ij->i", apart, apart) < tolerance**2).any())
        if not found and self.n > 2:
            apart = self._points[self._begin : last] - middle
            found = bool((np.einsum("ij,ij->i", apart, apart) < tolerance**2).any())
        found = found or self._mirrored_fields(q, scale)
        even = False
        if self.n >= 2:
            change = gap[-1] + (self._points[last] - self._points[last - 1])
            even = bool(np.einsum("i,i->", change, change) < tolerance**2)
        if not found:
            return False, even
        moved = len(q.cells) - int(np.count_nonzero(same[-1]))
        novel = (len(q.cells) - int(np.count_nonzero(same.any(axis=0)))) / max(1, moved)
        return novel >= 0.3 or moved <= EDIT_CELLS or step < scale.spacing, even

    def _mirrored_fields(self, q: Query, scale: Scale) -> bool:
        """The same where clipping has spoilt some fields, or rounding all of them: three tenths of those that moved
        share their midpoint."""
        held = min(self._steps, _FIELD_MIDPOINTS)
        if held < 2:
            return False
        move = np.abs(q.scaled - self._scaled)
        moved = move > 1e-6
        count = int(np.count_nonzero(moved))
        if count < rounded.FIELDS:
            return False
        apart = np.abs(self._field_mid[_ring(self._steps, held, _FIELD_MIDPOINTS)] - (q.scaled + self._scaled) / 2)
        if rounded.mirrored(move, apart, scale.scaled_unit):
            return True
        if count < 6:
            return False
        same = (apart <= 0.02 * move) & moved
        return bool(same.sum(axis=1).max() >= max(3, 0.3 * count))

    def _follow(self, q: Query, step: float) -> tuple[bool | None, int]:
        if not self._parent[-1]:
            return None, 0
        gap = self._parent[:-3] - q.point
        label, margin = self._parent[-3], self._parent[-2]
        was, its = self._told[self._begin + self.n - 1, :2]
        outcome = 2 if was != label else int(its < margin)
        return step < math.sqrt(float(np.einsum("i,i->", gap, gap))), outcome

    def page(self) -> Page:
        """Everything, as arrays."""
        at = slice(self._begin, self._begin + self.n)
        return {
            "cells": self._cells[at].copy(),
            "points": self._points[at].astype(np.float32),
            "told": self._told[at].copy(),
            "parent": self._parent.copy(),
            "mid": self._mid.copy(),
            "field_mid": self._field_mid.copy(),
            "scaled": self._scaled.copy(),
            "steps": np.array([self._steps, *self._probed], np.int64),
        }

    def restore(self, page: Page) -> None:
        """Take what `page` gave. StateError when it is of other columns."""
        n = len(page["cells"])
        for mine, name in ((self._cells, "cells"), (self._points, "points"), (self._told, "told")):
            if page[name].shape != (n, mine.shape[1]) or n > WINDOW:
                raise StateError(f"a stored window of queries has {name} of shape {page[name].shape}")
            mine[:n] = page[name]
        for mine, name in ((self._parent, "parent"), (self._mid, "mid"), (self._field_mid, "field_mid")):
            if page[name].shape != mine.shape:
                raise StateError(f"a stored window of queries has {name} of shape {page[name].shape}")
        self.n, self._begin = n, 0
        self._parent = page["parent"].astype(np.float64)
        self._mid, self._field_mid = page["mid"].astype(np.float64), page["field_mid"].astype(np.float64)
        self._scaled = page["scaled"].astype(np.float64)
        self._steps, *probed = page["steps"].tolist()
        self._probed = (probed[0], probed[1])


def _ring(steps: int, held: int, size: int) -> I64:
    """Places of the last `held` midpoints but the newest."""
    places: I64 = np.arange(steps - held, steps - 1) % size
    return places


def link(q: Query, relation: Relation, scale: Scale) -> tuple[Link, int]:
    """The first kind of link that fits, and how far back the query is that this one was made from (0: none)."""
    if relation.distance < scale.near:
        return "near", relation.nearest
    if len(q.cells) > 4 and 0 < relation.changed <= EDIT_CELLS and relation.copy > EDIT_LLR:
        return "edit", relation.edited
    if q.off_grid <= MASK_OFF_GRID and relation.copy > MASK_LLR:
        return "mask", relation.copied
    return "free", 0
