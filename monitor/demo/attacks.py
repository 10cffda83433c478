"""Three small attacks on the demo's model. Each loop asks the model, learns from the answer and asks again.

They are real: the copy that extraction fits agrees with the model, and the boundary walk ends at an application that
is granted and hardly differs from one that was refused. Each asks no faster than an honest client of middle size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from monitor.demo.traffic import CHANNELS, NUMERIC, PURPOSES, REGIONS, answer

Features: TypeAlias = dict[str, Any]
Attack: TypeAlias = Literal["extraction", "boundary", "membership"]
RATE: Final = 9.0
"""Queries a second: what the average honest client asks."""
CLIENTS: Final[Mapping[Attack, str]] = {
    "extraction": "foxglove-labs",
    "boundary": "hemlock-credit",
    "membership": "nightshade-data",
}
_SCALE: Final = {"income": 0.42, "amount": 0.6, "age": 12.0, "debt_ratio": 0.15, "utilisation": 0.2}


@dataclass(slots=True)
class Campaign:
    """One attack: its queries so far, and what it has got out of the model."""

    attack: Attack
    client: str
    queries: Iterator[Features]
    asked: int = 0

    def next(self) -> Features:
        """The next query."""
        self.asked += 1
        return next(self.queries)


def campaign(attack: Attack, training: Sequence[Features], seed: int) -> Campaign:
    """A campaign of one client. `training` are rows the model was trained on, of which a membership probe has some."""
    rng = np.random.default_rng([seed, *map(ord, attack)])
    loops: dict[Attack, Callable[[], Iterator[Features]]] = {
        "extraction": lambda: extraction(rng, Copy()),
        "boundary": lambda: boundary(rng, training),
        "membership": lambda: membership(rng, training),
    }
    return Campaign(attack, CLIENTS[attack], loops[attack]())


class Copy:
    """A logistic regression fitted to the model's answers: what the thief takes home."""

    def __init__(self) -> None:
        self._asked: list[Features] = []
        self._answers: list[float] = []
        self._weights: NDArray[np.float64] = np.zeros(len(NUMERIC) + 1)

    def learn(self, features: Features, yes: float) -> None:
        """Take one answer; every 20 of them the copy is fitted anew."""
        self._asked.append(features)
        self._answers.append(yes)
        if len(self._asked) % 20 == 0:
            target = np.clip(np.array(self._answers), 1e-3, 1 - 1e-3)
            logits = np.log(target / (1 - target))
            x = _columns(self._asked)
            self._weights = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ logits)

    def agreement(self, applications: Sequence[Features]) -> float:
        """Share of these applications that it decides as the model does."""
        mine = _columns(applications) @ self._weights >= 0
        theirs = np.array([answer(f) >= 0.5 for f in applications])
        return float((mine == theirs).mean())


def extraction(rng: np.random.Generator, copy: Copy) -> Iterator[Features]:
    """Queries all over the input space, each field by itself (Tramèr et al. 2016); a copy is fitted to the answers."""
    while True:
        features = {
            "income": float(np.round(rng.uniform(8_000, 160_000), -1)),
            "age": int(rng.integers(18, 91)),
            "debt_ratio": round(float(rng.uniform(0, 1)), 4),
            "tenure_months": int(rng.integers(0, 481)),
            "utilisation": round(float(rng.uniform(0, 1)), 4),
            "inquiries": int(rng.integers(0, 9)),
            "amount": float(np.round(rng.uniform(1_000, 90_000), -2)),
            "region": str(rng.choice(REGIONS)),
            "channel": str(rng.choice(CHANNELS)),
            "purpose": str(rng.choice(PURPOSES)),
        }
        yield features
        copy.learn(features, answer(features))


def boundary(rng: np.random.Generator, applications: Sequence[Features]) -> Iterator[Features]:
    """From a granted application towards a refused one, along the boundary (Brendel et al. 2018)."""
    refused = next(f for f in applications if answer(f) < 0.4)
    granted = next(f for f in applications if answer(f) > 0.6)
    at = dict(granted)
    while True:
        for share in (0.5, 0.25, 0.12, 0.06):
            query = _between(at, refused, share)
            yield query
            if answer(query) >= 0.5:
                at = query
        for _ in range(6):
            query = _stepped(rng, at, 0.01)
            yield query
            if answer(query) >= 0.5 and _gap(query, refused) < _gap(at, refused) + 0.02:
                at = query


def membership(rng: np.random.Generator, training: Sequence[Features]) -> Iterator[Features]:
    """Rows suspected to be of the training data, with some that are not for comparison (Shokri et al. 2017)."""
    while True:
        row = dict(training[int(rng.integers(len(training)))])
        yield row if rng.random() < 0.7 else _stepped(rng, row, 0.5)


def _between(a: Features, b: Features, share: float) -> Features:
    """`a` moved by a share of the way to `b`; its categories stay, and the age."""
    moved = dict(a)
    for name in (field for field in _SCALE if field != "age"):
        moved[name] = _rounded(name, a[name] + share * (b[name] - a[name]))
    return moved


def _stepped(rng: np.random.Generator, a: Features, size: float) -> Features:
    moved = dict(a)
    for name, scale in _SCALE.items():
        step = size * scale * rng.standard_normal()
        value = a[name] * np.exp(step) if name in ("income", "amount") else a[name] + step
        moved[name] = _rounded(name, float(np.clip(value, 0, 1)) if name in ("debt_ratio", "utilisation") else value)
    return moved


def _rounded(name: str, value: float) -> float | int:
    if name == "age":
        return int(np.clip(round(value), 18, 90))
    return round(float(value), 4 if name in ("debt_ratio", "utilisation") else 2)


def _gap(a: Features, b: Features) -> float:
    return float(
        np.sqrt(
            sum(
                ((a[n] - b[n]) / (s * max(abs(b[n]), 1e-9) if n in ("income", "amount") else s)) ** 2
                for n, s in _SCALE.items()
            )
        )
    )


def _columns(applications: Sequence[Features]) -> NDArray[np.float64]:
    """(n, fields + 1): what a thief who knows credit models would regress on."""
    table = np.array([[float(f[name] or 0) for name in NUMERIC] for f in applications])
    for j, name in enumerate(NUMERIC):
        if name in ("income", "amount", "tenure_months"):
            table[:, j] = np.log1p(np.maximum(table[:, j], 0.0))
    return np.column_stack([np.ones(len(table)), table])
