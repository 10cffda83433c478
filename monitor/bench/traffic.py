"""Events of a simulated model with any number of features, asked by many clients at rates by Zipf's law."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from monitor.demo.traffic import rfc3339

MODEL: Final = "bench"
CLIENTS: Final = 10_000
_CHUNK: Final = 10_000
_WORDS: Final = ("north", "south", "east", "west", "island")


def rows(n: int, features: int, seed: int) -> list[dict[str, Any]]:
    """`n` rows of features, prediction and scores: seven numbers to each three categories, in turn."""
    rng = np.random.default_rng(seed)
    names = [f"n{i}" if i % 10 < 7 else f"c{i}" for i in range(features)]
    hidden = rng.normal(size=n)
    columns: list[list[Any]] = []
    for i, name in enumerate(names):
        if name.startswith("n"):
            columns.append(np.round(hidden * (i % 3) / 3 + rng.normal(size=n), 4).tolist())
        else:
            columns.append([_WORDS[k] for k in rng.choice(len(_WORDS), n, p=[0.4, 0.3, 0.15, 0.1, 0.05]).tolist()])
    score = np.round(1 / (1 + np.exp(-2 * hidden - rng.normal(0, 0.5, n))), 4).tolist()
    return [
        {
            "features": dict(zip(names, values, strict=True)),
            "prediction": "yes" if yes >= 0.5 else "no",
            "scores": {"yes": yes, "no": round(1 - yes, 4)},
        }
        for yes, *values in zip(score, *columns, strict=True)
    ]


def events(n: int, features: int, start: float, rate: float) -> Iterator[tuple[bytes, bytes]]:
    """`n` native prediction events as (key, record), from the epoch second `start` on, `rate` a second."""
    rng = np.random.default_rng(7)
    share = 1 / np.arange(1, CLIENTS + 1)
    for begin in range(0, n, _CHUNK):
        made = rows(min(_CHUNK, n - begin), features, 1_000 + begin)
        clients = rng.choice(CLIENTS, len(made), p=share / share.sum()).tolist()
        for i, (client, row) in enumerate(zip(clients, made, strict=True), begin):
            name = f"client-{client}"
            event = {
                "type": "prediction",
                "event_id": f"e{i}",
                "ts": rfc3339(start + i / rate),
                "model": MODEL,
                "model_version": "1",
                "client": name,
                **row,
                "latency_ms": 11.5,
            }
            yield name.encode(), json.dumps(event, separators=(",", ":")).encode()
