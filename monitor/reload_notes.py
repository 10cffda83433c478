"""What a reload leaves behind: an audit row, and an incident (info) while the file is not in force whole."""

from __future__ import annotations

from detectors.base import Measure
from monitor.pipeline import Pipeline
from monitor.reload import Reloaded
from monitor.state.unit import AuditRow

_INVALID, _RESTART = "config:invalid", "config:restart"
_TEXT = 400


def tell_reload(pipeline: Pipeline, outcome: Reloaded, at: float) -> None:
    """Note what a reload came to. What an earlier one left open closes with the next session."""
    if outcome.config is None:
        _tell(pipeline, _INVALID, "; ".join(outcome.errors), "configuration errors", len(outcome.errors), at)
        return
    detail = {"sha256": outcome.digest, "changed": list(outcome.changed), "refused": list(outcome.refused)}
    file = str(outcome.config.file or "")
    pipeline.note(AuditRow(at, "SIGHUP", "config.reload", file, detail))


def tell_restart(pipeline: Pipeline, refused: tuple[str, ...], at: float) -> None:
    """Say which keys of the file wait for a restart."""
    _tell(pipeline, _RESTART, ", ".join(refused), "keys that wait for a restart", len(refused), at)


def _tell(pipeline: Pipeline, cause: str, text: str, unit: str, number: int, at: float) -> None:
    measure = Measure("configuration", text[:_TEXT], float(number), 0.0, unit, number, at, at)
    pipeline.health.tell(cause, measure, at, "info")
