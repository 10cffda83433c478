"""`modelwarden doctor`: tries everything the daemon depends on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from monitor.cli.failures import BAD_CONFIG, FAILURE
from monitor.cli.options import ConfigFile, Output, OutputFormat, need_config
from monitor.cli.output import print_json, print_line

if TYPE_CHECKING:
    from monitor.doctor import Finding

CONFIGURATION = "configuration"


def doctor(config: ConfigFile = None, output: OutputFormat = Output.TABLE) -> None:
    """Try everything that the daemon depends on, and say what mends what is broken.

    Nothing is written or sent. Exits 0 when all is well, 78 when the configuration is bad, else 1.
    """
    import logging

    from monitor.logging import configure_logging

    configure_logging(json=False, level=logging.CRITICAL)  # what sources log is among the findings
    found: list[Finding] = []
    for finding in _findings(config):
        found.append(finding)
        if output is Output.TABLE:
            print_line(_line(finding))
    if output is Output.JSON:
        print_json([finding.as_dict() for finding in found])
    failed = [finding.check for finding in found if not finding.ok]
    if failed:
        raise typer.Exit(BAD_CONFIG if CONFIGURATION in failed else FAILURE)


def _findings(config: ConfigFile) -> Iterator[Finding]:
    from monitor.config import ConfigError
    from monitor.doctor import Finding, examine, examine_program

    yield from examine_program()
    try:
        settings = need_config(config, registries=True)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding(CONFIGURATION, False, str(problem), "Correct it; `modelwarden init` writes a valid one.")
        return
    yield Finding(CONFIGURATION, True, str(settings.file))
    yield from examine(settings)


def _line(finding: Finding) -> str:
    text = f"{'ok    ' if finding.ok else 'failed'}  {finding.check}: {finding.detail}"
    return f"{text} — {finding.mend}" if finding.mend else text
