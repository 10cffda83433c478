"""`modelwarden bench`: what an event costs on this machine."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monitor.cli.failures import CommandError
from monitor.cli.options import ConfigFile, Output, OutputFormat, read_config
from monitor.cli.output import print_json, print_table

if TYPE_CHECKING:
    from monitor.bench.run import Progress


def bench(
    bootstrap_servers: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Broker; default: that of the configuration.")
    ] = None,
    events: Annotated[int, typer.Option(min=1_000, help="Events in a pass.")] = 200_000,
    features: Annotated[int, typer.Option(min=1, max=1_000, help="Features of an event.")] = 20,
    store: Annotated[str | None, typer.Option(metavar="URL", help="Database; default: a new SQLite file.")] = None,
    config: ConfigFile = None,
    output: OutputFormat = Output.TABLE,
) -> None:
    """Measure what an event costs, stage by stage, through a real broker.

    Makes a topic of its own, fills it, reads it with every installed Kafka client with all detectors on, and deletes
    it. CPU microseconds an event, medians of three passes; `all` is the whole loop, commits included.
    """
    settings = read_config(config)
    kafka = None if settings is None else settings.kafka
    if bootstrap_servers is not None:
        servers = bootstrap_servers.split(",")
    elif kafka is not None:
        servers = [str(a) for a in kafka.bootstrap_servers]
    else:
        raise CommandError("No broker is named: give --bootstrap-servers HOST:PORT or a configuration.")
    from monitor.logging import configure_logging

    configure_logging(json=False, level=logging.ERROR)
    from monitor.bench.run import BenchError, Plan
    from monitor.bench.run import bench as measure
    from monitor.garbage import look_rarely

    look_rarely()
    security = kafka.security if kafka is not None and bootstrap_servers is None else None
    with tempfile.TemporaryDirectory(prefix="modelwarden-bench-") as directory, _progress() as progress:
        try:
            found = measure(Plan(servers, events, features, Path(directory), security, store), progress)
        except BenchError as error:
            raise CommandError(str(error)) from error
    if output is Output.JSON:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    for source in found["sources"]:
        rows = [(name, source[name]) for name in ("poll_us", "decode_us", "columns_us", "views_us")]
        rows += [(f"  {name}", us) for name, us in source["detectors"].items()]
        rows += [
            (name, source[name]) for name in ("naming_us", "commit_us", "all_us", "ratio", "bytes_written_per_event")
        ]
        title = f"{source['source']}: {source['events']:,} events of {source['features']} features"
        print_table(title, ("stage", "#µs an event"), rows)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on stderr where somebody looks."""
    if not sys.stderr.isatty():
        yield lambda what, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("bench", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)
