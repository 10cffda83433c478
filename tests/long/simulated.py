"""Streams without drift under four laws, and the same with one of eight changes, through detector and account.

12 numeric inputs of various laws, 8 categories of 2 to 200 values, a score and a class that depend on them; 100,000
events a day unless told. `iid`: independent events. `sessions`: 20 sessions at a time, each 20 events long, 30 % of the
variance shared within a session. `diurnal`: a daily sine of 0.3 σ on nine inputs. `weekly`: these are 0.3 σ higher on
weekends besides. `wander`: the means of six inputs wander (Ornstein-Uhlenbeck, 0.1 σ, 20,000 events): the budget makes
no promise there. References are rows drawn from a stretch of the same law (a whole day where there is a season or a
wander), in no order, or the days before in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import expit, ndtr
from scipy.stats import chi2

from detectors.account import SumAccount
from detectors.base import (
    F64,
    I64,
    NULL_CODE,
    Alarm,
    Batch,
    Category,
    Cell,
    Context,
    Evidence,
    Identity,
    Numeric,
    Views,
    registry,
)
from detectors.drift.predictive import PredictiveDrift
from detectors.reference import Reference
from monitor.sampling import is_in_sample

Law = Literal["iid", "sessions", "diurnal", "weekly", "wander"]
LAWS: tuple[Law, ...] = ("iid", "sessions", "diurnal", "wander")
ALL_LAWS: tuple[Law, ...] = (*LAWS, "weekly")
DRIFTS = ("mean.25", "mean.5", "scale1.5", "cat10pp", "new5", "missing5", "corr.6", "prior10")
"""Changes of a moment, a share or a correlation."""
OF_FORM = ("fill5", "fill10", "humps.8", "humps.9")
"""Changes that leave mean and spread about as they are: a share of the values is replaced by the most usual one, one
hump becomes two."""
PER_DAY = 100_000
MONTH = 30 * 86_400.0
CUT = 1_024
START = 1_767_571_200.0
"""A Monday."""
CARDINALITY = (2, 3, 5, 8, 12, 20, 50, 200)
NUMERIC, CATEGORY = tuple(f"n{i}" for i in range(12)), tuple(f"c{i}" for i in range(8))
_SHARED, _BURST, _AT_ONCE, _SWING, _SLOW = 0.3, 20, 20, 0.3, 20_000
_SEASONAL = (*range(6), 12, 13, 14)
_FIRST_CATEGORY = np.array([0.7, 0.3])


@dataclass(frozen=True)
class Table:
    """Inputs as numbers (NaN: missing) and codes, and the scores."""

    numeric: F64
    category: I64
    score: F64

    def rows(self, at: I64) -> Table:
        """These rows."""
        return Table(self.numeric[at], self.category[at], self.score[at])


def drawn(
    law: Law, seed: int, events: int, drift: str = "none", change_at: int = 0, first: int = 0, per_day: int = PER_DAY
) -> Table:
    """`events` events from number `first` of the day on, changed from `change_at` on."""
    rng = np.random.default_rng([seed, min(ALL_LAWS.index(law), 3)])
    z = rng.standard_normal((events, 20))
    if law == "sessions":
        z = np.sqrt(1 - _SHARED) * z + np.sqrt(_SHARED) * _of_sessions(rng, events)
    elif law in ("diurnal", "weekly"):
        day = (first + np.arange(events)) / per_day
        z[:, _SEASONAL] += _SWING * np.sin(2 * np.pi * day)[:, None]
        if law == "weekly":
            z[:, _SEASONAL] += _SWING * (day % 7 >= 5)[:, None]
    elif law == "wander":
        z[:, :6] += _wander(rng, events)
    late = np.arange(events) >= change_at
    _move(z, late, drift)
    table = _columns(z, rng)
    _spoil(table, late, drift, rng)
    return table


def batches(table: Table, per_day: int = PER_DAY) -> Iterator[Batch]:
    """The events of a table in batches of 1,024."""
    for start in range(0, len(table.score), CUT):
        yield batch(table.rows(np.arange(start, min(start + CUT, len(table.score)))), start, per_day)


def sampled(stream: Iterator[Batch], one_in: int, first: int, last: int) -> Iterator[Batch]:
    """The same, of which only a sample of one in `one_in` is judged between events `first` and `last` (exclusive)."""
    for one in stream:
        if first <= one.start < last:
            yield one.part(np.flatnonzero(is_in_sample(one.identity, one_in)), one_in)
        else:
            yield one


def reference(law: Law, seed: int, rows: int) -> Reference:
    """`rows` rows drawn without order from a day of the law."""
    day = drawn(law, seed + 1_000_000, max(PER_DAY, rows) if law in ("diurnal", "wander") else 4 * rows)
    chosen = np.random.default_rng(seed).permutation(len(day.score))[:rows]
    return Reference(batch(day.rows(chosen), 0), "file", f"{law}-{seed}-{rows}")


def days_before(law: Law, seed: int, rows: int, per_day: int) -> Reference:
    """The `rows` events before number 0, in order."""
    before = drawn(law, seed + 1_000_000, rows, first=-rows, per_day=per_day)
    return Reference(batch(before, -rows, per_day), "file", f"{law}-{seed}-{rows}-ordered", ordered=True)


@dataclass
class Watch:
    """The detector called `name` with an account of its own."""

    reference: Reference
    budget: float = 1.0
    per_day: int = PER_DAY
    name: str = "predictive_drift"

    def __post_init__(self) -> None:
        self.context = Context("model:/simulated", self.reference, self.per_day)
        cls = registry()[self.name]
        self.detector = cls(self.context, cls.Params())
        self.account = SumAccount(self.budget, MONTH)
        d, bets = self.detector, self.detector.bets()
        assert bets is not None
        self.account.register(d.name, d.streams(), bets, d.share, self.reference.outputs)

    @property
    def drift(self) -> PredictiveDrift:
        """The detector of moments and shares, where it is that one."""
        assert isinstance(self.detector, PredictiveDrift)
        return self.detector

    def alarms(self, stream: Iterator[Batch]) -> Iterator[Alarm]:
        """The alarms of a stream, as they come."""
        for one in stream:
            for evidence in self.detector.update(one, Views(one, self.context)):
                assert isinstance(evidence, Evidence)
                verdict = self.account.judge(evidence)
                self.detector.react(verdict)
                if verdict.alarm is not None:
                    yield verdict.alarm


def incidents(positions: list[int]) -> int:
    """Alarms at most 1,000 events after the one before are one incident."""
    return sum(1 for i, p in enumerate(positions) if i == 0 or p - positions[i - 1] > 1_000)


def rate_interval(found: int, events: int) -> tuple[float, float]:
    """95 % confidence interval of a rate per 100,000 events (Garwood)."""
    low = chi2.ppf(0.025, 2 * found) / 2 if found else 0.0
    return float(low) * 1e5 / events, float(chi2.ppf(0.975, 2 * found + 2)) / 2 * 1e5 / events


def batch(table: Table, start: int, per_day: int = PER_DAY) -> Batch:
    """One batch whose first event has number `start`."""
    n = len(table.score)
    missing = np.isnan(table.numeric)
    zero, none = np.zeros(n, np.int64), np.zeros(n, np.int32)
    vocabulary = tuple((*(f"v{i}" for i in range(k)), "unseen") for k in CARDINALITY)
    return Batch(
        subject="model:/simulated",
        start=start,
        time=START + (start + np.arange(n)) * 86_400 / per_day,
        identity=Identity(("simulated",), none, zero, start + np.arange(n), zero),
        client=none,
        clients=("c_1",),
        version=none,
        versions=("1",),
        numeric=Numeric(
            NUMERIC, np.where(missing, 0.0, table.numeric), np.where(missing, Cell.NULL, Cell.VALID).astype(np.uint8)
        ),
        category=Category(
            CATEGORY, np.where(table.category < 0, NULL_CODE, table.category).astype(np.int32), vocabulary
        ),
        outputs_numeric=Numeric(("prediction.score",), table.score[:, None].copy(), np.zeros((n, 1), np.uint8)),
        outputs_category=Category(
            ("prediction.class",), (table.score > 0.5).astype(np.int32)[:, None], (("no", "yes"),)
        ),
        event_ids=(None,) * n,
    )


def spoilt(stream: Iterator[Batch], value: float, first: int) -> Iterator[Batch]:
    """With one such number in every numeric column, a column at every tenth event from number `first` on."""
    for one in stream:
        values, status = one.numeric.values.copy(), one.numeric.status.copy()
        for j in range(len(NUMERIC)):
            row = first + 10 * j - one.start
            if 0 <= row < len(one):
                finite = np.isfinite(value)
                values[row, j], status[row, j] = (value, Cell.VALID) if finite else (0.0, Cell.NOT_FINITE)
        yield replace(one, numeric=replace(one.numeric, values=values, status=status))


def _of_sessions(rng: np.random.Generator, events: int) -> F64:
    shared = np.empty((events, 20))
    running = rng.integers(_AT_ONCE, size=events)
    for slot in range(_AT_ONCE):
        own = np.flatnonzero(running == slot)
        each = rng.standard_normal((len(own) // _BURST + 1, 20))
        shared[own] = each[np.arange(len(own)) // _BURST]
    return shared


def _wander(rng: np.random.Generator, events: int) -> F64:
    """Six paths in steps of 100 events."""
    keep = np.exp(-100 / _SLOW)
    paths = 0.1 * rng.standard_normal((events // 100 + 1, 6))
    for i in range(1, len(paths)):
        paths[i] = keep * paths[i - 1] + np.sqrt(1 - keep**2) * paths[i]
    return np.asarray(np.repeat(paths, 100, axis=0)[:events], np.float64)


def _move(z: F64, late: np.ndarray, drift: str) -> None:
    if drift.startswith("mean"):
        z[late, 0] += float(drift[4:])
    elif drift == "scale1.5":
        z[late, 0] *= 1.5
    elif drift.startswith("humps"):
        apart = float(drift[5:])
        sides = np.where(z[late, 11] > 0, apart, -apart)
        z[late, 0] = sides + np.sqrt(1 - apart * apart) * z[late, 0]
    elif drift.startswith("corr"):
        r = float(drift[4:])
        z[late, 11] = r * z[late, 0] + np.sqrt(1 - r * r) * z[late, 11]
    elif drift.startswith("slow"):
        since = np.cumsum(late)
        z[:, 0] += float(drift[4:]) * np.minimum(since / 50_000, 1.0)


def _columns(z: F64, rng: np.random.Generator) -> Table:
    u = np.clip(ndtr(z), 0, 1 - 1e-12)
    waiting = -np.log1p(-u)
    numeric = np.column_stack(
        [
            z[:, 0], 10 + 2 * z[:, 1], np.exp(z[:, 2]), 100 * np.exp(0.5 * z[:, 3]), waiting[:, 4], u[:, 5],
            np.sign(z[:, 6]) * np.abs(z[:, 6]) ** 1.5, z[:, 7] + np.where(z[:, 7] > 0, 2, -2),
            np.where(u[:, 8] < 0.6, 0, np.exp(z[:, 8])), np.floor(5 * waiting[:, 9]), np.round(50 * u[:, 10] + 20),
            z[:, 11],
        ]
    )  # fmt: skip
    category = np.column_stack([_category(u[:, 12 + j], k) for j, k in enumerate(CARDINALITY)])
    logit = -1.9 + 0.8 * z[:, 0] + 0.5 * z[:, 1] - 0.6 * z[:, 5] + 0.7 * (category[:, 0] == 1)
    return Table(numeric, category, expit(logit + 0.3 * rng.standard_normal(len(z))))


def _spoil(table: Table, late: np.ndarray, drift: str, rng: np.random.Generator) -> None:
    """Changes of columns; 1 % of n1 is always missing."""
    chance = rng.random(len(late))
    table.numeric[rng.random(len(late)) < 0.01, 1] = np.nan
    if drift == "cat10pp":
        often = _shares(8)[0]
        table.category[late & (table.category[:, 3] == 0) & (chance < 0.10 / often), 3] = 7
    elif drift.startswith("new"):
        table.category[late & (chance < float(drift[3:]) / 100), 2] = CARDINALITY[2]
    elif drift.startswith("missing"):
        table.numeric[late & (chance < float(drift[7:]) / 100), 1] = np.nan
    elif drift.startswith("fill"):
        table.numeric[late & (chance < float(drift[4:]) / 100), 0] = 0.0
    elif drift.startswith("prior"):
        logit = np.log(table.score / (1 - table.score)) + late * float(drift[5:]) / 20
        table.score[:] = expit(logit)


def _shares(values: int) -> F64:
    if values == 2:
        return _FIRST_CATEGORY
    share = 1 / np.arange(1, values + 1)
    return np.asarray(share / share.sum(), np.float64)


def _category(u: F64, values: int) -> I64:
    return np.searchsorted(np.cumsum(_shares(values)), u, side="right").clip(0, values - 1)
