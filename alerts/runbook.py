"""The runbooks, one page by kind of incident, shipped with the package, and how severe each kind is."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from alerts.taxonomy import kinds

HEADINGS: Final = ("What it means", "How sure", "Who", "What to do now", "What to do next")
"""Every runbook has these sections, in this order."""
_SEVERITY: Final[Mapping[str, str]] = {
    "data_quality": "warning; a field that is new in the middle of a version: info",
    "adversarial_input": "warning; of a declared service account: info",
    "model_extraction": "warning; of a declared service account: info",
    "membership_inference": "warning; of a declared service account: info",
    "unusual_client": "info",
    "traffic_anomaly": "warning; a metric series that fell silent: info",
    "monitor_health": "warning; what only needs to be known, such as a fresh start or a reload in part: info",
}


def runbook(kind: str) -> str:
    """The runbook of a kind, in Markdown, without a title. KeyError for an unknown kind."""
    if kind not in kinds():
        raise KeyError(f"there is no kind {kind}; known: {', '.join(kinds())}")
    return files("alerts").joinpath("runbooks", f"{kind}.md").read_text(encoding="utf-8")


def severity_of(kind: str) -> str:
    """How severe incidents of this kind are, in words."""
    return _SEVERITY.get(kind, "warning")
