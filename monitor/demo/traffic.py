"""A simulated credit model and its honest clients: the traffic of the demo and of tests.

Every event takes the same number of uniform draws in a row, so the same seed gives the same events however many are
asked for at a time, and a drift moves only what it is about. Clients ask at rates by Zipf's law, each with a mix of
its own; the order of clients is random, so honest traffic is exchangeable.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]
Drift: TypeAlias = Literal["income", "text"]

MODEL = "credit-risk"
CLASSES = ("no", "yes")
REGIONS = ("north", "south", "east", "west", "islands")
CHANNELS = ("branch", "web", "app", "broker")
PURPOSES = ("car", "home", "debt", "education", "other")
NUMERIC = ("income", "age", "debt_ratio", "tenure_months", "utilisation", "inquiries", "amount")
CATEGORICAL = ("region", "channel", "purpose")
FEATURES = NUMERIC + CATEGORICAL
INCOME_FACTOR = 0.7
"""The drift "income": a campaign reaches people who earn this much of what applicants earned before."""
FAULTY = "utilisation"
"""The fault "text": a release of the gateway sends this number as text."""

_MEDIAN_INCOME = 38_000.0
_NULL_SHARE = 0.015
"""Share of events whose credit bureau did not answer: `inquiries` is null."""
_INQUIRIES = 1.2
_NORMALS = 8
_DRAWS = _NORMALS + 7
_NAMES = ("alder", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "rowan")
_TRADES = ("bank", "credit", "motors", "homes")


@dataclass(frozen=True)
class _Clients:
    """Who asks: names, cumulative shares of the volume, and how each one's applicants differ from the average."""

    names: tuple[str, ...]
    share: F64
    income: F64
    age: F64
    region: F64
    channel: F64
    purpose: F64


class CreditTraffic:
    """Reference rows and native prediction events of one credit model. Pure: no clock.

    `model` and `clients` (1 to 40) name the model and say how many clients there are. Equal seeds give equal
    traffic; reference and events are independent draws of one law.
    """

    def __init__(self, seed: int, *, model: str = MODEL, model_version: str = "7", clients: int = 40) -> None:
        if not 1 <= clients <= len(_NAMES) * len(_TRADES):
            raise ValueError(f"clients must be from 1 to {len(_NAMES) * len(_TRADES)}, not {clients}")
        self.model = model
        self.model_version = model_version
        self._clients = _make_clients(np.random.default_rng([seed, 0]), clients)
        self._reference = np.random.default_rng([seed, 1])
        self._live = np.random.default_rng([seed, 2])
        self._made = 0

    @property
    def clients(self) -> tuple[str, ...]:
        """Names of the clients, the busiest first."""
        return self._clients.names

    def reference(self, n: int) -> list[dict[str, Any]]:
        """`n` rows of honest traffic as a reference file has them: features, prediction, scores."""
        rows = self._rows(self._reference.random((n, _DRAWS)), None)
        return [{"features": r["features"], "prediction": r["prediction"], "scores": r["scores"]} for r in rows]

    def events(self, n: int, start: float, rate: float, drift: Drift | None = None) -> list[dict[str, Any]]:
        """The next `n` events, after the epoch second `start`, on average `rate` a second."""
        return [event for _, event in self.timed_events(n, start, rate, drift)]

    def timed_events(
        self, n: int, start: float, rate: float, drift: Drift | None = None
    ) -> list[tuple[float, dict[str, Any]]]:
        """As `events`, each with its time in epoch seconds: give the last one as the next `start`."""
        draws = self._live.random((n, _DRAWS))
        times = (start + np.cumsum(-np.log1p(-draws[:, _NORMALS])) / rate).tolist()
        first, self._made = self._made, self._made + n
        made = []
        for i, (at, row) in enumerate(zip(times, self._rows(draws, drift), strict=True)):
            event = {
                "type": "prediction",
                "event_id": f"{self.model}-{first + i}",
                "ts": rfc3339(at),
                "model": self.model,
                "model_version": self.model_version,
                **row,
            }
            made.append((at, event))
        return made

    def _rows(self, draws: F64, drift: Drift | None) -> list[dict[str, Any]]:
        """Client, features and answer of each row of uniform draws."""
        c = self._clients
        normal = _normals(draws[:, :_NORMALS])
        uniform = draws[:, _NORMALS + 1 :]
        client = _pick(np.broadcast_to(c.share, (len(draws), len(c.share))), uniform[:, 0])
        columns = _numeric_columns(normal, uniform, c.income[client], c.age[client], drift)
        score = _score(columns, normal[:, 6])
        latency = np.round(11.0 * np.exp(0.35 * normal[:, 7]), 2).tolist()
        codes = (
            _pick(c.region[client], uniform[:, 1]).tolist(),
            _pick(c.channel[client], uniform[:, 2]).tolist(),
            _pick(c.purpose[client], uniform[:, 3]).tolist(),
        )
        numbers = [column.tolist() for column in columns.values()]
        silent = (uniform[:, 5] < _NULL_SHARE).tolist()
        rows = []
        for i, (who, yes) in enumerate(zip(client.tolist(), np.round(score, 4).tolist(), strict=True)):
            features: dict[str, Any] = {name: column[i] for name, column in zip(columns, numbers, strict=True)}
            if silent[i]:
                features["inquiries"] = None
            region, channel, purpose = (column[i] for column in codes)
            features |= {"region": REGIONS[region], "channel": CHANNELS[channel], "purpose": PURPOSES[purpose]}
            if drift == "text":
                features[FAULTY] = str(features[FAULTY])
            rows.append(
                {
                    "client": c.names[who],
                    "features": features,
                    "prediction": CLASSES[yes >= 0.5],
                    "scores": {"yes": yes, "no": round(1.0 - yes, 4)},
                    "latency_ms": latency[i],
                }
            )
        return rows


