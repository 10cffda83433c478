"""`modelwarden export grafana|prometheus|systemd`: dashboard, rules and unit, as files for those programs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from monitor.cli.failures import CommandError, say

_UNIT_PROGRAM: Final = "/opt/modelwarden/bin/modelwarden"
"""The program that the unit in deploy/ names."""
_FORBIDDEN: Final = set(" \t\n\"'\\%$;")
OutFile = Annotated[
    Path | None, typer.Option("--out", metavar="PATH", help="Write it here: a new file, or a directory.")
]


def export_grafana(out: OutFile = None) -> None:
    """Print a Grafana dashboard, to be imported or provisioned."""
    _export("modelwarden.json", ("grafana", "modelwarden.json"), out)


def export_prometheus(out: OutFile = None) -> None:
    """Print alerting rules for Prometheus, about the daemon itself."""
    _export("modelwarden.rules.yml", ("prometheus", "rules.yml"), out)


def export_systemd(
    program: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The program that the unit starts; default this one.")
    ] = None,
    out: OutFile = None,
) -> None:
    """Print a systemd unit that runs the daemon with few rights."""
    _export("modelwarden.service", ("systemd", "modelwarden.service"), out, str(_program(program)))


def _export(name: str, source: tuple[str, str], out: Path | None, program: str = _UNIT_PROGRAM) -> None:
    from monitor.deploy_files import deploy_file

    text = deploy_file(*source).replace(_UNIT_PROGRAM, program)
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
    path = Path(os.path.abspath(path))
    if _FORBIDDEN & set(str(path)):
        raise CommandError(f"{path}: systemd would misread this path: name one without blanks and signs")
    return path
