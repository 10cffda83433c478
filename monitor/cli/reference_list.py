"""`modelwarden reference list`: the stored versions of references."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from monitor.cli.options import ConfigFile, Output, OutputFormat, need_config
from monitor.cli.output import print_json, print_table, when

if TYPE_CHECKING:
    from monitor.state.references import ReferenceSummary


def reference_list(
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    tenant: Annotated[str, typer.Option(help="Its tenant.")] = "",
    config: ConfigFile = None,
    output: OutputFormat = Output.TABLE,
) -> None:
    """List the stored versions of references.

    The one in force is the version approved last, or the newest provisional one where none is approved.
    """
    settings = need_config(config)
    from monitor.cli.stored import stored

    with stored(settings) as store:
        found = store.reference_versions()
    wanted = None if model is None else f"model:{tenant}/{model}"
    rows = _rows([r for r in found if wanted in (None, r.subject)])
    if output is Output.JSON:
        print_json(rows)
        return
    columns = ("subject", "role", "#version", "in force", "#rows", "origin", "created", "approved", "by", "content")
    print_table("", columns, (_cells(row) for row in rows))


def _rows(found: list[ReferenceSummary]) -> list[dict[str, Any]]:
    from alerts.times import rfc3339_or_none
    from monitor.references import in_force

    roles = {(r.subject, r.role) for r in found}
    leading = {(subject, role): in_force([r for r in found if r.subject == subject], role) for subject, role in roles}
    return [
        {
            **r._asdict(),
            "in_force": leading[r.subject, r.role] is r,
            "created_at": rfc3339_or_none(r.created_at),
            "approved_at": rfc3339_or_none(r.approved_at),
        }
        for r in found
    ]


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    facts = row["subject"], row["role"], row["version"], row["in_force"], row["rows"], row["origin"]
    times = when(row["created_at"]), when(row["approved_at"]) or "provisional"
    return *facts, *times, row["approved_by"], row["content_hash"]
