"""`modelwarden incidents list`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from monitor.cli.options import ConfigFile, Output, OutputFormat, need_config
from monitor.cli.output import print_json, print_line, print_table, when


class StatusName(StrEnum):
    """What an incident can be."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    SILENCED = "silenced"
    RESOLVED = "resolved"


_NOT_RESOLVED: Final = (StatusName.OPEN, StatusName.ACKNOWLEDGED, StatusName.SILENCED)


def incidents_list(
    every: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    status: Annotated[list[StatusName] | None, typer.Option(help="Only these; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, such as feature_drift.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the newest.")] = None,
    config: ConfigFile = None,
    output: OutputFormat = Output.TABLE,
) -> None:
    """List incidents, newest first.

    Without --all or --status those that are not resolved.
    """
    if every and status:
        raise typer.BadParameter("Give either --all or --status.")
    settings = need_config(config)
    if kind is not None:
        _check_kind(kind)
    from alerts.render import incident_json, pseudonyms_in
    from monitor.cli.stored import resolver, stored

    wanted = [s.value for s in (status or ([] if every else _NOT_RESOLVED))]
    with stored(settings) as store:
        found = store.incidents(status=wanted, model=model, kind=kind, limit=limit)
        resolve = resolver(settings, store, (name for incident in found for name in pseudonyms_in(incident)))
    rows = [incident_json(incident, resolve) for incident in found]
    if output is Output.JSON:
        print_json(rows)
    elif rows:
        print_table("", ("id", "severity", "kind", "model", "status", "opened", "subjects", "why"), map(_row, rows))
    else:
        print_line("No incidents." if every or status else "No open incidents.")


def _check_kind(kind: str) -> None:
    from alerts.taxonomy import kinds

    if kind not in kinds():
        raise typer.BadParameter(f"There is no kind {kind}. Known: {', '.join(kinds())}.")


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    subjects = ", ".join(f"{s['type']} {s['id']}" for s in row["subjects"][:3])
    more = len(row["subjects"]) - 3
    if more > 0:
        subjects += f" and {more} more"
    names = "id", "severity", "kind", "model", "status"
    return *(row[name] for name in names), when(row["opened_at"]), subjects, row["why"]
