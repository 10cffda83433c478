"""`modelwarden reference build`: check a file of rows and write it as a reference."""

from __future__ import annotations

import gzip
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from monitor.cli.failures import CommandError, say
from monitor.cli.options import ConfigFile, Output, OutputFormat, read_config
from monitor.cli.output import print_json, print_line, print_table
from monitor.cli.reference_role import Role, key_of, rows_for, span_of

if TYPE_CHECKING:
    from detectors.reference import Reference
    from monitor.intake.events import Event


_DAY: Final = 86_400.0


def reference_build(
    model: Annotated[str, typer.Option(help="Name of the model.")],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Predictions as JSON lines or CSV (plain or .gz), or Parquet."),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Take a stretch of this topic instead of a file.")] = None,
    begin: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Where the stretch begins; default a day ago.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Where it ends; default now.")] = None,
    role: Annotated[
        Role | None,
        typer.Option(
            help="target: what the data should be, in no order; noise: live events with times, whose order shows how "
            "honest traffic varies; training: rows the model was trained on. Default: a target that keeps its times."
        ),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Its tenant.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the reference here; new, or .gz.")] = None,
    config: ConfigFile = None,
    output: OutputFormat = Output.TABLE,
) -> None:
    """Check rows of a file or a topic, show what a reference made of them would hold, and write it with --out.

    What is written has features, answers, labels and times only: no client, no id. A configuration that is there
    gives the model its features and classes.
    """
    settings = read_config(config)
    if (file is None) == (topic is None):
        raise typer.BadParameter("Give either FILE or --topic.")
    if topic is None and (begin is not None or end is not None):
        raise typer.BadParameter("--from and --to belong to --topic.")
    if topic is not None and role is Role.TRAINING:
        raise typer.BadParameter("Training rows come from a FILE: a topic holds what the model was asked.")
    if out is not None and out.exists():
        raise CommandError(f"{out} exists already: name a new file")
    from monitor.assembly import reference_rules, watch_settings
    from monitor.config import Config
    from monitor.intake.formats.base import formats
    from monitor.references import MAX_ROWS, read_reference
    from monitor.watch import Watch

    settings = settings or Config()
    with _progress(MAX_ROWS) as progress:
        if file is not None:
            rows = read_reference(file, formats()["native"], reference_rules(settings), progress)
        else:
            from monitor.topic_rows import topic_rows

            now = time.time()
            span = now - _DAY if begin is None else _time("--from", begin), now if end is None else _time("--to", end)
            rows = topic_rows(settings, str(topic), model, tenant, *span, progress)
    rows = rows_for(role, rows, str(file or f"topic {topic}"))
    entry = settings.model_settings(model, tenant)
    watch = Watch(f"model:{tenant}/{model}", model, tenant, watch_settings(entry, settings.detectors))
    reference = watch.prepare(rows, entry.reference_is).reference
    if len(rows) >= MAX_ROWS:
        say(f"{file or topic}: the first {MAX_ROWS:,} rows are taken; more teach nothing new")
    if out is not None:
        _write(out, rows)
    summary: dict[str, Any] = {"model": model, "role": str(role or Role.TARGET)}
    summary |= {"rows": len(reference), "content_hash": reference.version}
    summary |= {"out": None if out is None else str(out), "fields": list(_fields(reference))}
    summary |= span_of(rows)
    if output is Output.JSON:
        print_json(summary)
    else:
        _print(str(file or f"topic {topic}"), summary, key_of(role, model))


@contextmanager
def _progress(most: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading rows", total=most)
        yield lambda rows: bar.update(task, completed=rows)


def _time(option: str, text: str) -> float:
    """Epoch seconds of an RFC 3339 time."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("Write it as 2026-11-20T08:00:00Z.", param_hint=option) from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def _print(file: str, summary: dict[str, Any], key: str) -> None:
    print_line(f"{file}: {summary['rows']:,} rows, {len(summary['fields'])} columns, content {summary['content_hash']}")
    if summary["teaches"] is not None:
        span = f"{summary['from']} to {summary['to']}, {summary['rows_per_day']:,} rows a day"
        print_line(f"Its order teaches {summary['teaches']} ({span})")
    columns = ("column", "role", "kind", "missing", "unusable", "#values")
    shares = ((f"{f['missing']:.1%}", f"{f['unusable']:.1%}") for f in summary["fields"])
    cells = zip(summary["fields"], shares, strict=True)
    print_table("", columns, ((f["name"], f["role"], f["kind"], *share, f["values"]) for f, share in cells))
    if summary["out"] is not None:
        print_line(f"{summary['out']} written; name it under {key}")


def _fields(reference: Reference) -> Iterator[dict[str, Any]]:
    """Every column with its kind, and the shares of rows whose value is missing or not of that kind."""
    import numpy as np

    from detectors.base import ABSENT_CODE, MISTYPED_CODE, NULL_CODE, Cell

    rows, n = reference.rows, max(len(reference), 1)
    for role, table in (("input", rows.numeric), ("output", rows.outputs_numeric)):
        for j, name in enumerate(table.names):
            status = table.status[:, j]
            missing = int(np.isin(status, (Cell.NULL, Cell.ABSENT)).sum())
            wrong = int((status != Cell.VALID).sum()) - missing
            values = len(np.unique(table.values[status == Cell.VALID, j]))
            yield _field(name, role, "numeric", missing / n, wrong / n, values)
    for role, column in (("input", rows.category), ("output", rows.outputs_category)):
        for j, name in enumerate(column.names):
            missing = int(np.isin(column.codes[:, j], (NULL_CODE, ABSENT_CODE)).sum())
            wrong = int((column.codes[:, j] == MISTYPED_CODE).sum())
            yield _field(name, role, "categorical", missing / n, wrong / n, len(column.vocabulary[j]))


def _field(name: str, role: str, kind: str, missing: float, wrong: float, values: int) -> dict[str, Any]:
    shares = {"missing": round(missing, 6), "unusable": round(wrong, 6)}
    return {"name": name, "role": role, "kind": kind, **shares, "values": values}


def _write(out: Path, rows: Iterable[Event]) -> None:
    """All rows or no file, in a directory that is made where it is missing; the same rows give the same bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with draft.open("xb") as file:
            if out.suffix == ".gz":
                with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                    packed.writelines(map(_line, rows))
            else:
                file.writelines(map(_line, rows))
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, out)  # fails where somebody made the file meanwhile
    except FileExistsError:
        raise CommandError(f"{out} exists already: name a new file") from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _line(event: Event) -> bytes:
    from monitor.references import ANY_TIME

    fields: dict[str, Any] = {"model_version": event.model_version, "features": event.features, "input": event.vector}
    fields |= {"prediction": event.prediction, "scores": event.scores, "label": event.label, "segment": event.segment}
    fields["ts"] = None if event.time == ANY_TIME else event.time
    row = {name: _plain(value) for name, value in fields.items() if value is not None}
    return json.dumps(row, allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    """As JSON can say it: text where a number stood that is none, so that it stays not-a-number."""
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN"
    return value
