"""View "dependence": how well the fields of an event belong together, by the strongest dependences of the reference.

T(x) = Σ over the edges of a Chow-Liu tree (Chow & Liu 1968) of log p(x_a, x_b) / p(x_a) p(x_b). Records drawn field by
field lose it; segments and steady shifts of real data keep most of it.
"""

from __future__ import annotations

import numpy as np

from detectors.base import F64, I32, I64, Batch, Bool, Context, Views, view
from detectors.numeric import valid
from detectors.reference import Reference
from detectors.views.projection import MAX_ROWS

BINS = 8
MAX_COLUMNS = 128
"""Columns the tree may span; of more, those with most entropy."""
_FLOOR = -6.0
"""An unseen pair says at most this much: one odd value is no proof."""


class Tree:
    """The dependences of a reference: edges, and a table of pointwise mutual information for each."""

    def __init__(self, reference: Reference) -> None:
        rows = reference.rows
        ok = valid(rows.numeric.values, rows.numeric.status)
        self._cuts = [_cuts(rows.numeric.values[ok[:, j], j]) for j in range(len(rows.numeric.names))]
        self._words = rows.category.known
        self._size = np.array([len(c) + 2 for c in self._cuts] + [w + 2 for w in self._words], np.int64)
        codes = self._codes(rows.numeric.values, ok, rows.category.codes)[
            np.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).astype(np.int64)
        ]
        self._take = _most_telling(codes, self._size)
        self._fit(codes[:, self._take], self._size[self._take])

    def of(self, batch: Batch) -> F64:
        """(n,) T of every event; 0 where the reference shows no dependence at all."""
        ok = valid(batch.numeric.values, batch.numeric.status)
        return self.of_columns(batch.numeric.values, ok, batch.category.codes)

    def of_columns(self, values: F64, ok: Bool, category: I32) -> F64:
        """As `of`, of numbers, which of them are there, and category codes."""
        if not len(self._left):
            return np.zeros(len(values))
        total: F64 = self.terms(values, ok, category).sum(axis=1)
        return total

    def terms(self, values: F64, ok: Bool, category: I32) -> F64:
        """(n, edges) what each edge adds to T."""
        codes = self._codes(values, ok, category)[:, self._take]
        at = self._offset + codes[:, self._left] * self._stride + codes[:, self._right]
        told: F64 = self._table[at]
        return told

    def _codes(self, values: F64, ok: Bool, category: I32) -> I64:
        """(n, columns) codes: bins of numbers and known categories, then unseen, then missing."""
        numbers = len(self._cuts)
        out = np.empty((len(values), len(self._size)), np.int64)
        for j, cuts in enumerate(self._cuts):
            bins = np.searchsorted(cuts, values[:, j], side="right")
            out[:, j] = np.where(ok[:, j], bins, len(cuts) + 1)
        for j, words in enumerate(self._words):
            codes = category[:, j].astype(np.int64)
            out[:, numbers + j] = np.where(codes < 0, words + 1, np.minimum(codes, words))
        return out

    def _fit(self, codes: I64, size: I64) -> None:
        n, d = codes.shape
        first = np.cumsum(size) - size
        flags = np.zeros((n, int(size.sum())), np.float32)
        flags[np.arange(n)[:, None], first + codes] = 1
        counts = (flags.T @ flags).astype(np.float64)
        single = np.diag(counts)
        smooth = [(single[a : a + s] + 0.5) / (n + 0.5 * s) for a, s in zip(first.tolist(), size.tolist(), strict=True)]
        gain = np.full((d, d), -np.inf)
        for a in range(d):
            for b in range(a):
                gain[a, b] = gain[b, a] = _information(counts[_at(first, size, a), _at(first, size, b)], n)
        edges = _spanning_tree(gain)
        tables = [_table(counts[_at(first, size, a), _at(first, size, b)], smooth[a], smooth[b], n) for a, b in edges]
        self._left = np.array([a for a, _ in edges], np.int64)
        self._right = np.array([b for _, b in edges], np.int64)
        self._stride = size[self._right] if edges else np.zeros(0, np.int64)
        lengths = np.array([t.size for t in tables], np.int64)
        self._offset = np.cumsum(lengths) - lengths
        self._table = np.concatenate([t.ravel() for t in tables]) if tables else np.zeros(0)


@view("dependence")
def _dependence(views: Views) -> F64:
    return tree_of(views.context).of(views.batch)


def tree_of(context: Context) -> Tree:
    """The tree of the model, fitted once."""
    if "dependence" not in context.cache:
        context.cache["dependence"] = Tree(context.reference)
    made: Tree = context.cache["dependence"]
    return made


def _cuts(values: F64) -> F64:
    """Inner borders of at most 8 bins of equal counts; few distinct values get a bin each."""
    distinct = np.unique(values)
    if len(distinct) <= BINS:
        return distinct[1:]
    return np.unique(np.quantile(values, np.arange(1, BINS) / BINS))


def _most_telling(codes: I64, size: I64) -> I64:
    """Columns by entropy, at most `MAX_COLUMNS`, in their order."""
    if codes.shape[1] <= MAX_COLUMNS:
        return np.arange(codes.shape[1])
    share = [np.bincount(codes[:, j], minlength=int(size[j])) / len(codes) for j in range(codes.shape[1])]
    entropy = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in share]
    return np.sort(np.argsort(entropy, kind="stable")[-MAX_COLUMNS:])


def _at(first: I64, size: I64, j: int) -> slice:
    return slice(int(first[j]), int(first[j] + size[j]))


def _information(pairs: F64, n: int) -> float:
    """Mutual information in nats, less its bias (Miller 1955)."""
    p = pairs / n
    a, b = p.sum(axis=1, keepdims=True), p.sum(axis=0, keepdims=True)
    seen = p > 0
    bias = (np.count_nonzero(a) - 1) * (np.count_nonzero(b) - 1) / (2 * n)
    return float((p[seen] * np.log(p[seen] / (a @ b)[seen])).sum() - bias)


def _spanning_tree(gain: F64) -> list[tuple[int, int]]:
    """Maximum spanning tree (Prim); edges without information are left out."""
    d = len(gain)
    if d < 2:
        return []
    edges: list[tuple[int, int]] = []
    best, source = gain[0].copy(), np.zeros(d, np.int64)
    done = np.zeros(d, np.bool_)
    done[0] = True
    for _ in range(d - 1):
        b = int(np.argmax(np.where(done, -np.inf, best)))
        done[b] = True
        if best[b] > 0:
            edges.append((int(source[b]), b))
        closer = gain[b] > best
        best[closer], source[closer] = gain[b][closer], b
    return edges


def _table(pairs: F64, a: F64, b: F64, n: int) -> F64:
    """Log ratio of each pair to independence; one pseudo-count spread as the product of the margins."""
    apart = np.outer(a, b)
    table: F64 = np.maximum(np.log((pairs + apart) / (n + 1)) - np.log(apart), _FLOOR)
    return table
