"""`modelwarden healthcheck`: asks the daemon of this machine whether it is ready, for containers and scripts."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from typing import Annotated, Final

import typer

from monitor.cli.failures import FAILURE, CommandError
from monitor.cli.options import ConfigFile, read_config
from monitor.cli.output import print_line

_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_LONGEST: Final = 2_000


def healthcheck(
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the answer.")] = 5.0,
    config: ConfigFile = None,
) -> None:
    """Ask the daemon of this machine if it is ready.

    Prints its answer; exits 0 when it is ready, else 1.
    """
    from monitor.config import Config

    listen = (read_config(config) or Config()).api.listen
    if not listen.port:
        raise CommandError(f"api.listen is {listen}: a port that the system chooses cannot be asked; set one.")
    connection = HTTPConnection(_ANY.get(listen.host, listen.host), listen.port, timeout=timeout)
    try:
        connection.request("GET", "/-/ready")
        answer = connection.getresponse()
        text = answer.read(_LONGEST).decode("utf-8", "replace").strip()
    except (OSError, HTTPException) as error:
        raise CommandError(f"{listen} does not answer: {str(error) or type(error).__name__}") from error
    finally:
        connection.close()
    print_line(text or f"HTTP {answer.status}")
    if answer.status != 200:
        raise typer.Exit(FAILURE)
