"""Which detectors a model gets, with which parameters, and in which order they look at a batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from detectors.base import Context, Detector, registry
from detectors.reference import Reference

SHADOW = "@shadow"
"""A shadow deployment is watched as a subject of its own: it answers the same requests otherwise."""


@dataclass(frozen=True, slots=True)
class PanelSettings:
    """What the configuration says of a model's detectors. `per` is in seconds."""

    drift_budget: float = 1.0
    per: float = 30 * 86_400.0
    attack_budget: float = 1.0
    calibration: float | None = None
    """Seconds of declared honest traffic at the start; None: the first queries are taken as honest."""
    services: Mapping[str, str] = field(default_factory=dict)
    """Declared service accounts, as they stand in events, and their names."""
    segments: tuple[str, ...] = ()
    """Fields whose values are watched separately."""
    importances: Mapping[str, float] = field(default_factory=dict)
    """Of features, for the severity of drift."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Decision thresholds by numeric column."""
    detectors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class ParamsError(ValueError):
    """The configuration gives a detector parameters it does not have. The text names both."""


@dataclass(slots=True)
class Runner:
    """A detector with what its state depends on besides the events; `failure` says by which error it was stopped."""

    detector: Detector
    params_hash: str
    failure: str | None = None


def context_of(subject: str, reference: Reference, settings: PanelSettings) -> Context:
    """What the detectors of a model may know of it."""
    return Context(
        subject, reference, _events_per_day(reference), settings.importances, settings.segments, settings.thresholds,
        settings.calibration,
    )  # fmt: skip


def line_up(context: Context, configured: Mapping[str, Mapping[str, Any]]) -> tuple[list[Runner], dict[str, str]]:
    """The detectors of a model in the order in which they look at a batch, and why each of the others is off.

    `configured` holds parameters by detector. ParamsError for one that a detector does not have.
    """
    reference = context.reference
    available = _inputs(reference) | ({"segments"} if context.segments else set())
    runners: list[Runner] = []
    off: dict[str, str] = {}
    for name, cls in registry().items():
        given = dict(configured.get(name, {}))
        if not given.pop("enabled", True):
            off[name] = "switched off in the configuration"
            continue
        if context.subject.endswith(SHADOW) and (cls.account == "attack" or cls.gives):
            off[name] = "a shadow answers the same requests: clients are judged at the primary model"
            continue
        missing = cls.inputs - available
        if missing:
            off[name] = f"{', '.join(sorted(missing))} not available"
            continue
        params = make_params(cls, given)
        made = list(cls.made(context, params))
        if not made:
            off[name] = cls.lacking
        for detector in made:
            runners.append(Runner(detector, fingerprint([detector.name, asdict(params), reference.version])))
    return sorted(runners, key=lambda r: (not r.detector.gives, r.detector.stride)), off


def make_params(cls: type[Detector], given: Mapping[str, Any]) -> Any:
    """The parameters of a detector. ParamsError names a parameter that it does not have."""
    known = cls.Params.__dataclass_fields__
    unknown = ", ".join(sorted(given.keys() - known.keys()))
    if unknown:
        raise ParamsError(f"{cls.name} has no parameter {unknown}; known: {', '.join(('enabled', *known))}")
    try:
        return cls.Params(**given)
    except TypeError as error:
        raise ParamsError(f"{cls.name}: {error}") from error


def fingerprint(parts: Sequence[Any]) -> str:
    """A short hash of what JSON can hold."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=repr).encode(), digest_size=8).hexdigest()


def _inputs(reference: Reference) -> set[str]:
    """What detectors can be given, as the reference shows it."""
    available = {"features", "reference", "client", "labels"}
    if reference.outputs:
        available.add("outputs")
    margin = reference.rows.margin
    if margin is not None and np.isfinite(margin).any():
        available.add("scores")
    if reference.training is not None or reference.origin == "file":
        available.add("training rows")
    return available


def _events_per_day(reference: Reference) -> float:
    """Daily volume as the times of the reference show it; a round figure where they do not."""
    times = reference.rows.time
    span = float(np.ptp(times)) if len(times) > 1 else 0.0
    return len(times) / span * 86_400 if span > 0 else 100_000.0
