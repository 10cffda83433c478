"""Queries as the second stage keeps them: one row of float32 cells each, and what the first stage made of it.

Missing cells and values that the reference does not have are cells like any others, so that equal queries are equal
rows whatever the batch they came in.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np

from detectors.base import F64, I32, I64, Batch, Bool, Page, StateError
from detectors.numeric import valid
from detectors.views.projection import F32

ACROSS = ("outlier_queries", "margin_queries", "near_duplicate_queries", "independent_queries")
"""Tests of the first stage whose evidence the second one weighs anew, in the order of the columns of `log_e`."""
HUGE = 1e29
"""Numbers are cut off here; missing cells are beyond."""
_MISSING = 1e30
_UNSEEN = 1 << 20
"""Codes of unseen categories: exact in float32, and hardly ever equal for two words."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Distinct queries in the order they came, all (n,) or (n, …).

    `owner`: number of the client; `cells` (n, d): numbers, then category codes; `label`: predicted class, -1 where
    there is none; `margin`: NaN where scores are not logged; `log_e` (n, 4): evidence of `ACROSS`; `value` (n, 2): the
    statistics behind "outlier_queries" and "independent_queries"; `honest`: asked while the model calibrated; `time`:
    event time in epoch seconds.
    """

    owner: I64
    cells: F32
    label: I32
    margin: F32
    log_e: F32
    value: F32
    honest: Bool
    time: F64

    def __len__(self) -> int:
        return len(self.owner)

    def rows(self, at: I64 | slice) -> Asked:
        """Some of them."""
        return Asked(*(getattr(self, f.name)[at] for f in fields(self)))

    @staticmethod
    def joined(*parts: Asked) -> Asked:
        """One after the other; one at least."""
        return Asked(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Asked)))

    def page(self, prefix: str) -> Page:
        """Everything, as arrays."""
        return {prefix + f.name: getattr(self, f.name).copy() for f in fields(self)}

    @staticmethod
    def of_page(page: Page, prefix: str, columns: int) -> Asked | None:
        """What `page` gave, None where it gave nothing. StateError when it is of other columns."""
        if prefix + "owner" not in page:
            return None
        n = len(page[prefix + "owner"])
        like = Asked.zeros(n, columns)
        stored = {f.name: page[prefix + f.name] for f in fields(Asked)}
        for name, array in stored.items():
            if array.shape != getattr(like, name).shape:
                raise StateError(f"a page of stored queries has {name} of shape {array.shape}")
        return Asked(**{name: array.astype(getattr(like, name).dtype) for name, array in stored.items()})

    @staticmethod
    def zeros(n: int, columns: int) -> Asked:
        """Room for `n` of them."""
        f32 = np.float32
        return Asked(
            np.zeros(n, np.int64), np.zeros((n, columns), f32), np.zeros(n, np.int32), np.zeros(n, f32),
            np.zeros((n, len(ACROSS)), f32), np.zeros((n, 2), f32), np.zeros(n, np.bool_), np.zeros(n),
        )  # fmt: skip


class Cells:
    """Turns the input columns of batches into cells, by the vocabulary of a reference."""

    def __init__(self, rows: Batch) -> None:
        self.names = (*rows.numeric.names, *rows.category.names)
        self.numbers = len(rows.numeric.names)
        self.known = np.array(rows.category.known, np.int64)
        self._codes: dict[str, int] = {}

    @property
    def columns(self) -> int:
        """Cells of a query."""
        return self.numbers + len(self.known)

    def of(self, batch: Batch, rows: I64) -> F32:
        """(len(rows), columns) cells."""
        values, status = batch.numeric.values[rows], batch.numeric.status[rows]
        out = np.empty((len(rows), self.columns), np.float32)
        held = np.clip(values, -HUGE, HUGE) + 0.0
        out[:, : self.numbers] = np.where(valid(values, status), held, _MISSING * (1.0 + status))
        for j, known in enumerate(self.known.tolist()):
            codes = batch.category.codes[rows, j].astype(np.int64)
            for at in np.flatnonzero(codes >= known).tolist():
                codes[at] = known + 1 + self._code(batch.category.vocabulary[j][codes[at]])
            out[:, self.numbers + j] = codes
        return out

    def numeric(self, cells: F32) -> tuple[F64, Bool]:
        """Numbers and which of them are there."""
        values = cells[:, : self.numbers].astype(np.float64)
        return values, np.abs(values) <= HUGE * 1.001

    def codes(self, cells: F32) -> I32:
        """Category codes; those of unseen words are beyond the known ones."""
        return cells[:, self.numbers :].astype(np.int32)

    def _code(self, word: str) -> int:
        found = self._codes.get(word)
        if found is None:
            digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=4).digest()
            found = int.from_bytes(digest) % _UNSEEN
            if len(self._codes) < 10_000:
                self._codes[word] = found
        return found


def labels_of(batch: Batch, rows: I64) -> I32:
    """(len(rows),) codes of the predicted classes; -1 where there is none, or a number is predicted."""
    codes = batch.outputs_category.codes
    if not codes.shape[1]:
        return np.full(len(rows), -1, np.int32)
    labels: I32 = np.maximum(codes[rows, 0], -1).astype(np.int32)
    return labels
