"""What can be wrong with the monitor itself, as it stands in its incidents: a cause, a measure and how bad it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from detectors.base import Measure, Severity
from monitor.intake.sources.base import Loss
from monitor.keyed import Split

HELD: Final = "held:"
"""Begins the cause of the incident that a new version waits."""
SAMPLING: Final = "sampling:"
"""Begins the cause of the incident that a model is judged by a sample."""
_MOST_CHARACTERS: Final = 400


class Trouble(NamedTuple):
    """One condition. Its `cause` begins as `OwnHealth.tell` says."""

    cause: str
    measure: Measure
    severity: Severity = "warning"
    subject: str = ""
    """The watched subject it is about (`model:tenant/name`), where it is about one."""


def records_lost(loss: Loss, missing: int, at: float) -> Trouble:
    """Records were deleted before they were read; `missing` in all."""
    where = f"{loss.topic}/{loss.partition}"
    return Trouble(f"lost:{where}", _measure("source", where, missing, "records missing", at, n=missing))


def source_stopped(reason: str, at: float) -> Trouble:
    """Reading cannot go on until somebody mends something."""
    return Trouble("source:stopped", _measure("source", reason, 1, "sources stopped", at))


def task_failing(task: str, reason: str, failures: int, at: float) -> Trouble:
    """A recurring task of the daemon has failed so many times in a row."""
    measure = _measure("housekeeping", f"{task}: {reason}", failures, "failures in a row", at, n=failures)
    return Trouble(task_cause(task), measure)


def task_cause(task: str) -> str:
    """Cause of the trouble with a task."""
    return f"task:{task}"


def starts_anew(subject: str, names: Sequence[str], reason: str, at: float) -> Trouble:
    """Detectors could not take their stored state, all for the same reason."""
    where = f"{subject}: {reason} ({', '.join(names)})"
    told = names[0] if len(names) == 1 else "monitor"
    measure = _measure(told, where, len(names), "fresh starts", at, n=len(names))
    return Trouble(f"anew:{subject}:{reason}"[:_MOST_CHARACTERS], measure, "info", subject)


def pairing_starts_anew(subject: str, at: float) -> Trouble:
    """Requests that waited for their responses are lost."""
    return Trouble(f"anew:{subject}", _measure("pairing", subject, 1, "fresh starts", at), "info")


def detector_stopped(subject: str, name: str, at: float) -> Trouble:
    """A detector raised an error, and stands still."""
    where = f"{subject}:{name}"
    return Trouble(f"detector:{where}", _measure(name, where, 1, "failures", at), subject=subject)


def reference_waits(subject: str, path: str, at: float) -> Trouble:
    """The configured reference has changed, and waits for approval."""
    measure = _measure("references", path, 1, "versions waiting for approval", at)
    return Trouble(f"reference:{subject}", measure, "info", subject)


def reference_unusable(subject: str, reason: str, at: float) -> Trouble:
    """A reference cannot be used."""
    measure = _measure("references", f"{subject}: {reason}", 1, "unusable references", at)
    return Trouble(f"reference:{subject}", measure, subject=subject)


def too_many_models(limit: int, at: float) -> Trouble:
    """Events name more models than are watched."""
    return Trouble("unwatched", Measure("pipeline", "models", limit + 1.0, float(limit), "models", limit + 1, at, at))


def sampling(subject: str, one_in: int, at: float) -> Trouble:
    """Events come faster than they can be judged: statistical detectors are given a sample of them."""
    measure = Measure("sampling", subject[:_MOST_CHARACTERS], 1 / one_in, 1.0, "share", 1, at, at, statistic="sampling")
    return Trouble(sampling_cause(subject), measure)


def sampling_cause(subject: str) -> str:
    """Cause of the trouble that a model is sampled."""
    return f"{SAMPLING}{subject}"


def model_split(split: Split, at: float) -> Trouble:
    """A model in several partitions of a topic that the configuration says is keyed by model."""
    name = f"{split.tenant}/{split.model}" if split.tenant else split.model
    where = f"topic {split.topic}: model {name}: partitions {', '.join(map(str, split.partitions))}"[:_MOST_CHARACTERS]
    n = len(split.partitions)
    return Trouble(split_cause(split), Measure("keyed", where, n, 1.0, "partitions", n, at, at, statistic="keyed"))


def split_cause(split: Split) -> str:
    """Cause of that trouble, one for a topic and model."""
    return f"keyed:{split.topic}:{split.tenant}/{split.model}"[:_MOST_CHARACTERS]


def version_held(subject: str, version: str, at: float) -> Trouble:
    """A new version answers, and is not judged until somebody says so."""
    what = "versions held: resolve this incident to watch it by the present reference"
    return Trouble(held_cause(subject), _measure("versions", f"{subject}: {version}", 1, what, at), "info", subject)


def held_cause(subject: str) -> str:
    """Cause of the trouble that a version is held."""
    return f"{HELD}{subject}"


def version_learnt_afresh(subject: str, version: str, at: float) -> Trouble:
    """A new version answers, and what was learnt of the last one is given up."""
    measure = _measure("versions", f"{subject}: {version}", 1, "versions learnt afresh", at)
    return Trouble(f"anew:{subject}:version", measure, "info", subject)


def _measure(detector: str, where: str, value: int, what: str, at: float, n: int = 1) -> Measure:
    return Measure(detector, where[:_MOST_CHARACTERS], float(value), 0.0, what, n, at, at)
