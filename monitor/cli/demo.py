"""`modelwarden demo`: everything at once, on this machine, with simulated clients."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from monitor.cli.options import ConfigFile, read_config


def demo(
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where its files go; default a new temporary directory.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="End after so many seconds.")] = None,
    config: ConfigFile = None,
) -> None:
    """See it work, with simulated clients.

    Broker, model, clients, a drift, and the daemon that finds it: no Docker, no Java, not root. The
    demo writes a configuration of its own; one given here is only checked.
    """
    if config is not None:
        read_config(config)
    from monitor.logging import configure_logging

    configure_logging(json=False, level=logging.WARNING)
    from monitor.demo.run import run_demo

    raise typer.Exit(run_demo(directory, seconds))
