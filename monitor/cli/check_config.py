"""`modelwarden check-config`: says what is wrong with a configuration, before a daemon reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.cli.options import ConfigFile, need_config
from monitor.cli.output import print_line

if TYPE_CHECKING:
    from monitor.config import Config


def check_config(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", show_default=False, help="The file.")] = None,
    config: ConfigFile = None,
) -> None:
    """Check the configuration file.

    Names every mistake with file, line and key, and exits 78; or says "ok" and what is worth knowing.
    """
    if file is not None and config is not None:
        raise typer.BadParameter("Give the file once.")
    settings = need_config(file if file is not None else config, registries=True)
    print_line(f"{settings.file}: ok")
    for note in notes(settings):
        print_line(f"note: {note}")


def notes(config: Config) -> Iterator[str]:
    """What is valid and may still not be meant."""
    from monitor.assembly import without_effect

    yield from without_effect(config)
    yield from _inputs(config)
    yield from _files(config)
    yield from _receivers(config)


def _inputs(config: Config) -> Iterator[str]:
    if config.kafka is None:
        yield "kafka: not given; `modelwarden run` needs it"
    elif not config.kafka.topics:
        yield "kafka.topics: none is listed; `modelwarden run` needs one"
    if not config.models.listed and not config.models.auto.max:
        yield "models: none is listed and auto.max is 0, so that nothing is watched"


def _files(config: Config) -> Iterator[str]:
    for name, entry in config.models.listed.items():
        for key, file in (("reference", entry.reference), ("training_rows", entry.training_rows)):
            if file is not None and not file.path.is_file():
                yield f"models.{name}.{key}: {file.path} does not exist yet"
    key_file = config.identity.key_file
    if key_file is not None and not key_file.path.exists():
        yield f"identity.key_file: {key_file.path} does not exist yet; `modelwarden run` does not make it"


def _receivers(config: Config) -> Iterator[str]:
    from monitor.config import WebhookReceiver
    from monitor.config.checks import is_private_host

    if not config.receivers:
        yield "receivers: none; incidents are stored and nobody is told"
    if not config.notify:
        yield "notify: off; nobody is told, `status` and `incidents list` show who would have been"
    for name, receiver in config.receivers.items():
        if not isinstance(receiver, WebhookReceiver):
            continue
        if is_private_host(receiver.url):
            yield f"receivers.{name}.url: a private or loopback address, allowed by allow_private"
        if receiver.secret_file is None:
            yield f"receivers.{name}: without secret_file its messages are not signed"
        elif not receiver.secret_file.path.exists():
            yield f"receivers.{name}.secret_file: {receiver.secret_file.path} does not exist yet"
