"""`modelwarden backtest`: what would have been found in files of events."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monitor.cli.failures import CommandError, say
from monitor.cli.options import ConfigFile, read_config
from monitor.cli.result_file import STDOUT, check_place, write_result

if TYPE_CHECKING:
    from alerts.incidents import Incident
    from monitor.backtest import Backtest, Progress
    from monitor.config import Config


class TypeChoice(StrEnum):
    """What an event is that does not say so itself."""

    AUTO = "auto"
    PREDICTION = "prediction"
    LABEL = "label"
    ACCESS = "access"
    METRIC = "metric"


class SeverityChoice(StrEnum):
    """Severities, least first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


def backtest(
    events: Annotated[
        list[Path], typer.Argument(metavar="EVENTS", help="Files of JSON lines, plain or gzip; - is stdin.")
    ],
    reference: Annotated[Path | None, typer.Option(metavar="FILE", help="Rows that show what is usual.")] = None,
    training_rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows the models were trained on; default: the reference.")
    ] = None,
    calibrate: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Declare the first stretch honest, for example 12h.")
    ] = None,
    services: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Declared service accounts: a JSON object, id to name.")
    ] = None,
    type: Annotated[TypeChoice, typer.Option(help="What an event is that does not say so.")] = TypeChoice.AUTO,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The model of events that name none.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Read on as the files grow, also when rotated, until Ctrl-C (SIGINT).")
    ] = False,
    min_severity: Annotated[SeverityChoice, typer.Option(help="Leave milder ones out.")] = SeverityChoice.INFO,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where incidents go, packed if named .gz; - is stdout.")
    ] = STDOUT,
    config: ConfigFile = None,
) -> None:
    """Find in files what `run` would have found.

    Prints the incidents in their last state, one JSON object a line. No Kafka, database or configuration is
    needed; a configuration that is there gives models their settings.
    """
    if model is not None and (not model or "/" in model or model.endswith("@shadow")):
        raise typer.BadParameter(f"{model!r} is no name of a model", param_hint="--model")
    settings = read_config(config, registries=True)
    check_place(out, [*events, reference, training_rows, services, *_configured(settings)])
    stretch = None if calibrate is None else _seconds(calibrate)
    accounts = {} if services is None else _services(services)
    from monitor.backtest import run_backtest
    from monitor.garbage import look_rarely
    from monitor.logging import configure_logging

    configure_logging(json=False, level=logging.WARNING)
    look_rarely()
    if settings is not None and config is None:
        say(f"settings of {settings.file}")
    with _progress() as progress, _until_interrupt(follow) as going_on:
        found = run_backtest(
            events,
            reference,
            type.value,
            model=model,
            training=training_rows,
            calibrate=stretch,
            services=accounts,
            config=settings,
            progress=progress,
            follow=going_on,
        )
    order = list(SeverityChoice)
    least = order.index(min_severity)
    shown = [i for i in found.incidents if order.index(SeverityChoice(i.severity)) >= least]
    write_result(out, _lines(shown))
    _tell(found, len(shown))


def _seconds(text: str) -> float:
    from monitor.config.units import parse_duration

    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--calibrate") from None


def _services(path: Path) -> dict[str, str]:
    """Declared service accounts. CommandError names what the file should hold, or what it says twice."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: cannot be read: {error}") from error
    if not isinstance(read, dict) or not all(isinstance(name, str) for name in read.values()):
        raise CommandError(f"{path}: not a JSON object of account id to name")
    return read


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = sorted(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
    if twice:
        raise ValueError(f"{twice[0]!r} is there twice; say once what it is")
    return dict(pairs)


def _tell(found: Backtest, shown: int) -> None:
    rejected = found.rejected.total()
    reasons = f" ({', '.join(f'{reason} {n:,}' for reason, n in found.rejected.most_common())})" if rejected else ""
    say(f"{found.records:,} lines, {rejected:,} rejected{reasons}, {shown:,} incident{'' if shown == 1 else 's'}")
    if found.rejected["no_subject"]:
        say("events that name no model (labels often) were left out; say whose they are with --model NAME")
    if found.accesses:
        say(
            f"{found.accesses:,} access events: rates, errors and latency were judged; "
            "misuse (credential_attack, access_policy, access_novelty) is not judged yet"
        )
    for subject, state in found.models.items():
        if state == "calibrating":
            say(f"{subject}: too few events for a provisional reference, nothing was judged; give --reference FILE")
        elif state != "watching":
            say(f"{subject}: not watched: {state}")


def _lines(incidents: Iterable[Incident]) -> str:
    from alerts.render import incident_json

    return "".join(json.dumps(incident_json(i), allow_nan=False) + "\n" for i in incidents)


def _configured(config: Config | None) -> list[Path]:
    """The configuration, the files it names for models, and its key."""
    if config is None:
        return []
    keys = [config.identity.key_file]
    keys += [key for entry in config.models.listed.values() for key in (entry.reference, entry.training_rows)]
    return [*([config.file] if config.file is not None else []), *(key.path for key in keys if key is not None)]


@contextmanager
def _until_interrupt(follow: bool) -> Iterator[Callable[[], bool] | None]:
    """Whether to read on: until SIGINT or SIGTERM, after which the results are printed. A second one ends at once."""
    if not follow:
        yield None
        return
    interrupted = threading.Event()

    def end(number: int, _: FrameType | None) -> None:
        interrupted.set()
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: not interrupted.is_set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on stderr where somebody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("backtest", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
