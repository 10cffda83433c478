"""How queries of a client relate to the ones it asked before: the moves an attacker makes between them.

Many queries are related at once, but each only to the 64 before it: what comes out does not depend on how a client's
queries were cut. Points are multiples of 2^-16 within a bounded range, so squared distances by products are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.base import F64, I64, Bool
from detectors.moves import rounded
from detectors.moves.scale import Scale
from detectors.views.projection import F32

WINDOW: Final = 64
"""Earlier queries that one is related to."""
NEIGHBOURS: Final = 24
"""Nearest own queries among which lines are sought."""
COPIED: Final = 0.3
"""Share of cells that a masked copy keeps."""
EDIT_CELLS: Final = 2
STRAIGHT: Final = 0.99999
_BESIDE: Final = 0.045
"""Share of the way from one query to another that a line through both may miss a third by."""
LINE_CELLS: Final = 3
"""Cells that must move between any two of three queries on a line."""
_NEXT: Final = 0.1
TINY: Final = 0.05
"""Share of what is near, below which a change of one number is a probe of the model's slope."""
_MIDPOINTS: Final = 16
_FIELD_MIDPOINTS: Final = 8
SCALED: Final = _FIELD_MIDPOINTS + 1
"""Queries whose numbers are needed to compare midpoints field by field."""
_EVEN: Final = 0.02
"""Share of a step within which two midpoints, or two steps, are the same."""
_UPPER: Final[F64] = np.triu(np.ones((NEIGHBOURS, NEIGHBOURS)), 1)


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
    probed: int
    """The column in which it differs hardly from an earlier one; -1: none."""
    even: bool
    """The same step as the one before."""
    follows: bool | None
    """Made from the previous query rather than from that one's parent; None where there is no parent."""
    improved: bool


@dataclass(frozen=True, slots=True)
class Past:
    """The last queries of a client, oldest first: at most 64."""

    cells: F32
    points: F64
    told: F64
    """(n, 2) label and margin."""
    scaled: F64
    """(≤ 9, numbers) the numbers of the last of them."""
    parent: F64
    """Point, label and margin of the query that the last one is nearest to; the last cell says whether there is one."""
    probed: tuple[int, int]
    """Columns in which the last two queries differed hardly from an earlier one; -1: none."""


def copied_gain(share: F64) -> F64:
    """Log likelihood ratio of each cell that agrees: a masked copy of an earlier query, or drawn from the reference."""
    gain: F64 = np.log((COPIED + (1 - COPIED) * share) / share) - math.log(1 - COPIED)
    return gain


def relations(past: Past, queries: Sequence[Query], scale: Scale) -> list[Relation | None]:
    """How each of `queries`, asked in this order, relates to those before it. None of the first of all."""
    return _Among(past, queries, scale).relations() if queries else []


