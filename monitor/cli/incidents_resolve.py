"""`modelwarden incidents resolve`: close an incident by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from monitor.cli.acts import act
from monitor.cli.options import ConfigFile, need_config
from monitor.cli.output import print_line


def incidents_resolve(
    incident: Annotated[str, typer.Argument(metavar="ID", help="Id of the incident.")],
    because: Annotated[str, typer.Option(help="Why; kept with the incident.")] = "",
    by: Annotated[str | None, typer.Option(help="Who resolves it; default the user name.")] = None,
    config: ConfigFile = None,
) -> None:
    """Close an incident.

    Receivers are told. What happens again is a new incident. The active daemon does it; without one, this command
    does.
    """
    settings = need_config(config)
    from monitor.cli.stored import live_incident, stored
    from monitor.commands import RESOLVE

    with stored(settings) as store:
        live_incident(store, incident)
        message = act(store, settings, by, RESOLVE, {"incident": incident, "because": because})
    print_line(message)
