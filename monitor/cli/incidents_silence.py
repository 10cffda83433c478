"""`modelwarden incidents silence`: tell nobody of an incident for a while."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

import typer

from monitor.cli.acts import act
from monitor.cli.options import ConfigFile, need_config
from monitor.cli.output import print_line

_LONGEST: Final = timedelta(days=30)


def incidents_silence(
    incident: Annotated[str, typer.Argument(metavar="ID", help="Id of the incident.")],
    duration: Annotated[str | None, typer.Option("--for", help="How long, as 30m, 2h or 3d; at most 30d.")] = None,
    off: Annotated[bool, typer.Option("--off", help="End the silence now.")] = False,
    by: Annotated[str | None, typer.Option(help="Who silences it; default the user name.")] = None,
    config: ConfigFile = None,
) -> None:
    """Tell nobody of an incident for a while.

    It comes back when the time is over, or when it gets worse. The active daemon does it; without one, this
    command does.
    """
    if off == (duration is not None):
        raise typer.BadParameter("Give either --for DURATION or --off.")
    seconds = 0.0 if duration is None else _seconds(duration)
    settings = need_config(config)
    from monitor.cli.stored import live_incident, stored
    from monitor.commands import SILENCE

    with stored(settings) as store:
        live_incident(store, incident)
        message = act(store, settings, by, SILENCE, {"incident": incident, "seconds": seconds})
    print_line(message)


def _seconds(duration: str) -> float:
    from monitor.config.units import parse_duration

    try:
        length = parse_duration(duration)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    if not timedelta() < length <= _LONGEST:
        raise typer.BadParameter(f"Write more than nothing and at most {_LONGEST.days}d.", param_hint="--for")
    return length.total_seconds()
