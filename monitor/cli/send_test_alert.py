"""`modelwarden send-test-alert`: whether an alert would arrive."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from monitor.cli.failures import FAILURE, CommandError
from monitor.cli.options import ConfigFile, Output, OutputFormat, need_config
from monitor.cli.output import print_json, print_line

if TYPE_CHECKING:
    from monitor.sample_alert import Outcome


def send_test_alert(config: ConfigFile = None, output: OutputFormat = Output.TABLE) -> None:
    """Post an alert to each receiver, and say which took it. Exits 1 when one did not.

    A webhook gets an incident that opens and resolves at once, an Alertmanager an alert that ends within a minute.
    """
    settings = need_config(config)
    from monitor.sample_alert import send_samples

    if not settings.receivers:
        raise CommandError(f"{settings.file}: there are no receivers; add one under `receivers:`.")
    outcomes: list[Outcome] = []
    for outcome in send_samples(settings, time.time()):
        outcomes.append(outcome)
        if output is Output.TABLE:
            print_line(f"{'ok    ' if outcome.ok else 'failed'}  {outcome.receiver}: {outcome.detail}")
    if output is Output.JSON:
        print_json([outcome.as_dict() for outcome in outcomes])
    if not all(outcome.ok for outcome in outcomes):
        raise typer.Exit(FAILURE)
