"""CSV and Parquet files as references: what becomes a feature, what of the wrong type stays so, what is refused."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

from monitor.config import Config
from monitor.intake.events import Event
from monitor.intake.formats.base import formats
from monitor.references import ReferenceFileError, read_reference
from monitor.tabular import table_lines


def read(path: Path) -> list[Event]:
    from monitor.assembly import reference_rules

    return read_reference(path, formats()["native"], reference_rules(Config()))


def test_columns_become_features_scores_and_fields(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    text = 'income,region,score.yes,prediction,client\n1.5,EU,0.8,yes,acme\n,"a, b",0.2,no,bolt\n'
    path.write_text(text, encoding="utf-8-sig")
    first, second = read(path)
    assert first.features == {"income": 1.5, "region": "EU"}
    assert (first.prediction, first.client) == ("yes", None)
    assert second.features == {"income": None, "region": "a, b"}
    packed = tmp_path / "rows.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [e.features for e in read(packed)] == [e.features for e in (first, second)]
    assert [e.features for e in read(packed.rename(path))] == [e.features for e in (first, second)]


def test_text_in_a_column_of_numbers_stays_of_the_wrong_type(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("age,code\n" + "41,7\n" * 99 + "old,x7\n" + "1,a\n" * 10, encoding="utf-8")
    rows = [json.loads(line)["features"] for line in table_lines(path, 1_000)]
    assert rows[0] == {"age": 41.0, "code": "7"}  # too many codes are no numbers: all are text
    assert rows[99]["age"] == "old"
    assert len(list(table_lines(path, 5))) == 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "must name every column"),
        (b"a,a\n1,2\n", "column a is there twice"),
        (b"a,b\n1\n", "row 1 has 1 cells, the header has 2"),
        (b"a\n\xff\n", "not UTF-8"),
        (b'a\n"1\n', "not valid CSV"),
        (b"a\n", "no prediction rows"),
    ],
)
def test_bad_csv_is_refused_in_a_sentence(tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(text)
    with pytest.raises(ReferenceFileError, match=reason):
        read(path)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ReferenceFileError, match=r"modelwarden\[parquet\]"):
        read(tmp_path / "rows.parquet")


def test_parquet_gives_the_rows_of_the_same_csv(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = {"income": [1.5, None, float("nan")], "region": ["EU", "US", "EU"], "prediction": [1, 0, 1]}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("income,region,prediction\n1.5,EU,1\n,US,0\nnan,EU,1\n", encoding="utf-8")
    parquet, plain = read(tmp_path / "rows.parquet"), read(tmp_path / "rows.csv")
    assert [(e.features, e.prediction) for e in parquet] == [(e.features, e.prediction) for e in plain]
    assert len(list(table_lines(tmp_path / "rows.parquet", 2))) == 2
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(ReferenceFileError, match="cannot be read"):
        read(tmp_path / "bad.parquet")
