"""`modelwarden incidents ack`: say that an incident was seen."""

from __future__ import annotations

from typing import Annotated

import typer

from monitor.cli.acts import act
from monitor.cli.failures import CommandError
from monitor.cli.options import ConfigFile, need_config


def incidents_ack(
    incident: Annotated[str, typer.Argument(metavar="ID", help="Id of the incident.")],
    by: Annotated[str | None, typer.Option(help="Who has seen it; default the user name.")] = None,
    config: ConfigFile = None,
) -> None:
    """Mark an incident as seen. The active daemon does it; without one, this command does."""
    settings = need_config(config)
    from monitor.cli.stored import stored
    from monitor.commands import ACKNOWLEDGE

    with stored(settings) as store:
        found = store.incident(incident)
        if found is None:
            raise CommandError(f"There is no incident {incident}.")
        if found.status == "resolved":
            raise CommandError(f"{incident} is resolved already.")
        message = act(store, settings, by, ACKNOWLEDGE, {"incident": incident})
    typer.echo(message)