class _Among:
    """Some new queries among the earlier ones. Rows: the new ones; columns: all, oldest first."""

    def __init__(self, past: Past, queries: Sequence[Query], scale: Scale) -> None:
        self.past, self.scale = past, scale
        self.old, self.new = len(past.points), len(queries)
        self.cells: F32 = np.concatenate([past.cells, [q.cells for q in queries]])
        self.points: F64 = np.concatenate([past.points, [q.point for q in queries]])
        self.told: F64 = np.concatenate([past.told, [(q.label, q.margin) for q in queries]])
        self.scaled: F64 = np.concatenate([past.scaled, [q.scaled for q in queries]])
        self.copied: F64 = np.array([q.copied for q in queries])
        self.at: I64 = np.arange(self.old, self.old + self.new)
        """Column of each row."""
        place = np.arange(self.old + self.new)
        self.held: Bool = (place < self.at[:, None]) & (place >= self.at[:, None] - WINDOW)
        self.middles: F64 = (self.points + np.concatenate([self.points[:1], self.points[:-1]])) / 2
        """Of each query and the one before; the first has none."""
        both = np.concatenate([self.points, self.middles])
        apart = _squared(np.concatenate([self.points[self.old :], self.middles[self.old :]]), both)
        self.squared: F64 = apart[: self.new, : len(place)]
        self.around: F64 = apart[self.new :, : len(place)]
        """From the middle of each new query and the one before to all queries, and `between` to all middles."""
        self.between: F64 = apart[self.new :, len(place) :]
        self.distance: F64 = np.where(self.held, np.sqrt(np.maximum(self.squared, 0.0)), np.inf)
        self.same: Bool = self.cells[self.old :, None] == self.cells
        self.equal: I64 = np.where(self.held, self.same.sum(axis=2), -1)
        self.base: Bool = (self.equal == self.cells.shape[1] - 1) & (self.distance < TINY * scale.near)
        """Earlier queries that one differs from in one number, and hardly."""
        self.nearest: I64 = np.argmin(self.distance, axis=1)
        self.step: F64 = self.distance[np.arange(self.new), self.at - 1]

    def relations(self) -> list[Relation | None]:
        row, columns = np.arange(self.new), self.cells.shape[1]
        copy = np.where(self.same, self.copied[:, None], 0.0).sum(axis=2) + columns * math.log(1 - COPIED)
        copy[~self.held] = -np.inf
        copied = np.argmax(copy, axis=1)
        edited = self.old + self.new - 1 - np.argmax(self.equal[:, ::-1], axis=1)
        probed = self._probed()
        mirror, even = self._mirrored()
        follows, improved = self._follow()
        told = zip(
            (self.at - self.nearest).tolist(),
            self.distance[row, self.nearest].tolist(),
            self.step.tolist(),
            (columns - self.equal[row, edited]).tolist(),
            (self.at - edited).tolist(),
            copy[row, copied].tolist(),
            (self.at - copied).tolist(),
            (self.told[self.nearest, 0] != self.told[self.old :, 0]).tolist(),
            (self._lines() | self._rounded_lines()).tolist(),
            mirror.tolist(),
            (mirror & (self.equal[row, self.at - 1] == columns - 1)).tolist(),
            self._probes(probed),
            probed,
            even.tolist(),
            follows,
            improved.tolist(),
            strict=True,
        )
        made: list[Relation | None] = [Relation(*one) for one in told]
        if not self.old:
            made[0] = None
        return made

    def _probed(self) -> list[int]:
        """The column in which each query differs hardly from an earlier one, -1 where there is none."""
        column = np.argmin(self.same[np.arange(self.new), np.argmax(self.base, axis=1)], axis=1)
        probed: list[int] = np.where(self.base.any(axis=1), column, -1).tolist()
        return probed

    def _probes(self, probed: list[int]) -> list[bool]:
        """Whether this query and the previous one are some third one with one number hardly changed, not the same
        number as two queries ago: a derivative is being measured number by number."""
        base, columns = self.base.copy(), [*self.past.probed, *probed]
        base[np.arange(self.new), self.at - 1] = False
        found = [False] * self.new
        for i in np.flatnonzero(base.any(axis=1)).tolist():
            last = self.cells[self.at[i] - 1]
            third = (self.cells[base[i]] == last).sum(axis=1) >= len(last) - 1
            found[i] = columns[i] != columns[i + 2] and bool(third.any())
        return found

    def _lines(self) -> Bool:
        """Whether each query lies on the line through two earlier ones, three cells moving between any two of them."""
        near = np.argsort(self.distance, axis=1, kind="stable")[:, :NEIGHBOURS]
        distance = self.distance[np.arange(self.new)[:, None], near]
        apart = (distance > 1e-6) & (distance < np.inf)
        width = near.shape[1]
        unit = self.points[near] - self.points[self.old :, None]
        unit *= np.where(apart, 1 / np.where(apart, distance, 1.0), 0.0)[:, :, None]
        cosine = np.abs(unit @ unit.transpose(0, 2, 1)) * _UPPER[:width, :width]
        found: Bool = np.any(cosine > STRAIGHT, axis=(1, 2), keepdims=True)[:, 0, 0]
        for i in np.flatnonzero(found).tolist():
            found[i] = self._on_line(i, near[i], cosine[i])
        return found

    def _on_line(self, i: int, near: I64, cosine: F64) -> bool:
        """The same of one query, exactly, by the pairs of its neighbours that are seen in one direction."""
        pairs = np.flatnonzero(cosine > STRAIGHT)
        pairs = pairs[np.argsort(-cosine.ravel()[pairs], kind="stable")[:NEIGHBOURS]]
        a, b = near[pairs // len(near)], near[pairs % len(near)]
        gap_a, gap_b = self.points[a] - self.points[self.at[i]], self.points[b] - self.points[self.at[i]]
        # Neighbours seen from afar lie in one direction: the line between the two must lead here as well.
        along = gap_b - gap_a
        length = np.einsum("ij,ij->i", along, along)
        beside = length - (np.einsum("ij,ij->i", along, gap_a) / self.distance[i, a]) ** 2
        lead = beside < _BESIDE**2 * length
        between = (self.cells[a] != self.cells[b]).sum(axis=1)
        columns = self.cells.shape[1]
        moved = np.minimum(np.minimum(columns - self.equal[i, a], columns - self.equal[i, b]), between)
        return bool((lead & (length > 0) & (moved >= LINE_CELLS)).any())

    def _rounded_lines(self) -> Bool:
        """The same of numbers that the model's interface rounds, among the nearest and the furthest queries. What is
        next to an earlier query, or differs from it in two cells, is too near for rounded lines."""
        columns, found = self.scale.rounded, np.zeros(self.new, np.bool_)
        row, most = np.arange(self.new), self.equal.max(axis=1)
        far = self.distance[row, self.nearest] >= _NEXT * self.scale.near
        at = np.flatnonzero(far & (self.cells.shape[1] - most > EDIT_CELLS))
        if len(columns) < LINE_CELLS or not len(at):
            return found
        held, distance, half = self.held[at], self.distance[at], NEIGHBOURS // 2
        beyond = np.where(held, -distance, np.inf)
        some = np.concatenate([np.argsort(d, axis=1, kind="stable")[:, :half] for d in (distance, beyond)], axis=1)
        numbers, there = self.cells[:, columns].astype(np.float64), np.take_along_axis(held, some, axis=1)
        unit, reach = self.scale.unit, self.scale.reach
        found[at] = rounded.lines(numbers[self.at[at]], numbers[some], there, unit, reach)
        return found

    def _mirrored(self) -> tuple[Bool, Bool]:
        """Finite differences: x + h and x − h around one midpoint. And whether the step is that of before again."""
        points, old, at = self.points, self.old, self.at[:, None]
        tolerance = (_EVEN * self.step) ** 2
        place = np.arange(len(points))
        shared = (self.between < tolerance[:, None]) & (place >= np.maximum(1, at - _MIDPOINTS))
        halfway = (self.around < tolerance[:, None]) & self.held & (at > 2)
        found: Bool = ((shared | halfway) & (place <= at - 2)).any(axis=1) | self._mirrored_fields()
        before = np.maximum(self.at - 2, 0)
        change = 2 * points[self.at - 1] - points[old:] - points[before]
        even: Bool = (np.einsum("ij,ij->i", change, change) < tolerance) & (self.at >= 2)
        columns = self.cells.shape[1]
        for i in np.flatnonzero(found).tolist():
            moved = columns - int(self.equal[i, self.at[i] - 1])
            novel = (columns - int(np.count_nonzero(self.same[i][self.held[i]].any(axis=0)))) / max(1, moved)
            found[i] = novel >= 0.3 or moved <= EDIT_CELLS or self.step[i] < self.scale.spacing
        return found, even

    def _mirrored_fields(self) -> Bool:
        """The same where clipping has spoilt some fields, or rounding all of them: three tenths of those that moved
        share their midpoint."""
        scaled, old = self.scaled, len(self.scaled) - self.new
        last = np.concatenate([scaled[:1], scaled[:-1]])
        middles, moves = (scaled + last) / 2, np.abs(scaled[old:] - last[old:])
        moved = moves > 1e-6
        count = np.count_nonzero(moved, axis=1)
        earlier = np.arange(old, len(scaled))[:, None] - np.arange(2, _FIELD_MIDPOINTS + 1)
        apart = np.abs(middles[np.maximum(earlier, 0)] - middles[old:, None])
        same = (apart <= (_EVEN * moves)[:, None]) & moved[:, None]
        most = np.where(earlier >= 1, same.sum(axis=2), 0).max(axis=1)
        shared: Bool = (count >= 6) & (most >= np.maximum(3, 0.3 * count))
        return shared | rounded.mirrored(moves, apart, earlier >= 1, self.scale.scaled_unit)

    def _follow(self) -> tuple[list[bool | None], Bool]:
        """Whether each was made from the previous query rather than from that one's parent, which is the earlier one
        nearest to it; and whether the previous one was an improvement on its parent."""
        parent, row = np.concatenate([[0], self.nearest[:-1]]), np.arange(self.new)
        apart, was = np.sqrt(np.maximum(self.squared[row, parent], 0.0)), self.told[parent]
        known = self.at >= 2
        known[0] = bool(self.past.parent[-1])
        if known[0]:
            gap = self.past.parent[:-3] - self.points[self.old]
            apart[0], was[0] = math.sqrt(float(np.einsum("i,i->", gap, gap))), self.past.parent[-3:-1]
        its = self.told[self.at - 1]
        improved: Bool = ((was[:, 0] != its[:, 0]) | (its[:, 1] < was[:, 1])) & known
        nearer = zip((self.step < apart).tolist(), known.tolist(), strict=True)
        return [follows if told else None for follows, told in nearer], improved


def _squared(a: F64, b: F64) -> F64:
    """(len(a), len(b)) squared distances."""
    apart: F64 = np.einsum("ij,ij->i", a, a)[:, None] - 2 * a @ b.T + np.einsum("ij,ij->i", b, b)
    return apart