def answer(features: Mapping[str, Any]) -> float:
    """The model's probability of a credit for one application."""
    columns = {name: np.array([float(features[name] or 0)]) for name in NUMERIC}
    return round(float(_score(columns, np.zeros(1))[0]), 4)


def response(features: Mapping[str, Any]) -> dict[str, Any]:
    """What the model answers to one application, as it stands in an event."""
    yes = answer(features)
    return {"prediction": CLASSES[yes >= 0.5], "scores": {"yes": yes, "no": round(1.0 - yes, 4)}}


def write_events(path: Path, events: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line (compressed when `path` ends in .gz); returns how many. Same events, same bytes."""
    count = 0
    with path.open("wb") as plain, _packed(path, plain) as file:
        for event in events:
            file.write(encode(event) + b"\n")
            count += 1
    return count


def encode(event: Mapping[str, Any]) -> bytes:
    """One event as it stands in a record or a line."""
    return json.dumps(event, separators=(",", ":")).encode()


def rfc3339(at: float) -> str:
    """Epoch seconds as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _packed(path: Path, plain: BinaryIO) -> AbstractContextManager[BinaryIO | gzip.GzipFile]:
    """The stream to write to; a compressed one carries no time, so that its bytes are the same each time."""
    if path.suffix == ".gz":
        return gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=plain, mtime=0)
    return nullcontext(plain)


def _make_clients(rng: np.random.Generator, n: int) -> _Clients:
    names = [f"{name}-{trade}" for name in _NAMES for trade in _TRADES]
    rng.shuffle(names)
    weight = 1.0 / np.arange(1, n + 1)
    return _Clients(
        names=tuple(names[:n]),
        share=np.cumsum(weight / weight.sum()),
        income=rng.normal(0.0, 0.15, n),
        age=rng.normal(0.0, 3.0, n),
        region=_mixes(rng, [0.32, 0.27, 0.21, 0.16, 0.04], n),
        channel=_mixes(rng, [0.22, 0.38, 0.28, 0.12], n),
        purpose=_mixes(rng, [0.34, 0.22, 0.24, 0.08, 0.12], n),
    )


def _mixes(rng: np.random.Generator, base: list[float], n: int) -> F64:
    """(n, categories): cumulative shares of each client, scattered around `base`."""
    return np.cumsum(rng.dirichlet(25.0 * np.array(base), n), axis=1)


def _numeric_columns(normal: F64, uniform: F64, income: F64, age: F64, drift: Drift | None) -> dict[str, F64 | I64]:
    """Numeric features; `income` and `age` are what the client adds to the log of income and to the age."""
    moved = np.log(INCOME_FACTOR) if drift == "income" else 0.0
    earned = _MEDIAN_INCOME * np.exp(0.42 * normal[:, 0] + income + moved)
    years = np.clip(np.round(43.0 + 12.0 * normal[:, 1] + age), 18, 90)
    tenure = np.exp(3.6 + 0.8 * normal[:, 3] + 0.015 * (years - 43.0))
    return {
        "income": np.round(earned, -1),
        "age": years.astype(np.int64),
        "debt_ratio": np.round(_sigmoid(-1.1 + 0.8 * normal[:, 2]), 4),
        "tenure_months": np.minimum(tenure, 480.0).astype(np.int64),
        "utilisation": np.round(_sigmoid(-0.4 + 1.1 * normal[:, 4]), 4),
        "inquiries": _poisson(uniform[:, 4], _INQUIRIES),
        "amount": np.round(0.25 * earned * np.exp(0.5 * normal[:, 5]), -2),
    }


def _score(columns: Mapping[str, F64 | I64], noise: F64) -> F64:
    """Probability of a credit: a logistic model of the numeric features with a little noise of its own."""
    income, amount = np.maximum(columns["income"], 1.0), np.maximum(columns["amount"], 1.0)
    return _sigmoid(
        1.0
        + 0.9 * np.log(income / _MEDIAN_INCOME)
        - 2.2 * (columns["debt_ratio"] - 0.27)
        - 1.6 * (columns["utilisation"] - 0.42)
        + 0.25 * (np.log1p(columns["tenure_months"]) - 3.6)
        - 0.35 * columns["inquiries"]
        - 0.5 * np.log(amount / (0.25 * income))
        + 0.2 * noise
    )


def _normals(uniform: F64) -> F64:
    """As many standard normal columns as uniform ones (Box and Muller 1958), by pairs."""
    radius = np.sqrt(-2.0 * np.log1p(-uniform[:, 0::2]))
    angle = 2.0 * np.pi * uniform[:, 1::2]
    out = np.empty_like(uniform)
    out[:, 0::2], out[:, 1::2] = radius * np.cos(angle), radius * np.sin(angle)
    return out


def _pick(cumulative: F64, uniform: F64) -> I64:
    """The category of each row by its cumulative shares."""
    chosen: I64 = (uniform[:, None] >= cumulative[:, :-1]).sum(axis=1)
    return chosen


def _poisson(uniform: F64, mean: float) -> I64:
    """Poisson counts by inversion."""
    k = np.arange(1, 20)
    cumulative = np.cumsum(np.exp(-mean) * np.concatenate([[1.0], np.cumprod(mean / k)]))
    return np.searchsorted(cumulative, uniform, side="right").astype(np.int64)


def _sigmoid(x: F64) -> F64:
    out: F64 = 1.0 / (1.0 + np.exp(-x))
    return out
