"""`modelwarden export runbook KIND`: what to do about an incident of a kind."""

from __future__ import annotations

from typing import Annotated

import typer

from monitor.cli.options import ConfigFile, read_config


def export_runbook(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Kind of incident, as `incidents list` shows it.")],
    config: ConfigFile = None,
) -> None:
    """Print the runbook of a kind of incident, in Markdown. A configuration given here is only checked."""
    if config is not None:
        read_config(config)
    from alerts.taxonomy import kinds
    from monitor.incident_pages import runbook_text

    if kind not in kinds():
        raise typer.BadParameter(f"There is no kind {kind}. Known: {', '.join(kinds())}.")
    typer.echo(runbook_text(kind), nl=False)
