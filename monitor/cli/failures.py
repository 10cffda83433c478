"""How a command fails: one line on stderr and an exit code, never a traceback unless it is asked for."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import typer

from monitor.cli import TRACEBACK
from monitor.printable import one_line

FAILURE: Final = 1
BAD_CONFIG: Final = 78
_OURS: Final = ("monitor.", "alerts.", "detectors.")
P = ParamSpec("P")
R = TypeVar("R")


class CommandError(Exception):
    """A command cannot do what it was asked. The text is shown as it is."""


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose errors become a message and an exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            done = command(*args, **kwargs)
            sys.stdout.flush()
            return done
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except BrokenPipeError:
            _forget_output()
            raise typer.Exit(FAILURE) from None
        except Exception as error:
            raise typer.Exit(_report(error)) from None

    return run


def say(text: str) -> None:
    """A diagnostic on stderr."""
    typer.echo(one_line(text), err=True)


def _report(error: Exception) -> int:
    """Tell what went wrong; the exit code."""
    if os.environ.get(TRACEBACK, "0") not in ("", "0"):
        traceback.print_exception(error)
    if type(error).__name__ == "ConfigError" and hasattr(error, "problems"):  # its module is heavy
        for problem in error.problems:
            say(str(problem))
        return BAD_CONFIG
    say(f"modelwarden: {_sentence(error)}")
    return FAILURE


def _sentence(error: Exception) -> str:
    """Errors of our own say all there is to say; of others the type helps, and where to see more."""
    text = " ".join(str(error).split())
    if type(error).__module__.startswith(_OURS):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return f"{type(error).__name__}: {text} ({TRACEBACK}=1 shows where)"


def _forget_output() -> None:
    """Nobody reads stdout any more: what is still buffered must not fail at the exit of the interpreter."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    finally:
        os.close(nowhere)
