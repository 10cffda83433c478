"""`modelwarden incidents show`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final

import typer

from monitor.cli.failures import CommandError
from monitor.cli.options import ConfigFile, Output, OutputFormat, need_config
from monitor.cli.output import print_json, print_line, print_table, when

_BARS: Final = " ▁▂▃▄▅▆▇█"


def incidents_show(
    incident: Annotated[str, typer.Argument(metavar="ID", help="Id of the incident.")],
    config: ConfigFile = None,
    output: OutputFormat = Output.TABLE,
) -> None:
    """Show one incident with its evidence."""
    settings = need_config(config)
    from alerts.render import incident_json, pseudonyms_in
    from monitor.cli.stored import resolver, stored
    from monitor.outgoing import owner_of

    with stored(settings) as store:
        found = store.incident(incident)
        if found is None:
            raise CommandError(f"There is no incident {incident}.")
        row = incident_json(found, resolver(settings, store, pseudonyms_in(found)), owner_of(settings)(found))
    if output is Output.JSON:
        print_json(row)
    else:
        _print(row)


def _print(row: dict[str, Any]) -> None:
    print_line(f"{row['severity']} {row['kind']} ({row['id']})")
    print_line(row["why"])
    if row["what_to_do"]:
        print_line(f"What to do: {row['what_to_do']}")
    facts = [
        ("model", row["model"]), ("version", row["model_version"]), ("tenant", row["tenant"] or None),
        ("status", row["status"]), ("opened", when(row["opened_at"])), ("onset", when(row["onset"])),
        ("resolved", when(row["resolved_at"]) or None), ("resolution", row["resolution"] or None),
        ("acknowledged by", row["acknowledged_by"]),
        ("silenced until", when(row["silenced_until"]) or None), ("alarms", row["alarms"]),
        ("detectors", ", ".join(row["detectors"])), *_ids(row["taxonomy"]),
        ("runbook", f"modelwarden export runbook {row['kind']}"),
    ]  # fmt: skip
    print_table("", ("", ""), (fact for fact in facts if fact[1] is not None))
    subjects = ((s["type"], s["id"], when(s["since"]), s["trigger_event_id"]) for s in row["subjects"])
    print_table("Subjects", ("type", "id", "since", "trigger event"), subjects)
    columns = ("detector", "stream", "#observed", "#expected", "unit", "#events", "from", "to")
    print_table("Evidence", columns, (_evidence(e) for e in row["evidence"]))
    told = [(e["field"], e["distribution"]) for e in row["evidence"] if "distribution" in e]
    if told:
        names = ("field", *(f"#p{q}" for q in ("05", "25", "50", "75", "95")), "before", "after")
        print_table("Distributions, before → since the onset", names, (_distribution(*one) for one in told))


def _distribution(field: str, told: dict[str, Any]) -> tuple[object, ...]:
    """Quantiles, and the shares of the bins as bars; of a category the values that changed most."""
    if "bins" in told:
        moved = sorted(zip(told["bins"], told["before"], told["after"], strict=True), key=lambda b: -abs(b[2] - b[1]))
        shown = [f"{name[:20]} {100 * a:.1f} → {100 * b:.1f} %" for name, a, b in moved[:2]]
        return field, *([*shown, None, None, None, None][:5]), _bars(told["before"]), _bars(told["after"])
    at = told["quantiles"]
    pairs = (at.get(f"p{q}") for q in ("05", "25", "50", "75", "95"))
    levels = (None if pair is None else f"{pair[0]:.4g} → {pair[1]:.4g}" for pair in pairs)
    return field, *levels, _bars(told["before"]), _bars(told["after"])


def _bars(shares: list[float]) -> str:
    """One character a bin, up to the largest share."""
    most = max(shares, default=0.0) or 1.0
    return "".join(_BARS[math.ceil(share / most * (len(_BARS) - 1))] for share in shares)


def _ids(taxonomy: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(scheme.replace("_", " "), ", ".join(ids)) for scheme, ids in taxonomy.items() if ids]


def _evidence(e: dict[str, Any]) -> tuple[object, ...]:
    observed, expected = (None if v is None else f"{v:.6g}" for v in (e["observed"], e["expected"]))
    return e["detector"], e["stream"], observed, expected, e["unit"], e["n"], when(e["from"]), when(e["to"])
