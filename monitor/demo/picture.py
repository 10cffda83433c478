"""Draws the end of a demo as a picture: `python -m monitor.demo.picture DIR demo.svg`, DIR that of the demo."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.panel import Panel

from monitor.demo.board import incident_table
from monitor.demo.follow import Follower
from monitor.demo.workspace import GROUP, Workspace

_WIDTH = 150


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the incidents of a demo's database and write the table of its live board as SVG."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if len(given) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    place = Workspace(Path(given[0]), 0)
    follower = Follower(place.store_url, GROUP, lambda _: None, place.key)
    follower.poll()
    follower.close()
    if not follower.incidents:
        print(f"{place.database}: no incidents to draw; play a demo there first", file=sys.stderr)
        return 1
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Panel(incident_table(follower.incidents.values()), title="ModelWarden demo", border_style="dim"))
    console.save_svg(given[1], title="modelwarden demo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
