"""What is told of a histogram that moved: the share of its strongest cell, in words of the column's own values."""

from __future__ import annotations

import numpy as np

from detectors.base import F64, Context, Measure
from detectors.drift.cell_past import CellPast
from detectors.drift.cells import Cells
from detectors.drift.effects import jensen_shannon, stability_index
from detectors.drift.explain import JS, PSI, effect_size
from detectors.drift.profile import profile_of
from detectors.drift.target import Target
from detectors.numeric import valid


class Words:
    """Tells of the columns of a target."""

    def __init__(self, context: Context, target: Target, cells: Cells) -> None:
        self._target, self._cells = target, cells
        columns = target.binning.numeric
        self._distinct = [_distinct(context, j) < len(c.edges) for j, c in enumerate(columns)]
        """Whether each value of a column has a bin of its own."""

    def told(self, detector: str, cell: int, past: CellPast, first: int) -> tuple[list[Measure], float]:
        """The measures of a column by its `cell` that moved since group `first`, and how large the change is."""
        column = int(self._cells.column[cell])
        named, share = self._target.binning.numeric[column], self._cells.shares[column]
        since, until = past.times(first)[0], past.times(past.next - 1)[1]
        x, n = past.summed(first)
        events, name = int(n[column]), named.name
        observed, expected = float(x[cell]) / max(events, 1), float(self._cells.of_reference[cell])
        seen = past.histogram(column, named.bins, first)
        profile = profile_of(named, share, seen) if seen.any() else None
        text = f"values {self._between(column, int(self._cells.first_bin[cell]), int(self._cells.last_bin[cell]))}"
        numbers = observed, expected, "share", events, since, until, name
        made = [Measure(detector, f"{name}:histogram", *numbers, text, profile)]
        if seen.any():
            psi, js = stability_index(share, seen), jensen_shannon(share, seen)
            made.append(Measure(detector, f"{name}:psi", psi, 0.0, "psi", events, since, until, name, PSI))
            made.append(Measure(detector, f"{name}:js", js, 0.0, "js distance", events, since, until, name, JS))
        return made, effect_size("share", observed, expected)

    def _between(self, column: int, first: int, last: int) -> str:
        """Words for the values of bins `first` to `last` (inclusive)."""
        edges: F64 = self._target.told[column].edges
        if first == 0:
            return f"up to {edges[last]:.6g}"
        if last >= len(edges):
            return f"above {edges[first - 1]:.6g}"
        distinct = self._distinct[column]
        low, high = float(edges[first if distinct else first - 1]), float(edges[last])
        if f"{low:.6g}" == f"{high:.6g}":
            return f"at {high:.6g}"
        return f"from {low:.6g} to {high:.6g}" if distinct else f"above {low:.6g} up to {high:.6g}"


def _distinct(context: Context, column: int) -> int:
    """Different numbers that a numeric column, outputs last, has in the reference."""
    rows = context.reference.rows
    inputs = len(rows.numeric.names)
    table, j = (rows.numeric, column) if column < inputs else (rows.outputs_numeric, column - inputs)
    return len(np.unique(table.values[valid(table.values, table.status)[:, j], j]))
