"""Joined labels with a known truth, and an account with its usual other members to judge them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectors.account import SumAccount
from detectors.base import F64, Alarm, Bets, Context, Identity, LabelBatch, Stream
from detectors.performance.error_rate import ErrorRate, Params

CUT = 1_024


def labels(
    error: F64, versions: Sequence[str] = ("1",), numeric: bool = False, per_day: float = 100_000.0
) -> LabelBatch:
    """One label for each error, in order; `versions` take turns, or name each."""
    n = len(error)
    at, zero = np.arange(n), np.zeros(n, np.int64)
    time: F64 = (at * (86_400.0 / per_day)).astype(np.float64)
    names = tuple(dict.fromkeys(versions))
    code = np.array([names.index(versions[i % len(versions)]) for i in range(n)], np.int32)
    nothing = zero.astype(np.int32)
    return LabelBatch(
        subject="model:/m", start=0, time=time, asked=(time - 60.0).astype(np.float64), clock=time, position=at,
        identity=Identity(("t",), nothing, zero, at, zero), event_ids=(None,) * n, version=code, versions=names,
        classes=("no", "yes"), answer=nothing, label=nothing, error=error.astype(np.float64), score=np.full(n, 0.5),
        weight=np.ones(n), sample_weight=np.ones(n), numeric=numeric,
    )  # fmt: skip


class Judged:
    """An error rate with its account; `alarms` and `recovered` (running numbers) as they come."""

    def __init__(self, params: Params | None = None) -> None:
        self.detector = ErrorRate(Context("model:/m"), params or Params())
        self.account = SumAccount(1.0, 30 * 86_400.0)
        d = self.detector
        self.account.register(d.name, d.streams(), d.bets(), d.share)
        other = Bets(np.array([0]), np.array([1.0]), np.array([1.0]))
        self.account.register("other", (Stream("x", "feature_drift", "loc", ("f",)),), other, 0.85)
        self.alarms: list[Alarm] = []
        self.why: list[tuple[float, float, float, str]] = []
        """Onset, observed, expected and name of the first measure of each alarm."""
        self.recovered: list[int] = []

    def feed(self, batch: LabelBatch, cut: int = CUT) -> Judged:
        for begin in range(0, len(batch), cut):
            for evidence in self.detector.update_labels(batch.part(begin, begin + cut)):
                verdict = self.account.judge(evidence)
                self.detector.react(verdict)
                if verdict.alarm is not None:
                    self.alarms.append(verdict.alarm)
                    told = self.detector.explain(verdict.alarm.streams, verdict.alarm.block)
                    first = told.measures[0]
                    self.why.append((told.onset, first.observed, first.expected, first.stream))
                if verdict.recovered:
                    self.recovered.append(int(evidence.position[0]))
        return self


def wrong(seed: int, *stretches: tuple[int, float]) -> F64:
    """0/1 errors: for each stretch its length and its rate."""
    rate = np.concatenate([np.full(n, p) for n, p in stretches])
    return (np.random.default_rng(seed).random(len(rate)) < rate).astype(np.float64)
