"""Which receivers an incident goes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alerts.incidents import Incident
from detectors.base import Severity

_RANK = {"info": 0, "warning": 1, "critical": 2}


@dataclass(frozen=True, slots=True)
class Route:
    """Incidents of at least `severity`, of these kinds and models (empty: all), go to these receivers."""

    receivers: tuple[str, ...]
    severity: Severity = "warning"
    kinds: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    """"name" (of any tenant) or "tenant/name"."""

    def takes(self, incident: Incident, severity: Severity) -> bool:
        """Whether an incident of this severity takes this route."""
        if _RANK[severity] < _RANK[self.severity] or (self.kinds and incident.kind not in self.kinds):
            return False
        names = {incident.model, f"{incident.tenant}/{incident.model}"} if incident.model else set()
        return not self.models or not names.isdisjoint(self.models)


@dataclass(frozen=True, slots=True)
class Policy:
    """The routes. Without any, incidents of severity warning and above go to every receiver, and info nowhere."""

    routes: Sequence[Route] = ()

    def sends(self, receiver: str, incident: Incident, severity: Severity | None = None) -> bool:
        """Whether this receiver is told of the incident: by its present severity, or by another one."""
        severity = severity or incident.severity
        if not self.routes:
            return _RANK[severity] >= _RANK["warning"]
        return any(receiver in route.receivers and route.takes(incident, severity) for route in self.routes)
