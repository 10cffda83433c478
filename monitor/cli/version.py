"""`modelwarden version` and `modelwarden --version`."""

from __future__ import annotations

import typer

from monitor import __version__
from monitor.cli.options import ConfigFile, read_config


def version(config: ConfigFile = None) -> None:
    """Print the version. A configuration given here is only checked."""
    if config is not None:
        read_config(config)
    typer.echo(f"modelwarden {__version__}")


def print_version(wanted: bool) -> None:
    """Callback of `--version`."""
    if wanted:
        typer.echo(f"modelwarden {__version__}")
        raise typer.Exit
