"""Simulated streams with a known truth, as contract types: 12 numeric and 8 categorical inputs, a score and a class.

`reference(seed)`, `clean(seed, n)` and `shifted(seed, n, at)` are what any detector can be tried on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, ndtr

from detectors.base import (
    F64,
    I32,
    I64,
    NULL_CODE,
    U8,
    Batch,
    Category,
    Cell,
    Identity,
    Numeric,
)
from detectors.reference import Origin, Reference

START = 1_767_571_200.0
PER_DAY = 100_000.0
CUT = 1_024
CARDINALITY = (2, 3, 5, 8, 12, 20, 50, 200)
NUMERIC = tuple(f"n{i}" for i in range(12))
CATEGORY = tuple(f"c{i}" for i in range(8))
SCORE, CLASS = "prediction.score", "prediction.class"
UNSEEN = "never seen before"


def reference(seed: int, rows: int = 1_000, origin: Origin = "file") -> Reference:
    """Rows of the undisturbed law."""
    table = _draw(np.random.default_rng([seed, 0]), rows, rows, "none")
    return Reference(_batch(table, 0), origin, f"simulated-{seed}-{rows}")


def clean(seed: int, n: int, per_day: float = PER_DAY) -> list[Batch]:
    """`n` events without any change, cut at every 1,024th."""
    return shifted(seed, n, n, "none", per_day)


def shifted(seed: int, n: int, at: int, drift: str = "mean1", per_day: float = PER_DAY) -> list[Batch]:
    """`n` events that change at event `at`: mean<σ>, slow<σ at the end>, scale1.5, corr<r>, cat10pp, new<%>,
    missing<%>, unit10, prior10."""
    whole = _batch(_draw(np.random.default_rng([seed, 1]), n, at, drift), 0, per_day)
    return list(cut(whole, [CUT] * (-(-n // CUT))))


def cut(batch: Batch, sizes: Iterable[int]) -> Iterator[Batch]:
    """The events of `batch` in consecutive batches of these sizes (the last may be shorter)."""
    at = 0
    for size in sizes:
        if at < len(batch):
            yield part(batch, at, min(at + size, len(batch)))
        at += size


def join(batches: Sequence[Batch]) -> Batch:
    """One batch of consecutive ones that share vocabularies."""
    first = batches[0]
    if len(batches) == 1:
        return first

    def numbers(tables: Sequence[Numeric]) -> Numeric:
        return Numeric(
            tables[0].names, np.concatenate([t.values for t in tables]), np.concatenate([t.status for t in tables])
        )

    def words(tables: Sequence[Category]) -> Category:
        return replace(tables[0], codes=np.concatenate([t.codes for t in tables]))

    return replace(
        first,
        time=np.concatenate([b.time for b in batches]),
        identity=replace(
            first.identity,
            topic=np.concatenate([b.identity.topic for b in batches]),
            partition=np.concatenate([b.identity.partition for b in batches]),
            offset=np.concatenate([b.identity.offset for b in batches]),
            row=np.concatenate([b.identity.row for b in batches]),
        ),
        client=np.concatenate([b.client for b in batches]),
        version=np.concatenate([b.version for b in batches]),
        numeric=numbers([b.numeric for b in batches]),
        category=words([b.category for b in batches]),
        outputs_numeric=numbers([b.outputs_numeric for b in batches]),
        outputs_category=words([b.outputs_category for b in batches]),
        event_ids=tuple(e for b in batches for e in b.event_ids),
    )


def part(batch: Batch, first: int, last: int) -> Batch:
    """Events `first` to `last` (exclusive) of a batch, as copies."""
    rows = slice(first, last)

    def numbers(table: Numeric) -> Numeric:
        return Numeric(table.names, table.values[rows].copy(), table.status[rows].copy())

    def words(table: Category) -> Category:
        return Category(table.names, table.codes[rows].copy(), table.vocabulary)

    i = batch.identity
    return Batch(
        subject=batch.subject,
        start=batch.start + first,
        time=batch.time[rows].copy(),
        identity=Identity(
            i.topics, i.topic[rows].copy(), i.partition[rows].copy(), i.offset[rows].copy(), i.row[rows].copy()
        ),
        client=batch.client[rows].copy(),
        clients=batch.clients,
        version=batch.version[rows].copy(),
        versions=batch.versions,
        numeric=numbers(batch.numeric),
        category=words(batch.category),
        outputs_numeric=numbers(batch.outputs_numeric),
        outputs_category=words(batch.outputs_category),
        event_ids=batch.event_ids[rows],
    )


def with_cell(batch: Batch, row: int, column: int, value: float, status: Cell = Cell.VALID) -> Batch:
    """The batch with one numeric input cell replaced."""
    values, marks = batch.numeric.values.copy(), batch.numeric.status.copy()
    values[row, column] = value
    marks[row, column] = status
    return replace(batch, numeric=Numeric(batch.numeric.names, values, marks))


@dataclass(frozen=True, slots=True)
class _Table:
    numeric: F64
    category: I64
    score: F64
    client: I32


def _draw(rng: np.random.Generator, n: int, at: int, drift: str) -> _Table:
    """Numeric inputs with NaN for missing, category codes with -1 for missing, scores."""
    z = rng.standard_normal((n, 20))
    if drift.startswith("mean"):
        z[at:, 0] += float(drift[4:])
    elif drift == "scale1.5":
        z[at:, 0] *= 1.5
    elif drift.startswith("corr"):
        r = float(drift[4:])
        z[at:, 11] = r * z[at:, 0] + np.sqrt(1 - r * r) * z[at:, 11]
    elif drift.startswith("slow"):
        z[at:, 0] += float(drift[4:]) * np.linspace(0, 1, n - at)
    u = np.clip(ndtr(z), 0, 1 - 1e-12)
    x = np.empty((n, 12))
    x[:, 0], x[:, 1], x[:, 2], x[:, 3] = z[:, 0], 10 + 2 * z[:, 1], np.exp(z[:, 2]), 100 * np.exp(0.5 * z[:, 3])
    x[:, 4], x[:, 5] = -np.log1p(-u[:, 4]), u[:, 5]
    x[:, 6] = np.sign(z[:, 6]) * np.abs(z[:, 6]) ** 1.5
    x[:, 7] = np.where(z[:, 7] > 0, z[:, 7] + 2, z[:, 7] - 2)
    x[:, 8] = np.where(u[:, 8] < 0.6, 0, np.exp(z[:, 8]))
    x[:, 9], x[:, 10] = np.floor(-np.log1p(-u[:, 9]) * 5), np.round(u[:, 10] * 50 + 20)
    x[:, 11] = z[:, 11]
    c = np.stack([_categories(u[:, 12 + j], CARDINALITY[j]) for j in range(8)], axis=1)
    late = np.arange(n) >= at
    x[rng.random(n) < 0.01, 1] = np.nan
    coin = rng.random(n)
    if drift == "cat10pp":
        c[late & (c[:, 3] == 0) & (coin < 0.10 / _shares(8)[0]), 3] = 7
    elif drift.startswith("new"):
        c[late & (coin < float(drift[3:]) / 100), 2] = CARDINALITY[2]
    elif drift.startswith("missing"):
        x[late & (coin < float(drift[7:]) / 100), 1] = np.nan
    elif drift == "unit10":
        x[at:, 3] *= 10
    logit = -1.9 + 0.8 * z[:, 0] + 0.5 * z[:, 1] - 0.6 * z[:, 5] + 0.7 * (c[:, 0] == 1) + 0.3 * rng.standard_normal(n)
    if drift.startswith("prior"):
        logit[at:] += float(drift[5:]) / 20
    client = np.asarray(rng.zipf(1.3, n) % 500, np.int32)
    return _Table(x, c, expit(logit), client)


def _shares(cardinality: int) -> F64:
    if cardinality == 2:
        return np.array([0.7, 0.3])
    p: F64 = 1 / np.arange(1, cardinality + 1)
    p /= p.sum()
    return p


def _categories(u: F64, cardinality: int) -> I64:
    return np.searchsorted(np.cumsum(_shares(cardinality)), u, side="right").clip(0, cardinality - 1)


def _batch(table: _Table, start: int, per_day: float = PER_DAY) -> Batch:
    n = len(table.score)
    missing = np.isnan(table.numeric)
    status: U8 = np.where(missing, Cell.NULL, Cell.VALID).astype(np.uint8)
    vocabulary = tuple((*(f"v{i}" for i in range(k)), UNSEEN) for k in CARDINALITY)
    codes = np.where(table.category < 0, NULL_CODE, table.category).astype(np.int32)
    says_yes = (table.score > 0.5).astype(np.int32)
    zero = np.zeros(n, np.int64)
    return Batch(
        subject="model:/simulated",
        start=start,
        time=START + (start + np.arange(n)) * 86_400 / per_day,
        identity=Identity(("simulated",), np.zeros(n, np.int32), zero, start + np.arange(n), zero.copy()),
        client=table.client,
        clients=tuple(f"c_{i:03}" for i in range(500)),
        version=np.zeros(n, np.int32),
        versions=("1",),
        numeric=Numeric(NUMERIC, np.where(missing, 0.0, table.numeric), status),
        category=Category(CATEGORY, codes, vocabulary),
        outputs_numeric=Numeric((SCORE,), table.score[:, None].copy(), np.zeros((n, 1), np.uint8)),
        outputs_category=Category((CLASS,), says_yes[:, None], (("no", "yes"),)),
        event_ids=(None,) * n,
    )
