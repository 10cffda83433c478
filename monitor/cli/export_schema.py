"""`modelwarden export schema`: the JSON Schemas of events and of the configuration, for editors and producers."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.cli.options import ConfigFile, read_config
from monitor.cli.output import print_json

if TYPE_CHECKING:
    from typing import Any


class SchemaChoice(StrEnum):
    """The schemas there are."""

    EVENT = "event"
    CONFIG = "config"


def export_schema(
    name: Annotated[SchemaChoice, typer.Argument(metavar="[event|config]", help="Which one.")] = SchemaChoice.EVENT,
    config: ConfigFile = None,
) -> None:
    """Print a JSON Schema: of the native event (default), or of modelwarden.yaml.

    A configuration given here is only checked.
    """
    if config is not None:
        read_config(config)
    print_json(schema(name))


def schema(name: SchemaChoice) -> dict[str, Any]:
    """The schema, from the code that reads events or the configuration."""
    if name is SchemaChoice.CONFIG:
        from monitor.config import config_json_schema

        return config_json_schema()
    from monitor.intake.formats.native_schema import native_event_schema

    return native_event_schema()
