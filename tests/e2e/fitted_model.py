"""A classifier fitted to a few hundred records, its honest users, and attack loops that learn from its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from detectors.base import F64

FIELDS = 10
HIDDEN = 24
MEMBERS = 600
"""Records the model was fitted to."""
_LOADINGS = np.random.default_rng(1).normal(size=(4, FIELDS))
_CENTRE, _WIDTH = np.linspace(20, 200, FIELDS), np.linspace(2, 30, FIELDS)


def records(n: int, rng: np.random.Generator, moved: float = 0.0) -> F64:
    """(n, fields) records to one decimal whose fields hang together; `moved`: what the population has shifted by, in
    standard deviations of each field."""
    mixed = rng.normal(size=(n, 4)) @ _LOADINGS / 2 + 0.5 * rng.normal(size=(n, FIELDS)) + moved
    return np.round(_CENTRE + _WIDTH * mixed, 1)


def labels(rows: F64, rng: np.random.Generator) -> F64:
    """(n,) the truth, 0 or 1: curved in the fields, and one in ten is noise."""
    z = _scaled(rows)
    truth = z[:, 0] + z[:, 3] * z[:, 5] - np.abs(z[:, 7]) + 0.8 > 0
    return np.where(rng.random(len(rows)) < 0.1, ~truth, truth).astype(np.float64)


class Network:
    """A network of one hidden layer, fitted by gradient descent (Adam; Kingma & Ba 2015) to the cross-entropy."""

    def __init__(self, rows: F64, target: F64, steps: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._into = rng.normal(size=(FIELDS + 1, HIDDEN)) * 0.5
        self._out = rng.normal(size=HIDDEN + 1) * 0.1
        x, weights = _with_one(_scaled(rows)), [self._into, self._out]
        mean, square = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
        for step in range(1, steps + 1):
            hidden = np.tanh(x @ self._into)
            wrong = (_sigmoid(_with_one(hidden) @ self._out) - target) / len(rows)
            back = wrong[:, None] * self._out[:-1] * (1 - hidden**2)
            for k, slope in enumerate((x.T @ back, _with_one(hidden).T @ wrong)):
                mean[k] = 0.9 * mean[k] + 0.1 * slope
                square[k] = 0.999 * square[k] + 0.001 * slope**2
                fast = mean[k] / (1 - 0.9**step) / (np.sqrt(square[k] / (1 - 0.999**step)) + 1e-8)
                weights[k] -= 0.02 * fast

    def yes(self, rows: F64) -> F64:
        """(n,) the probability of "yes"."""
        return _sigmoid(_with_one(np.tanh(_with_one(_scaled(rows)) @ self._into)) @ self._out)


Ask = Callable[[F64], F64]
"""The model as anybody sees it: records to probabilities."""


def boundary_walk(ask: Ask, own: F64, rng: np.random.Generator) -> Iterator[F64]:
    """Towards a record of its own, along the boundary, with labels alone (Chen, Jordan & Wainwright 2020): halve the
    way to the boundary, estimate its direction there, take a step, and again."""
    answers = ask(own) > 0.5
    goal, at = own[answers][0], own[~answers][0]
    span = _WIDTH

    def granted(row: F64) -> bool:
        return bool(ask(row[None])[0] > 0.5)

    for turn in range(1, 1_000):
        low, high = at, goal
        for _ in range(8):
            middle = (low + high) / 2
            yield middle
            low, high = (low, middle) if granted(middle) else (middle, high)
        at = low
        aim, size = np.zeros(FIELDS), 0.1 / np.sqrt(turn)
        for _ in range(12):
            way = rng.normal(size=FIELDS)
            yield at + size * span * way
            aim += way * (1 if granted(at + size * span * way) else -1)
        at = at - 0.5 / np.sqrt(turn) * span * aim / max(float(np.linalg.norm(aim)), 1e-9)


class Thief:
    """Copies the model: asks all over the space of inputs, each field by itself (Tramèr et al. 2016)."""

    def __init__(self, ask: Ask, rng: np.random.Generator) -> None:
        self._ask, self._rng = ask, rng
        self.asked: list[F64] = []

    def queries(self) -> Iterator[F64]:
        while True:
            row = np.round(_CENTRE + _WIDTH * self._rng.uniform(-2.5, 2.5, FIELDS), 1)
            self.asked.append(row)
            yield row

    def agreement(self, rows: F64) -> float:
        """Share of `rows` on which a network fitted to the answers decides as the model does."""
        asked = np.array(self.asked)
        copy = Network(asked, self._ask(asked), 150, seed=9)
        return float(((copy.yes(rows) > 0.5) == (self._ask(rows) > 0.5)).mean())


class Prober:
    """Guesses which records the model was fitted to: those it is surest about (Yeom et al. 2018)."""

    def __init__(self, ask: Ask, members: F64, others: F64, rng: np.random.Generator) -> None:
        self._ask, self._rng = ask, rng
        self._rows = np.concatenate([members, others])
        self._of = np.arange(len(self._rows)) < len(members)
        self._order = rng.permutation(len(self._rows))

    def queries(self) -> Iterator[F64]:
        for i in self._order:
            yield self._rows[i]

    def advantage(self, truth: F64) -> float:
        """How much more often a member is guessed to be one than another record; `truth` (n,) of members, others."""
        sure = np.where(truth > 0.5, self._ask(self._rows), 1 - self._ask(self._rows))
        guess = sure > np.median(sure)
        return float(guess[self._of].mean() - guess[~self._of].mean())


def _scaled(rows: F64) -> F64:
    return (rows - _CENTRE) / _WIDTH


def _with_one(rows: F64) -> F64:
    return np.column_stack([rows, np.ones(len(rows))])


def _sigmoid(x: F64) -> F64:
    out: F64 = 1 / (1 + np.exp(-np.clip(x, -30, 30)))
    return out
