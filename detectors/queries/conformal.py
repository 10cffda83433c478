"""A sequential test of single clients on conformal p-values: what the tests of queries have in common.

Each distinct query of a client bets ε p^(ε−1) that p is small (Vovk, arXiv 2006.02329): an e-value, because
conformal p-values of exchangeable honest queries are at least uniform. The client account multiplies the bets.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from detectors.base import F64, I64, Batch, ClientEvidence, Context, Detector, Evidence, Finding, Page, Verdict, Views
from detectors.queries.calibration import Calibration, array_names, names_array
from detectors.queries.population import Population
from detectors.queries.query_log import Queries


@dataclass(frozen=True)
class ConformalParams:
    """How boldly unusual queries are bet against."""

    eps: float = 0.3
    # Power of the bet ε p^(ε−1), in (0, 1): smaller bets more on very unusual queries.


class ConformalTest(Detector):
    """One number of each query, and whether small or large ones are unusual."""

    scope = "client"
    state_version = 1
    views: ClassVar[tuple[str, ...]] = ("queries",)
    account = "attack"
    share = 1.0
    Params = ConformalParams
    small: ClassVar[bool]
    """Whether small values are unusual, or large ones."""

    def __init__(self, context: Context, params: ConformalParams) -> None:
        super().__init__(context, params)
        self._calibration = Calibration()
        self._population = Population()
        self._drifts: set[str] = set()
        """Latches of the drift account: while one is closed, all clients are compared with each other."""
        self._drifts_changed = False

    @abstractmethod
    def values(self, batch: Batch, views: Views, rows: I64) -> F64:
        """(len(rows),) the number of each of these queries; NaN where there is none."""

    def log_e(self, p: F64) -> F64:
        """Log of the bet at these p-values."""
        eps = self.params.eps
        bet: F64 = np.log(eps) + (eps - 1) * np.log(p)
        return bet

    def update(self, batch: Batch, views: Views) -> Iterator[Evidence | ClientEvidence | Finding]:
        """Collect honest values first, then bet on each distinct query."""
        queries: Queries = views.get("queries")
        rows = np.flatnonzero(queries.distinct)
        if not len(rows) and queries.honest.all():
            return
        values = self.values(batch, views, rows)
        rows, values = rows[np.isfinite(values)], values[np.isfinite(values)]
        if not self._calibration.closed:
            taken = self._collect(batch, rows, values, queries)
            rows, values = rows[taken:], values[taken:]
        if not len(rows) or not self._calibration.closed:
            return
        p = self._calibration.p_values(batch.client[rows], batch.clients, values, self.small)
        p = self._population.excused(batch.client[rows], batch.clients, p, bool(self._drifts))
        log_e = np.zeros((len(batch), 1))
        log_e[rows, 0] = self.log_e(p)
        usual = self.params.eps ** (1 / (1 - self.params.eps))
        yield ClientEvidence(self.name, log_e, batch.time, batch.client, batch.clients, (self.name,), (usual,))

    def react(self, verdict: Verdict) -> None:
        """Hear of drifts and recoveries of the model."""
        if verdict.latched or verdict.recovered:
            self._drifts |= {latch.key for latch in verdict.latched}
            self._drifts -= {latch.key for latch in verdict.recovered}
            self._drifts_changed = True

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        pages = {**self._calibration.dirty(), **self._population.dirty()}
        if self._drifts_changed:
            self._drifts_changed = False
            pages["drifts"] = {"keys": names_array(sorted(self._drifts))}
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the state of an equal test."""
        calibration = Calibration()
        calibration.restore(pages)
        population = Population(calibration.clients)
        if calibration.closed:
            population.restore(pages)
        self._calibration, self._population = calibration, population
        self._drifts = set(array_names(pages["drifts"]["keys"])) if "drifts" in pages else set()

    def _collect(self, batch: Batch, rows: I64, values: F64, queries: Queries) -> int:
        """How many of the rows went into the calibration. It closes at the first row that is not for it."""
        calibration = self._calibration
        taken = int(queries.honest[rows].sum())
        self._learn(batch, rows[:taken], values[:taken], queries)
        over = not queries.honest.all()
        while over and not calibration.enough and taken < len(rows):
            more = slice(taken, min(taken + calibration.missing, len(rows)))
            self._learn(batch, rows[more], values[more], queries)
            taken = more.stop
        if over and calibration.enough:
            calibration.close()
            self._population = Population(calibration.clients)
        return taken

    def _learn(self, batch: Batch, rows: I64, values: F64, queries: Queries) -> None:
        """Honest values of clients that are not named as attackers."""
        if queries.trusted is not None:
            keep = queries.trusted[rows]
            rows, values = rows[keep], values[keep]
        self._calibration.add(batch.client[rows], batch.clients, values)
