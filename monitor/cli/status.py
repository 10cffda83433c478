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
    from time import time

    from monitor.cli.stored import stored
    from monitor.dry_run import report

    with stored(settings) as store:
        incidents = [] if settings.notify else store.incidents()
        found = store.status() | {"dry_run": report(settings, incidents, time())}
    for model in found["models"]:
        model["owner"] = settings.model_settings(model["model"], model["tenant"]).owner
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
    columns = (
        "model", "tenant", "owner", "state", "attacks", "#predictions", "judged", "#labels", "#matched", "#clients",
        "last event",
    )  # fmt: skip
    print_table("Models", columns, (_model(m) for m in found["models"]))
    for m in found["models"]:
        if m["note"]:
            print_line(f"{m['tenant'] + '/' if m['tenant'] else ''}{m['model']}: {m['note']}")
    topics = (
        "topic", "#partition", "#next offset", "#received", "#accepted", "#rejected", "#bad rows",
        "#time corrected", "#gap",
    )  # fmt: skip
    print_table("Topics", topics, (_topic(t) for t in found["topics"]))
    outbox = found["outbox"]
    print_line(f"Access events: {found['access']['events']:,}")
    print_line(
        f"Messages: {outbox['pending']:,} pending, {outbox['delivered']:,} delivered, {outbox['failed']:,} failed"
    )
    if found["dry_run"] is not None:
        _print_dry_run(found["dry_run"])


def _print_dry_run(found: dict[str, Any]) -> None:
    print_line(f"notify: off. It would have paged {found['pages']:,} times.")
    rows = ((p["receiver"], p["kind"], p["model"], p["pages"], p["last_day"]) for p in found["would_page"])
    print_table("Would have paged", ("receiver", "kind", "model", "#pages", "#last day"), rows)


def _model(m: dict[str, Any]) -> tuple[object, ...]:
    clients = m["clients"] if m["clients_exact"] else f"about {m['clients']:,}"
    state = "unwatched" if m["unwatched"] else m["state"]
    counts = m["predictions"], f"{m['sample_rate']:.0%}", m["labels"], m["labels_matched"]
    named = m["model"], m["tenant"], m["owner"] or ""
    return *named, state, m["attack_state"], *counts, clients, when(m.get("watermark"))


def _topic(t: dict[str, Any]) -> tuple[object, ...]:
    names = (
        "topic", "partition", "next_offset", "received", "accepted", "rejected", "rows_rejected", "time_corrected",
        "gap",
    )  # fmt: skip
    return tuple(t[name] for name in names)
