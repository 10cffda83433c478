"""`modelwarden export runbook KIND`: what to do about an incident of a kind."""

from __future__ import annotations

from typing import Annotated

import typer


def export_runbook(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Kind of incident, as `incidents list` shows it.")],
) -> None:
    """Print the runbook of a kind of incident, in Markdown."""
    from alerts.taxonomy import kinds
    from monitor.incident_pages import runbook_text

    if kind not in kinds():
        raise typer.BadParameter(f"There is no kind {kind}. Known: {', '.join(kinds())}.")
    typer.echo(runbook_text(kind), nl=False)
