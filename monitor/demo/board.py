"""What the demo shows: a live table of incidents on a terminal, plain lines without one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from alerts.advice import FIRST_STEP
from alerts.incidents import Incident

_STYLES: Final = {"info": "cyan", "warning": "yellow", "critical": "bold red"}
_SAID = 4
"""Latest lines kept below the table."""
_SHOWN = 8
"""Incidents shown; older ones are in the database."""


class Board(Protocol):
    """Where the demo says what happens."""

    def __enter__(self) -> Board: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def say(self, text: Text) -> None:
        """One line of the story."""

    def show(self, incidents: Iterable[Incident], stage: str, events: int) -> None:
        """Where it stands."""


class Lines:
    """Every line as it comes: for pipes, logs and CI."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def say(self, text: Text) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def show(self, incidents: Iterable[Incident], stage: str, events: int) -> None:
        return None


class LiveTable:
    """One table that is drawn anew: who, why and what to do of each incident."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._said: deque[Text] = deque(maxlen=_SAID)
        self._table = Table.grid()
        self._stage = ""

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, text: Text) -> None:
        self._said.append(text)
        self._draw()

    def show(self, incidents: Iterable[Incident], stage: str, events: int) -> None:
        self._table = incident_table(incidents)
        self._stage = f"now: {stage}  ·  {events:,} events counted"
        self._draw()

    def _draw(self) -> None:
        parts: list[RenderableType] = [self._table, Text(self._stage, "bold"), *self._said]
        self._live.update(Panel(Group(*parts), title="ModelWarden demo", border_style="dim"))


def board_for(console: Console) -> Callable[[], Board]:
    """What makes the board for this console."""
    return (lambda: LiveTable(console)) if console.is_terminal else (lambda: Lines(console))


def incident_table(incidents: Iterable[Incident]) -> Table:
    """The newest incidents, newest first."""
    table = Table(expand=True, box=None, pad_edge=False)
    for title, ratio in (("time", 2), ("what", 4), ("who", 4), ("why", 9), ("what to do", 8)):
        table.add_column(title, ratio=ratio, overflow="fold")
    newest = sorted(incidents, key=lambda i: (-i.opened_at, i.id))[:_SHOWN]
    for incident in newest:
        closed = incident.status == "resolved"
        style = "dim" if closed else ""
        what = Text(incident.kind.replace("_", " "), _STYLES.get(incident.severity_max, ""))
        who = ", ".join(s.id for s in incident.subjects[:3]) or (incident.model or "")
        table.add_row(
            time.strftime("%H:%M:%S", time.gmtime(incident.opened_at)),
            what.append(" (closed)" if closed else ""),
            who,
            incident.why,
            FIRST_STEP[incident.kind],
            style=style,
        )
    return table
