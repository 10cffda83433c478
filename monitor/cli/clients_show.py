"""`modelwarden clients show`: who queried a model, and how often."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monitor.cli.failures import CommandError
from monitor.cli.options import ConfigFile, Output, OutputFormat, need_config
from monitor.cli.output import print_json, print_table, when

if TYPE_CHECKING:
    from monitor.state.store import StateStore
    from monitor.state.unit import SubjectRow


def clients_show(
    model: Annotated[str, typer.Option(help="Name of the model.")],
    tenant: Annotated[str, typer.Option(help="Its tenant.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Show at most so many, the busiest.")] = None,
    config: ConfigFile = None,
    output: OutputFormat = Output.TABLE,
) -> None:
    """List the clients of a model, busiest first.

    They are shown in clear where the identity key is at hand. Counts are exact below 10,000 clients.
    Beyond, a count may be too high by at most `error`.
    """
    settings = need_config(config)
    from alerts.times import rfc3339_or_none
    from monitor.cli.stored import resolver, stored

    with stored(settings) as store:
        counts = _ledger(store, model, tenant).counts()[:limit]
        resolve = resolver(settings, store, (c.client for c in counts))
    rows = [
        {
            "client": resolve(c.client),
            "pseudonym": c.client,
            "queries": c.queries,
            "error": c.error,
            "first_seen": rfc3339_or_none(c.first_seen),
            "last_seen": rfc3339_or_none(c.last_seen),
        }
        for c in counts
    ]
    if output is Output.JSON:
        print_json(rows)
    else:
        print_table("", ("client", "pseudonym", "#queries", "#error", "first seen", "last seen"), map(_row, rows))


def _ledger(store: StateStore, model: str, tenant: str) -> Any:
    """The stored ledger of the model; CommandError when no such model was ever seen."""
    from monitor.clients import ClientLedger
    from monitor.watch import CLIENTS

    subject = f"model:{tenant}/{model}"
    pages = store.load_pages(subject)
    known = store.load_subjects()
    if not pages and subject not in {row.subject for row in known}:
        raise CommandError(_unknown(model, tenant, known))
    ledger = ClientLedger()
    ledger.restore({page.page: page.arrays for page in pages if page.detector == CLIENTS})
    return ledger


def _unknown(model: str, tenant: str, known: Iterable[SubjectRow]) -> str:
    asked = f"{model} of tenant {tenant}" if tenant else model
    names = sorted({f"{r.model} (--tenant {r.tenant})" if r.tenant else r.model for r in known if r.model is not None})
    hint = f"Known: {', '.join(names)}." if names else "No event of any model was read yet."
    return f"There is no model {asked}. {hint}"


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    times = when(row["first_seen"]), when(row["last_seen"])
    return row["client"], row["pseudonym"], row["queries"], row["error"], *times
