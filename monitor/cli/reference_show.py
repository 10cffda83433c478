"""`modelwarden reference show`: what a model is judged against, and what its budget is spent on."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monitor.cli.failures import CommandError
from monitor.cli.options import ConfigFile, Output, OutputFormat, need_config
from monitor.cli.output import print_json, print_line, print_table, when
from monitor.cli.reference_learnt import learnt, print_learnt
from monitor.cli.reference_paging import learning, while_learning, with_reference

if TYPE_CHECKING:
    from monitor.config import Config
    from monitor.panel import Panel
    from monitor.state.references import StoredReference
    from monitor.state.store import StateStore
    from monitor.watch import Watch


def reference_show(
    model: Annotated[str, typer.Option(help="Name of the model.")],
    tenant: Annotated[str, typer.Option(help="Its tenant.")] = "",
    config: ConfigFile = None,
    output: OutputFormat = Output.TABLE,
) -> None:
    """Show the reference of a model, the streams watched against it, and the budget."""
    settings = need_config(config, registries=True)
    from monitor.cli.stored import stored

    with stored(settings) as store:
        found = _found(settings, store, model, tenant)
    if output is Output.JSON:
        print_json(found)
    else:
        _print(found)


def _found(config: Config, store: StateStore, model: str, tenant: str) -> dict[str, Any]:
    from monitor.config import format_duration
    from monitor.in_use import contents_in_use, in_use
    from monitor.references import in_force

    subject = f"model:{tenant}/{model}"
    versions = store.references(subject)
    counted = next((row for row in store.load_subjects() if row.subject == subject), None)
    if counted is None and not versions:
        raise CommandError(
            f"There is no model {model}, or no event of it was read yet; `modelwarden status` lists them."
        )
    rows = [v.reference for v in versions]
    used, leading = in_use(rows, subject, contents_in_use(store, subject)), in_force(rows)
    now = next((v for v in versions if v.reference is used), None)
    settings = config.model_settings(model, tenant)
    budget = {"alarms": settings.budget.drift, "per": format_duration(settings.budget.per)}
    shown: dict[str, Any] = {
        "model": model,
        "tenant": tenant,
        "state": None if counted is None else counted.state,
        "reference": None if now is None else _reference(now),
        "next": next((v.version for v in versions if v.reference is leading and v is not now), None),
        "waiting": [v.version for v in versions if v.reference.role == "target" and v.reference.approved_at is None],
        "budget": {**budget, "spent": None, "detectors": []},
        "learnt": None,
        "not_running": {},
        "learning": None,
        "detectors": [],
    }
    if now is None:
        shown["learning"] = learning(_watch(config, store, subject, None).learning)
        shown["detectors"] = while_learning(shown["learning"])
        return shown
    shown["waiting"] = [v for v in shown["waiting"] if v != now.version]
    panel, anew = _panel(config, store, subject, now)
    shown["budget"] |= {"spent": None if anew else panel.account.alarms, "detectors": _detectors(panel)}
    shown["not_running"] = panel.off
    shown["learnt"] = learnt(panel)
    cause = f"detector:{subject}:"
    stopped = {i.cause.removeprefix(cause) for i in store.open_incidents() if i.cause.startswith(cause)}
    shown["detectors"] = with_reference(panel, 0 if counted is None else counted.predictions, stopped)
    return shown


def _panel(config: Config, store: StateStore, subject: str, version: StoredReference) -> tuple[Panel, bool]:
    """The detectors as the daemon has them with this version; True when the account starts anew with it."""
    from monitor.panel import ACCOUNT

    pages = store.load_pages(subject, damaged=[])
    watch = _watch(config, store, subject, version)
    assert watch.panel is not None
    restored = watch.restore(pages)
    known = any(page.detector == ACCOUNT for page in pages)
    return watch.panel, known and bool(restored.anew)


def _watch(config: Config, store: StateStore, subject: str, version: StoredReference | None) -> Watch:
    """The model with this reference and nothing seen; without one, with what it has learnt for its own."""
    from monitor.assembly import watch_settings
    from monitor.references import TRAINING, origin_of, rows_of
    from monitor.watch import Watch

    tenant, _, model = subject.removeprefix("model:").rpartition("/")
    watch = Watch(subject, model, tenant, watch_settings(config.model_settings(model, tenant), config.detectors))
    if version is None:
        watch.restore(store.load_pages(subject, damaged=[]))
    else:
        trained = [r.reference for r in store.references(subject) if r.reference.role == TRAINING]
        watch.training = rows_of(trained[-1]) if trained else ()
        watch.use(watch.prepare(rows_of(version.reference), origin_of(version.reference)))
    return watch


def _reference(version: StoredReference) -> dict[str, Any]:
    from alerts.times import rfc3339_or_none

    row = version.reference
    return {
        "version": version.version,
        "approved": row.approved_at is not None,
        "approved_at": rfc3339_or_none(row.approved_at),
        "approved_by": row.approved_by,
        "origin": row.origin,
        "rows": row.meta.get("rows"),
        "content_hash": row.content_hash,
        "created_at": rfc3339_or_none(row.created_at),
    }


def _detectors(panel: Panel) -> list[dict[str, Any]]:
    members = panel.account.members()
    whole = sum(share for _, share in members.values())
    return [
        {
            "detector": name,
            "share": share / whole if whole else 0.0,
            "streams": dict(sorted(Counter(stream.kind for stream in streams).items())),
        }
        for name, (streams, share) in members.items()
    ]


def _print(found: dict[str, Any]) -> None:
    name = f"{found['model']} of tenant {found['tenant']}" if found["tenant"] else found["model"]
    print_line(f"{name}: {found['state'] or 'no event yet'}")
    reference, budget = found["reference"], found["budget"]
    if reference is None:
        print_line(
            "Reference: none yet; its first events become a provisional one, or give it one in the configuration."
        )
        _print_detectors(found["detectors"])
        return
    how = f"approved by {reference['approved_by']} {when(reference['approved_at'])}"
    how = how if reference["approved"] else "provisional: reference approve puts it in force for good"
    print_line(f"Reference: version {reference['version']}, {reference['rows']:,} rows, {reference['origin']}, {how}")
    if found["next"] is not None:
        from monitor.in_use import WHEN

        print_line(f"Version {found['next']} is approved: {WHEN}")
    if found["waiting"]:
        print_line(f"Waiting for approval: version {', '.join(map(str, found['waiting']))}")
    spent = (
        "the account starts anew when the daemon starts next"
        if budget["spent"] is None
        else (f"{budget['spent']:,} alarms, true or false, since this reference and these settings are in force")
    )
    print_line(f"Budget: {budget['alarms']:g} false alarms in {budget['per']}; {spent}")
    rows = (
        (d["detector"], f"{d['share']:.0%}", sum(d["streams"].values()),
         ", ".join(f"{kind} {n:,}" for kind, n in d["streams"].items()))
        for d in budget["detectors"]
    )  # fmt: skip
    print_table("Detectors", ("detector", "share of budget", "#streams", "by kind"), rows)
    if found["learnt"]:
        print_learnt(found["learnt"])
    _print_detectors(found["detectors"])


def _print_detectors(detectors: list[dict[str, Any]]) -> None:
    rows = (
        (d["detector"], "on" if d["runs"] else "off", d["can_page"], d["from"] or "", d["reason"]) for d in detectors
    )
    print_table("What can page", ("detector", "state", "can page", "from about", "reason"), rows)
