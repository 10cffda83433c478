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

    The one in force is the one the daemon watches with. The version approved last is in force when the daemon next
    starts, takes over or reads its configuration (SIGHUP).
    """
    settings = need_config(config)
    from monitor.cli.stored import stored
    from monitor.in_use import contents_in_use

    with stored(settings) as store:
        found = store.reference_versions()
        contents = contents_in_use(store)
    wanted = None if model is None else f"model:{tenant}/{model}"
    rows = _rows([r for r in found if wanted in (None, r.subject)], contents)
    if output is Output.JSON:
        print_json(rows)
        return
    columns = ("subject", "role", "#version", "in force", "#rows", "origin", "created", "approved", "by", "content")
    print_table("", columns, (_cells(row) for row in rows))


def _rows(found: list[ReferenceSummary], contents: dict[str, str]) -> list[dict[str, Any]]:
    from alerts.times import rfc3339_or_none
    from monitor.in_use import in_use
    from monitor.references import in_force

    roles = {(r.subject, r.role) for r in found}
    of = {(subject, role): [r for r in found if (r.subject, r.role) == (subject, role)] for subject, role in roles}
    used = {(subject, role): in_use(rows, subject, contents, role) for (subject, role), rows in of.items()}
    leading = {(subject, role): in_force(rows, role) for (subject, role), rows in of.items()}
    return [
        {
            **r._asdict(),
            "in_force": used[r.subject, r.role] is r,
            "in_force_next": used[r.subject, r.role] is not r and leading[r.subject, r.role] is r,
            "created_at": rfc3339_or_none(r.created_at),
            "approved_at": rfc3339_or_none(r.approved_at),
        }
        for r in found
    ]


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    in_force = "from the next start" if row["in_force_next"] else row["in_force"]
    facts = row["subject"], row["role"], row["version"], in_force, row["rows"], row["origin"]
    times = when(row["created_at"]), when(row["approved_at"]) or "provisional"
    return *facts, *times, row["approved_by"], row["content_hash"]
