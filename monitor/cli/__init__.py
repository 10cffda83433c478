"""The command line. Each command is a file; heavy modules are imported by the command that needs them."""

from __future__ import annotations

import os
import sys
from typing import Final

TRACEBACK: Final = "MODELWARDEN_TRACEBACK"
_COMPLETION: Final = {"--show-completion", "--install-completion"}


def main() -> None:
    """Entry of `modelwarden`: 0 ok, 1 failure, 2 usage, 78 bad configuration, 130 interrupted."""
    if "--traceback" in sys.argv[1:]:  # not an option of any command, so that it may stand anywhere
        sys.argv.remove("--traceback")
        os.environ[TRACEBACK] = "1"
    if any(a in _COMPLETION and not b.startswith("-") for a, b in zip(sys.argv[1:], sys.argv[2:], strict=False)):
        # Typer takes the name of a shell only where it is kept from guessing one, and a guess fails without a terminal
        os.environ["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal still shows what it can
    from monitor.cli.app import app

    app(prog_name="modelwarden")
