"""Reference pages of the kinds of incident: facts from the declarations, then the runbook."""

from __future__ import annotations

from typing import Final

from alerts.advice import FIRST_STEP
from alerts.runbook import runbook, severity_of
from alerts.taxonomy import SCHEMES, kinds, taxonomy_of
from monitor.detector_pages import NOTE, kinds_of

NOBODY: Final = "No detector of this version raises it."
_SCHEME_NAMES: Final = {"mitre_atlas": "MITRE ATLAS", "owasp_ml": "OWASP ML", "nist_aml": "NIST AI 100-2"}


def incident_pages() -> dict[str, str]:
    """Every page below docs/incidents/ by file name, README.md among them."""
    pages = {f"{kind}.md": _page(kind) for kind in kinds()}
    pages["README.md"] = _index()
    return pages


def raised_by(kind: str) -> tuple[str, ...]:
    """The detectors that lead to incidents of a kind, by name."""
    return tuple(sorted(name for name, raised in kinds_of().items() if kind in raised))


def runbook_text(kind: str) -> str:
    """Facts and runbook of a kind for a terminal, without links."""
    return f"# {kind}\n\n{_facts(kind, linked=False)}\n{runbook(kind)}"


def _page(kind: str) -> str:
    return f"# {kind}\n{NOTE}\n{_facts(kind, linked=True)}\n{runbook(kind)}"


def _facts(kind: str, linked: bool) -> str:
    raised = _raised(kind, linked)
    lines = [f"- {NOBODY}"] if raised == NOBODY else [f"- Severity: {severity_of(kind)}", f"- Raised by: {raised}"]
    for scheme in SCHEMES:
        ids = taxonomy_of(kind)[scheme]
        if ids:
            lines.append(f"- {_SCHEME_NAMES[scheme]}: {', '.join(ids)}")
    lines.append(f"- First step: {FIRST_STEP[kind]}")
    return "\n".join(lines) + "\n"


def _raised(kind: str, linked: bool) -> str:
    if kind == "monitor_health":
        return "the daemon itself"
    names = raised_by(kind)
    if not names:
        return NOBODY
    return ", ".join(f"[{name}](../detectors/{name}.md)" if linked else name for name in names)


def _index() -> str:
    rows = "".join(f"| [{kind}]({kind}.md) | {_raised(kind, True)} | {FIRST_STEP[kind]} |\n" for kind in kinds())
    return (
        f"# Incidents\n{NOTE}\nOne page a kind: what it means, how sure it is, and what to do. `modelwarden export "
        f"runbook KIND` prints it where these pages are not at hand.\n\n| kind | raised by | first step |\n"
        f"|---|---|---|\n{rows}"
    )
