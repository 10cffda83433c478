"""`modelwarden audit verify`: prove that the audit log is whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.cli.failures import FAILURE, say
from monitor.cli.options import ConfigFile, Output, OutputFormat, need_config
from monitor.cli.output import print_json, print_line

if TYPE_CHECKING:
    from monitor.state.audit import AuditHead


def audit_verify(
    head: Annotated[
        str | None, typer.Option(metavar="N:HASH", help="A head printed earlier: the log must still contain it.")
    ] = None,
    config: ConfigFile = None,
    output: OutputFormat = Output.TABLE,
) -> None:
    """Verify the chain of audit rows.

    Finds any row that was changed, removed or added without the identity key. Keep the head that this prints where
    the owner of the database cannot change it, and give it back with --head: rows cut off together with the head in
    the database are found too. Exit 1 when something is wrong.
    """
    expected = None if head is None else _head(head)
    settings = need_config(config)
    from monitor.cli.stored import stored

    with stored(settings) as store:
        check = store.verify_audit(expected)
    shown = f"{check.head.seq}:{check.head.hash}"
    if output is Output.JSON:
        print_json({"ok": check.ok, "rows": check.rows, "head": shown, "problem": check.problem})
    elif check.ok:
        print_line(f"ok: {check.rows:,} rows, head {shown}")
    if not check.ok:
        say(f"The audit log is not whole: {check.problem}. {check.rows:,} rows before it are good.")
        raise typer.Exit(FAILURE)


def _head(text: str) -> AuditHead:
    from monitor.state.audit import AuditHead

    if not re.fullmatch(r"[0-9]{1,18}:[0-9a-f]{64}", text):
        raise typer.BadParameter("A head is a number, a colon and 64 hex digits.", param_hint="--head")
    seq, _, digest = text.partition(":")
    return AuditHead(int(seq), digest)
