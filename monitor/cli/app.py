"""The commands in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from monitor.cli.audit_verify import audit_verify
from monitor.cli.backtest import backtest
from monitor.cli.bench import bench
from monitor.cli.check_config import check_config
from monitor.cli.clients_show import clients_show
from monitor.cli.demo import demo
from monitor.cli.doctor import doctor
from monitor.cli.erase import erase
from monitor.cli.export_deploy import export_grafana, export_prometheus, export_systemd
from monitor.cli.export_runbook import export_runbook
from monitor.cli.export_schema import export_schema
from monitor.cli.failures import guarded
from monitor.cli.healthcheck import healthcheck
from monitor.cli.incidents_ack import incidents_ack
from monitor.cli.incidents_list import incidents_list
from monitor.cli.incidents_resolve import incidents_resolve
from monitor.cli.incidents_show import incidents_show
from monitor.cli.incidents_silence import incidents_silence
from monitor.cli.init import init
from monitor.cli.migrate import migrate
from monitor.cli.reference_approve import reference_approve
from monitor.cli.reference_build import reference_build
from monitor.cli.reference_list import reference_list
from monitor.cli.reference_show import reference_show
from monitor.cli.run import run
from monitor.cli.send_test_alert import send_test_alert
from monitor.cli.status import status
from monitor.cli.version import print_version, version

_STYLE: dict[str, Any] = {"no_args_is_help": True, "rich_markup_mode": None, "pretty_exceptions_enable": False}
app = typer.Typer(name="modelwarden", add_completion=True, **_STYLE)
incidents = typer.Typer(help="See what is wrong, and say that it was seen.", **_STYLE)
clients = typer.Typer(help="See who queries a model.", **_STYLE)
reference = typer.Typer(help="What models are judged against.", **_STYLE)
audit = typer.Typer(help="Who did what.", **_STYLE)
export = typer.Typer(help="Print what other programs read.", **_STYLE)


@app.callback()
def modelwarden(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_version, help="Print the version.")
    ] = False,
) -> None:
    """Watches over machine-learning models in production, from their Kafka logs."""


def _add(group: typer.Typer, name: str, command: Callable[..., None]) -> None:
    group.command(name)(guarded(command))


_add(app, "run", run)
_add(app, "demo", demo)
_add(app, "backtest", backtest)
_add(app, "bench", bench)
_add(app, "status", status)
app.add_typer(incidents, name="incidents")
_add(incidents, "list", incidents_list)
_add(incidents, "show", incidents_show)
_add(incidents, "ack", incidents_ack)
_add(incidents, "resolve", incidents_resolve)
_add(incidents, "silence", incidents_silence)
app.add_typer(clients, name="clients")
_add(clients, "show", clients_show)
app.add_typer(reference, name="reference")
_add(reference, "list", reference_list)
_add(reference, "show", reference_show)
_add(reference, "approve", reference_approve)
_add(reference, "build", reference_build)
_add(app, "erase", erase)
app.add_typer(audit, name="audit")
_add(audit, "verify", audit_verify)
_add(app, "init", init)
_add(app, "check-config", check_config)
_add(app, "doctor", doctor)
_add(app, "send-test-alert", send_test_alert)
app.add_typer(export, name="export")
_add(export, "schema", export_schema)
_add(export, "runbook", export_runbook)
_add(export, "grafana", export_grafana)
_add(export, "prometheus", export_prometheus)
_add(export, "systemd", export_systemd)
_add(app, "migrate", migrate)
_add(app, "healthcheck", healthcheck)
_add(app, "version", version)
