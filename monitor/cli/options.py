"""Options that several commands share, and how the configuration file is found."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from monitor.config import Config


class Output(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        show_default=False,
        help="Configuration; default $MODELWARDEN_CONFIG, ./modelwarden.yaml, /etc/modelwarden/modelwarden.yaml.",
    ),
]
OutputFormat = Annotated[Output, typer.Option("--output", help="How to print it.")]


def need_config(explicit: Path | None, *, registries: bool = False) -> Config:
    """The configuration; ConfigError when there is none or it is invalid.

    `registries`: also check what only the registries know, names of detectors and formats; slower.
    """
    from monitor.config import ConfigError, Problem

    config = read_config(explicit, registries=registries)
    if config is None:
        sentence = "There is no configuration file, nor one in /etc/modelwarden."
        raise ConfigError([Problem("modelwarden.yaml", None, "", sentence, "Give --config FILE.")])
    return config


def read_config(explicit: Path | None, *, registries: bool = False) -> Config | None:
    """As `need_config`, but None when no file was named and there is none at the usual places."""
    from monitor.config import Check, find_config, load_config

    path = find_config(explicit)
    if path is None:
        return None
    checks: list[Check] = []
    if registries:
        from monitor.assembly import registry_checks

        checks.append(registry_checks)
    return load_config(path, checks=checks)
