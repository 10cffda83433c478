"""`modelwarden reference approve`: put a stored version of a reference in force."""

from __future__ import annotations

from typing import Annotated

import typer

from monitor.cli.acts import act
from monitor.cli.failures import CommandError
from monitor.cli.options import ConfigFile, need_config
from monitor.cli.output import print_line


def reference_approve(
    model: Annotated[str, typer.Option(help="Name of the model.")],
    version: Annotated[int, typer.Option(min=1, help="Number of the version, as `reference list` shows it.")],
    tenant: Annotated[str, typer.Option(help="Its tenant.")] = "",
    by: Annotated[str | None, typer.Option(help="Who approves; default the user name.")] = None,
    config: ConfigFile = None,
) -> None:
    """Approve a version of a model's reference.

    It is in force when the daemon next starts, takes over or reads its configuration (SIGHUP). The act is audited. The
    active daemon does it; without one, this command does.
    """
    settings = need_config(config)
    from monitor.cli.stored import stored
    from monitor.commands import APPROVE

    subject = f"model:{tenant}/{model}"
    with stored(settings) as store:
        known = [r.version for r in store.reference_versions() if (r.subject, r.role) == (subject, "target")]
        if version not in known:
            listed = ", ".join(map(str, known)) or "none"
            raise CommandError(f"{model}: there is no version {version} of its reference; known: {listed}")
        message = act(store, settings, by, APPROVE, {"subject": subject, "version": version})
    print_line(f"{model}: {message}")
