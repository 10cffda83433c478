"""Queries that repeat rows the model was trained on: what a membership inference attack asks first.

It is the only signal that sees plain membership inference, whose queries are honest records in every other way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.base import (
    F64,
    I64,
    Batch,
    Bool,
    ClientEvidence,
    Context,
    Detector,
    Evidence,
    Finding,
    Page,
    Views,
    register,
)
from detectors.numeric import valid
from detectors.queries.calibration import Calibration
from detectors.queries.query_log import Queries
from detectors.reference import Reference
from detectors.views.query_hash import U64, QueryHash

_PROBED: Final = 0.5
"""Share of training rows that a probe is expected to have, at least: it compares them with as many other rows."""


@dataclass(frozen=True)
class TrainingRowParams:
    """What a probe is held against."""

    slack: float = 1.5
    # Honest clients may repeat training rows this many times as often as the calibration shows.
    least: float = 0.005
    # Share of repeats that is honest whatever the calibration shows.


@register
class TrainingRowQueries(Detector):
    """Bernoulli likelihood ratio of a client's share of training rows against the honest share."""

    name = "training_row_queries"
    kind = "membership_inference"
    scope = "client"
    inputs = frozenset({"features", "reference", "client", "training rows"})
    state_version = 1
    views = ("queries",)
    account = "attack"
    share = 1.0
    atlas = ("AML.T0024.000",)
    Params = TrainingRowParams

    def __init__(self, context: Context, params: TrainingRowParams) -> None:
        super().__init__(context, params)
        self._calibration = Calibration()
        self._own_shares: F64 = np.zeros(0)

    def update(self, batch: Batch, views: Views) -> Iterator[Evidence | ClientEvidence | Finding]:
        """Learn the honest share first, then bet on each distinct query."""
        queries: Queries = views.get("queries")
        rows = np.flatnonzero(queries.distinct)
        if not len(rows):
            return
        hit = self._training_rows(views).contains(batch)[rows].astype(np.float64)
        calibration = self._calibration
        if not calibration.closed:
            taken = int(queries.honest[rows].sum())
            keep = np.ones(taken, np.bool_) if queries.trusted is None else queries.trusted[rows[:taken]]
            calibration.add(batch.client[rows[:taken][keep]], batch.clients, hit[:taken][keep])
            if queries.honest.all():
                return
            calibration.close()
            self._own_shares = calibration.own_means()
            rows, hit = rows[taken:], hit[taken:]
        if not len(rows):
            return
        usual = self._usual(batch, rows)
        probe = np.clip(3 * usual, _PROBED, 0.95)
        log_e = np.zeros((len(batch), 1))
        log_e[rows, 0] = np.where(hit > 0, np.log(probe / usual), np.log((1 - probe) / (1 - usual)))
        yield ClientEvidence(
            self.name, log_e, batch.time, batch.client, batch.clients, (self.name,), (float(usual.min()),)
        )

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        return self._calibration.dirty()

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the state of an equal test."""
        calibration = Calibration()
        calibration.restore(pages)
        self._calibration = calibration
        self._own_shares = calibration.own_means() if calibration.closed else np.zeros(0)

    def _usual(self, batch: Batch, rows: I64) -> F64:
        """Honest share of training rows for the client of each row, in (0, .9]."""
        honest = self._calibration.balanced
        share = self.params.slack * float(honest.mean()) if len(honest) else 0.0
        usual = np.full(len(rows), share)
        own, index = self._calibration.own(batch.client[rows], batch.clients)
        usual[own] = np.maximum(usual[own], self.params.slack * self._own_shares[index])
        shares: F64 = np.clip(usual, self.params.least, 0.9)
        return shares

    def _training_rows(self, views: Views) -> _TrainingRows:
        cache = views.context.cache
        if "training rows" not in cache:
            cache["training rows"] = _TrainingRows(views.context.reference)
        made: _TrainingRows = cache["training rows"]
        return made


class _TrainingRows:
    """Hashes of the training rows in one canonical form: numbers rounded to the precision of the rows."""

    def __init__(self, reference: Reference) -> None:
        training = reference.training if reference.training is not None else reference.rows
        self._hash = QueryHash(reference, _decimals(training))
        self._hashes: U64 = np.unique(self._hash.of(training))

    def contains(self, batch: Batch) -> Bool:
        """(n,) whether each event is a training row."""
        hashes = self._hash.of(batch)
        at = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        found: Bool = self._hashes[at] == hashes
        return found


def _decimals(rows: Batch) -> I64:
    """The fewest decimals, at most 8, at which 95 % of a column's values are whole."""
    ok = valid(rows.numeric.values, rows.numeric.status)
    out = np.full(len(rows.numeric.names), 8, np.int64)
    for j in range(len(out)):
        values = rows.numeric.values[ok[:, j], j]
        for k in range(8):
            scaled = values * 10.0**k
            if (
                not len(values)
                or (np.abs(scaled - np.rint(scaled)) <= 1e-6 * np.maximum(1, np.abs(scaled))).mean() >= 0.95
            ):
                out[j] = k
                break
    return out
