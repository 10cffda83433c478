"""`modelwarden status`: counts and conditions, from SQL alone."""

from __future__ import annotations

from typing import Any

from monitor.cli.options import ConfigFile, Output, OutputFormat, need_config
from monitor.cli.output import print_json, print_line, print_table, when


def status(config: ConfigFile = None, output: OutputFormat = Output.TABLE) -> None:
    """Show counts since the first start.

    Models, topics, the active daemon and messages, from the database alone.
    """
    settings = need_config(config)
    from monitor.cli.stored import stored

    with stored(settings) as store:
        found = store.status()
    if output is Output.JSON:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    active = found["active"]
    if active["holder"] is None:
        print_line("No daemon is active.")
    else:
        print_line(f"Active: {active['holder']}, epoch {active['epoch']}, since {when(active['since'])}")
    columns = ("model", "tenant", "state", "attacks", "#predictions", "#labels", "#matched", "#clients", "last event")
    print_table("Models", columns, (_model(m) for m in found["models"]))
    columns = (
        "topic", "#partition", "#next offset", "#received", "#accepted", "#rejected", "#bad rows",
        "#time corrected", "#gap",
    )  # fmt: skip
    print_table("Topics", columns, (_topic(t) for t in found["topics"]))
    outbox = found["outbox"]
    print_line(f"Access events: {found['access']['events']:,}")
    print_line(
        f"Messages: {outbox['pending']:,} pending, {outbox['delivered']:,} delivered, {outbox['failed']:,} failed"
    )


def _model(m: dict[str, Any]) -> tuple[object, ...]:
    clients = m["clients"] if m["clients_exact"] else f"about {m['clients']:,}"
    state = "unwatched" if m["unwatched"] else m["state"]
    counts = m["predictions"], m["labels"], m["labels_matched"]
    return m["model"], m["tenant"], state, m["attack_state"], *counts, clients, when(m.get("watermark"))


def _topic(t: dict[str, Any]) -> tuple[object, ...]:
    names = (
        "topic", "partition", "next_offset", "received", "accepted", "rejected", "rows_rejected", "time_corrected",
        "gap",
    )  # fmt: skip
    return tuple(t[name] for name in names)
