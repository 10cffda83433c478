"""Rows of CSV and Parquet files as the JSON lines that a format reads.

Columns named like fields of a native event (`prediction`, `model_version`, `ts`, …) are those fields, `score.NAME` or
`scores.NAME` is the score of a class, every other column is a feature (`features.NAME` too). A column of a CSV file
holds numbers when nearly all its cells do; an empty cell is missing.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from monitor.intake.packed import unpacked

_NUMERIC: Final = 0.95
"""Least share of a column's cells that must be numbers for the column to be numeric."""
_FIELDS: Final = frozenset(
    {
        "type", "event_id", "ts", "model", "model_version", "client", "prediction", "label", "latency_ms", "request_id",
        "trace_id", "tenant", "sample_weight", "role", "segment", "source_ip", "features", "input", "scores",
    }
)  # fmt: skip
_SUFFIXES: Final = (".csv", ".csv.gz", ".parquet")


class TableError(ValueError):
    """A file that cannot be read as a table. The text says why, and what mends it."""


def is_table(path: Path) -> bool:
    """Whether the name says CSV or Parquet."""
    return path.name.lower().endswith(_SUFFIXES)


def table_lines(path: Path, most: int) -> Iterator[bytes]:
    """One JSON object a row, at most `most`, in the order of the file. TableError when it cannot be read."""
    parquet = path.name.lower().endswith(".parquet")
    for row in _parquet(path, most) if parquet else _csv(path, most):
        yield json.dumps(_event(row), default=str).encode()


def _csv(path: Path, most: int) -> Iterator[dict[str, Any]]:
    try:
        with (
            path.open("rb") as file,
            io.TextIOWrapper(unpacked(file), "utf-8-sig", newline="") as text,
        ):
            reader = csv.reader(text, strict=True)
            header = next(reader, [])
            _check_header(path, header)
            rows = list(islice((row for row in reader if row), most))
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: this is not UTF-8 text; save it as UTF-8") from error
    except csv.Error as error:
        raise TableError(f"{path}: this is not valid CSV ({error})") from error
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise TableError(f"{path}: row {number} has {len(row)} cells, the header has {len(header)}")
    numeric = [_is_numeric([row[j] for row in rows]) for j in range(len(header))]
    for row in rows:
        yield {name: _cell(row[j], numeric[j]) for j, name in enumerate(header)}


def _check_header(path: Path, header: Sequence[str]) -> None:
    if not header or not all(header):
        raise TableError(f"{path}: the first row must name every column")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise TableError(f"{path}: the column {twice[0]} is there twice")


def _is_numeric(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return bool(filled) and sum(_number(cell) is not None for cell in filled) >= _NUMERIC * len(filled)


def _number(cell: str) -> float | None:
    try:
        return float(cell) if "_" not in cell else None
    except ValueError:
        return None


def _cell(cell: str, numeric: bool) -> Any:
    """A number of a numeric column; text there stays text, which then counts as of the wrong type."""
    if not cell:
        return None
    number = _number(cell) if numeric else None
    return cell if number is None else number


def _parquet(path: Path, most: int) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise TableError(f"{path}: Parquet needs the extra `parquet`: pip install 'modelwarden[parquet]'") from None
    try:
        with pq.ParquetFile(path) as file:
            left = most
            for batch in file.iter_batches(batch_size=1_024):
                yield from batch.slice(0, left).to_pylist()
                left -= batch.num_rows
                if left <= 0:
                    return
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path}: this Parquet file cannot be read ({error})") from error


def _event(row: Mapping[str, Any]) -> dict[str, Any]:
    """The native event of a row."""
    event: dict[str, Any] = {}
    features: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    for name, value in row.items():
        kind, _, rest = name.partition(".")
        if name in _FIELDS:
            if value is not None:
                event[name] = _plain(value)
        elif kind in ("score", "scores") and rest:
            scores[rest] = _plain(value)
        else:
            features[rest if kind == "features" and rest else name] = _plain(value)
    if features:
        own = event.get("features")
        event["features"] = {**own, **features} if isinstance(own, dict) else features
    if scores:
        event["scores"] = scores
    answer = event.get("prediction")
    if isinstance(answer, float) and answer.is_integer() and abs(answer) < 1e15:
        event["prediction"] = int(answer)  # a class written 1 is the class 1, not 1.0
    return event


def _plain(value: Any) -> Any:
    """As JSON can say it: text where a number stood that is none, so that it stays not-a-number."""
    if isinstance(value, dict):
        return {str(name): _plain(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN"
    if isinstance(value, bytes):
        return value.hex()
    return value
