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
    unresolved: Annotated[bool, typer.Option("--open", help="Only those that are not resolved.")] = False,
    status: Annotated[list[StatusName] | None, typer.Option(help="Only these; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, such as feature_drift.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the newest.")] = None,
    config: ConfigFile = None,
    output: OutputFormat = Output.TABLE,
) -> None:
    """List incidents, newest first."""
    if unresolved and status:
        raise typer.BadParameter("Give either --open or --status.")
    settings = need_config(config)
    if kind is not None:
        _check_kind(kind)
    from alerts.render import incident_json, pseudonyms_in
    from monitor.cli.stored import resolver, stored
    from monitor.dry_run import would_page
    from monitor.outgoing import owner_of

    wanted = [s.value for s in (status or (_NOT_RESOLVED if unresolved else []))]
    with stored(settings) as store:
        found = store.incidents(status=wanted, model=model, kind=kind, limit=limit)
        resolve = resolver(settings, store, (name for incident in found for name in pseudonyms_in(incident)))
    owner = owner_of(settings)
    told = [would_page(settings, incident) for incident in found]
    rows = [
        incident_json(incident, resolve, owner(incident)) | {"would_page": bool(names), "would_page_to": names}
        for incident, names in zip(found, told, strict=True)
    ]
    if output is Output.JSON:
        print_json(rows)
    elif rows:
        print_table("", ("id", "severity", "kind", "model", "status", "opened", "subjects", "why"), map(_row, rows))
        if any(told):
            print_line(f"notify: off. {sum(map(bool, told)):,} of these would have paged (*).")
    else:
        print_line("No open incidents." if unresolved else "No incidents.")


def _check_kind(kind: str) -> None:
    from alerts.taxonomy import kinds

    if kind not in kinds():
        raise typer.BadParameter(f"There is no kind {kind}. Known: {', '.join(kinds())}.")


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    subjects = ", ".join(f"{s['type']} {s['id']}" for s in row["subjects"][:3])
    more = len(row["subjects"]) - 3
    if more > 0:
        subjects += f" and {more} more"
    severity = f"{row['severity']} *" if row["would_page"] else row["severity"]
    return row["id"], severity, row["kind"], row["model"], row["status"], when(row["opened_at"]), subjects, row["why"]
