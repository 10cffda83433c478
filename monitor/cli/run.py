"""`modelwarden run`: the daemon in the foreground."""

from __future__ import annotations

import sys

import typer

from monitor.cli.options import ConfigFile, need_config


def run(config: ConfigFile = None) -> None:
    """Run the daemon until SIGTERM or Ctrl-C. Logs go to stderr, as JSON lines where it is no terminal."""
    settings = need_config(config, registries=True)
    settings.need_kafka()
    from monitor.logging import configure_logging

    configure_logging(json=not sys.stderr.isatty())
    from monitor.daemon import run_daemon
    from monitor.garbage import look_rarely

    look_rarely()
    raise typer.Exit(run_daemon(settings))
