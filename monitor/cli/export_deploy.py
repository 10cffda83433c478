"""`modelwarden export grafana|prometheus|systemd`: dashboard, rules and unit, as files for those programs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import typer

from monitor.cli.failures import CommandError, say
from monitor.cli.options import ConfigFile, read_config

_UNIT_PROGRAM: Final = "/opt/modelwarden/bin/modelwarden"
"""The program that the unit in deploy/ names."""
_UNIT_CONFIG: Final = "/etc/modelwarden/modelwarden.yaml"
"""The configuration that it names."""
_FORBIDDEN: Final = set(" \t\n\"'\\%$;")
OutFile = Annotated[
    Path | None, typer.Option("--out", metavar="PATH", help="Write it here: a new file, or a directory.")
]


def export_grafana(out: OutFile = None, config: ConfigFile = None) -> None:
    """Print a Grafana dashboard, to be imported or provisioned. A configuration given here is only checked."""
    _check(config)
    _export("modelwarden.json", ("grafana", "modelwarden.json"), out)


def export_prometheus(out: OutFile = None, config: ConfigFile = None) -> None:
    """Print alerting rules for Prometheus, about the daemon itself. A configuration given here is only checked."""
    _check(config)
    _export("modelwarden.rules.yml", ("prometheus", "rules.yml"), out)


def export_systemd(
    program: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The program that the unit starts; default this one.")
    ] = None,
    out: OutFile = None,
    config: ConfigFile = None,
) -> None:
    """Print a systemd unit that runs the daemon with few rights. It names the configuration given here."""
    _check(config)
    path = _UNIT_CONFIG if config is None else str(_unit_path(config))
    changes = {_UNIT_CONFIG: path, _UNIT_PROGRAM: str(_program(program))}
    _export("modelwarden.service", ("systemd", "modelwarden.service"), out, changes)


def _check(config: Path | None) -> None:
    if config is not None:
        read_config(config)


def _export(name: str, source: tuple[str, str], out: Path | None, changes: Mapping[str, str] | None = None) -> None:
    from monitor.deploy_files import deploy_file

    text = deploy_file(*source)
    for before, after in (changes or {}).items():
        text = text.replace(before, after)
    if out is None:
        typer.echo(text, nl=False)
        return
    path = out / name if out.is_dir() else out
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CommandError(f"{path} exists already: name a new file") from None
    say(f"{path} written")


def _program(given: Path | None) -> Path:
    """An absolute path for ExecStart; what the unit names where this program has no file of its own."""
    path = given
    if path is None:
        started = sys.argv[0] if os.path.basename(sys.argv[0]) == "modelwarden" else "modelwarden"
        found = shutil.which(started)
        path = Path(found or _UNIT_PROGRAM)
    return _unit_path(path)


def _unit_path(path: Path) -> Path:
    """An absolute path that stands in a unit as it is."""
    path = Path(os.path.abspath(path))
    if _FORBIDDEN & set(str(path)):
        raise CommandError(f"{path}: systemd would misread this path: name one without blanks and signs")
    return path
