"""A client's last distinct queries, and what the next ones were made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from detectors.base import F64, Page, StateError
from detectors.moves.relations import EDIT_CELLS, SCALED, WINDOW, Past, Query, Relation, relations
from detectors.moves.scale import Scale
from detectors.views.projection import F32

EDIT_LLR: Final = math.log(100)
MASK_LLR: Final = math.log(1000)
MASK_OFF_GRID: Final = 0.1
Link = Literal["near", "edit", "mask", "path", "free"]


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
        self._scaled: F64 = np.zeros((0, numbers))
        """The numbers of the last queries."""
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

    def relate(self, queries: Sequence[Query], scale: Scale) -> list[Relation | None]:
        """How each of `queries`, which are to be taken in this order, relates to those before it. None of the first
        of all."""
        at = slice(self._begin, self._begin + self.n)
        told = self._told[at, :2]
        past = Past(self._cells[at], self._points[at], told, self._scaled, self._parent, self._probed)
        return relations(past, queries, scale)

    def take(self, q: Query, relation: Relation | None, thread: int) -> None:
        """Hold a query; of more than 64 the oldest goes."""
        if relation is not None:
            at = self._begin + self.n - relation.nearest
            self._parent = np.concatenate([self._points[at], self._told[at, :2], [1.0]])
            self._probed = self._probed[1], relation.probed
        self._scaled = np.concatenate([self._scaled[1 - SCALED :], q.scaled[None]])
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

    def page(self) -> Page:
        """Everything, as arrays."""
        at = slice(self._begin, self._begin + self.n)
        return {
            "cells": self._cells[at].copy(),
            "points": self._points[at].astype(np.float32),
            "told": self._told[at].copy(),
            "parent": self._parent.copy(),
            "scaled": self._scaled.copy(),
            "probed": np.array(self._probed, np.int64),
        }

    def restore(self, page: Page) -> None:
        """Take what `page` gave. StateError when it is of other columns."""
        n = len(page["cells"])
        for mine, name in ((self._cells, "cells"), (self._points, "points"), (self._told, "told")):
            if page[name].shape != (n, mine.shape[1]) or n > WINDOW:
                raise StateError(f"a stored window of queries has {name} of shape {page[name].shape}")
            mine[:n] = page[name]
        held = (min(n, SCALED), self._scaled.shape[1])
        for name, shape in (("parent", self._parent.shape), ("scaled", held), ("probed", (2,))):
            if page[name].shape != shape:
                raise StateError(f"a stored window of queries has {name} of shape {page[name].shape}")
        self.n, self._begin = n, 0
        self._parent, self._scaled = page["parent"].astype(np.float64), page["scaled"].astype(np.float64)
        self._probed = int(page["probed"][0]), int(page["probed"][1])


def link(q: Query, relation: Relation, scale: Scale) -> tuple[Link, int]:
    """The first kind of link that fits, and how far back the query is that this one was made from (0: none)."""
    if relation.distance < scale.near:
        return "near", relation.nearest
    if len(q.cells) > 4 and 0 < relation.changed <= EDIT_CELLS and relation.copy > EDIT_LLR:
        return "edit", relation.edited
    if q.off_grid <= MASK_OFF_GRID and relation.copy > MASK_LLR:
        return "mask", relation.copied
    return "free", 0
