"""A small model of eight dependent numbers, and clients that ask it things."""

from __future__ import annotations

import functools

import numpy as np

from detectors.base import F64, Context
from detectors.moves.asked import Asked
from detectors.moves.honest import Honest
from detectors.moves.scale import Scale
from detectors.moves.trail import Trail
from detectors.reference import Reference
from detectors.views.dependence import tree_of
from detectors.views.projection import projection_for
from monitor.intake.columns import build_reference, infer_schema
from monitor.intake.events import Event, EventType

WIDTH = 8
CENTRE = np.full(WIDTH, 50.0)


def honest_rows(n: int, seed: int) -> F64:
    """Records whose fields hang together, to two decimals."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 2))
    mixed = common[:, np.arange(WIDTH) % 2] * 8 + rng.normal(size=(n, WIDTH)) * 3
    return np.round(CENTRE + mixed, 2)


def events(rows: F64, client: str = "c_x", start: float = 1_763_625_600.0) -> list[Event]:
    """The rows as queries of one client, a second apart, with the answer of a linear model."""
    score = 1 / (1 + np.exp(-(rows - CENTRE).sum(axis=1) / 20))
    return [
        Event(
            type=EventType.PREDICTION, time=start + i, event_id=f"{client}-{i}", model="m", model_version="1",
            client=client, features={f"f{j}": float(v) for j, v in enumerate(row)},
            prediction="yes" if p > 0.5 else "no", scores={"yes": float(p), "no": float(1 - p)},
        )
        for i, (row, p) in enumerate(zip(rows, score, strict=True))
    ]  # fmt: skip


@functools.cache
def reference() -> Reference:
    """Six hundred honest records."""
    rows = events(honest_rows(600, 1))
    return build_reference(rows, infer_schema(rows), "file", "model:/m")


@functools.cache
def scale() -> Scale:
    """Lengths of that model."""
    context = Context("model:/m", reference())
    return Scale(context.reference, projection_for(context), tree_of(context))


@functools.cache
def honest() -> Honest:
    """Forty clean clients of thirty queries each."""
    made = Honest(WIDTH)
    rows = honest_rows(1_200, 2)
    made.measure(asked(rows, owner=np.arange(1_200) % 40, clean=True), scale())
    return made


def asked(rows: F64, log_e: float = 0.0, owner: np.ndarray | int = 7, clean: bool = False) -> Asked:
    """Queries of one client, with the same evidence of every test on each."""
    made = Asked.zeros(len(rows), WIDTH)
    made.cells[:] = rows
    made.owner[:] = owner
    made.log_e[:] = log_e
    made.label[:] = (rows - CENTRE).sum(axis=1) > 0
    made.margin[:] = np.abs(np.tanh((rows - CENTRE).sum(axis=1) / 40))
    made.value[:, 0] = np.abs(rows - CENTRE).mean(axis=1)
    made.honest[:] = clean
    return made


def trail() -> Trail:
    """Nothing asked yet."""
    return Trail(scale(), honest())
