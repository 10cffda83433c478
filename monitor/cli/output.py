"""Printing on stdout: JSON, and tables that are plain text when nobody looks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console

_STYLES: Final = {
    "info": "cyan", "warning": "yellow", "critical": "bold red", "open": "yellow", "resolved": "green",
    "acknowledged": "cyan", "watching": "green", "calibrating": "cyan", "held": "yellow", "off": "dim",
}  # fmt: skip
_WIDE: Final = 240


def print_json(data: Any) -> None:
    """`data` as JSON, in ASCII: it can do nothing to a terminal, whatever a client sent."""
    typer.echo(json.dumps(data, indent=2, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; without names of columns it has no head. Columns that begin with `#` are numbers, to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=any(columns))
    for name in columns:
        number = name.startswith("#")
        table.add_column(name.removeprefix("#"), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    shown = console()
    if title:
        shown.print(Text(f"\n{title}", "bold"))
    shown.print(table)


def print_line(text: str) -> None:
    """One line of text."""
    console().print(cell(text), soft_wrap=True)


def console() -> Console:
    """stdout. Away from a terminal lines are long, because whoever reads them there cannot widen a window."""
    from rich.console import Console

    made = Console(highlight=False, markup=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _WIDE
    return made


def cell(value: object) -> Any:
    """One value as text: numbers with separators, nothing for None, control characters written out."""
    from rich.text import Text

    from monitor.printable import one_line

    if value is None:
        return Text("")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}")
    text = one_line(str(value))
    return Text(text, _STYLES.get(text, ""))


def when(text: str | None) -> str:
    """An RFC 3339 time as tables show it, to the second."""
    return "" if text is None else text[:19].replace("T", " ") + "Z"
