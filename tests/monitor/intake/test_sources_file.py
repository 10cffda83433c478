"""Files as a source: compression, long lines, damage."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.intake.events import Record
from monitor.intake.sources.base import SourceError, SourceTopic, TopicPartition
from monitor.intake.sources.file import FileSource


def start(source: FileSource, **at: int) -> FileSource:
    source.own({tp: at.get(f"p{tp.partition}", 0) for tp in source.discover()})
    return source


def read_all(source: FileSource, max_records: int = 1000, records: list[Record] | None = None) -> list[Record]:
    """All records to the end; `records` has them too when an error is raised."""
    records = [] if records is None else records
    while True:
        polled = source.poll(0, max_records)
        for _, found in polled.records:
            records += found
        if polled.finished:
            return records


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_files_are_read_in_order_each_to_its_end(tmp_path: Path) -> None:
    paths = [write(tmp_path / "b.jsonl", b"b0\nb1\n"), write(tmp_path / "a.jsonl.gz", b"a0\na1\na2")]
    source = start(FileSource(paths, "events"))
    found = read_all(source, max_records=2)
    assert [(r.topic, r.partition, r.offset, r.value) for r in found] == [
        ("events", 0, 0, b"b0"),
        ("events", 0, 1, b"b1"),
        ("events", 1, 0, b"a0"),
        ("events", 1, 1, b"a1"),
        ("events", 1, 2, b"a2"),
    ]
    assert {(r.timestamp, r.key, tuple(r.headers)) for r in found} == {(None, None, ())}
    assert source.lag() == {TopicPartition("events", 0): 0, TopicPartition("events", 1): 0}
    read, size = source.progress
    assert read == size == sum(path.stat().st_size for path in paths)


def test_a_poll_runs_over_the_end_of_a_file(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.jsonl", b"x\n" * 3) for i in range(3)]
    polled = start(FileSource(paths)).poll(0, 8)
    assert [(tp.partition, len(records)) for tp, records in polled.records] == [(0, 3), (1, 3), (2, 2)]
    assert not polled.finished


def test_finished_comes_with_the_end_and_not_in_a_pause(tmp_path: Path) -> None:
    source = start(FileSource([write(tmp_path / "a.jsonl", b"x\n")]))
    source.pause()
    assert not source.poll(0, 10).finished
    source.resume()
    assert source.poll(0, 10).finished
    assert source.poll(0, 10).finished


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_an_empty_file_has_no_records(tmp_path: Path, name: str) -> None:
    assert read_all(start(FileSource([write(tmp_path / name, b"")]))) == []


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("length", [9, 10, 11, 12, 13, 14, 200_000])
def test_a_line_over_the_cap_is_cut_to_one_byte_more(tmp_path: Path, length: int, mark: bytes, end: bytes) -> None:
    line = bytes(48 + i % 10 for i in range(length))
    path = write(tmp_path / "a.jsonl", mark + line + end + (b"next" + end if end else b""))
    values = [r.value for r in read_all(start(FileSource([path], record_bytes=10)))]
    assert values == [line[:11], *([b"next"] if end else [])]


def test_a_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(64):
            file.write(b"x" * 1_000_000)
        file.write(b"\n{}\n")
    tracemalloc.start()
    try:
        values = [r.value for r in read_all(start(FileSource([path], record_bytes=1000)))]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert values == [b"x" * 1001, b"{}"]
    assert peak < 4_000_000


@pytest.mark.parametrize("max_records", [1, 3, 1000])
def test_a_truncated_gzip_file_is_named_after_its_good_lines(tmp_path: Path, max_records: int) -> None:
    data = b"".join(b'{"n": %d}\n' % (i * 7919) for i in range(2000))
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(data)[:-2000])
    source = start(FileSource([path]))
    found: list[Record] = []
    with pytest.raises(SourceError) as caught:
        read_all(source, max_records, found)
    assert 0 < len(found) < 2000
    assert [r.value for r in found] == data.split(b"\n")[: len(found)]
    assert f"{path}, line {len(found) + 1}: the compressed data ends early" in str(caught.value)
    with pytest.raises(SourceError):
        source.poll(0, 1)


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(bytes(range(256)) * 2000))
    data[400:420] = b"\xff" * 20
    path = tmp_path / "damaged.gz"
    path.write_bytes(bytes(data))
    with pytest.raises(SourceError, match=r"damaged.gz, line \d+: "):
        read_all(start(FileSource([path])))


def test_what_a_file_begins_with_says_whether_it_is_packed_not_its_name(tmp_path: Path) -> None:
    for name, content in (("packed.jsonl", gzip.compress(b"a\nb\n")), ("plain.gz", b"a\nb\n")):
        path = tmp_path / name
        path.write_bytes(content)
        assert [r.value for r in read_all(start(FileSource([path])))] == [b"a", b"b"]


def test_paths_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.jsonl does not exist"):
        FileSource([write(tmp_path / "a.jsonl", b"x"), tmp_path / "none.jsonl"])
    with pytest.raises(SourceError, match="is a directory"):
        FileSource([tmp_path])


def test_reading_goes_on_at_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", b"0\n1\n2\n3\n")
    source = start(FileSource([path]), p0=2)
    assert [(r.offset, r.value) for r in read_all(source)] == [(2, b"2"), (3, b"3")]


def test_a_file_that_became_shorter_is_not_the_same_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"0\n1\n")
    assert read_all(start(FileSource([path]), p0=2)) == []
    with pytest.raises(SourceError, match=r"a\.jsonl has only 2 lines, but 3 were read"):
        start(FileSource([path]), p0=3).poll(0, 1)


def test_the_name_of_the_cluster_is_that_of_the_files(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", b""), write(tmp_path / "b", b"")
    assert FileSource([a, b]).cluster_id() == FileSource([a, b], SourceTopic("other")).cluster_id()
    assert FileSource([a, b]).cluster_id() != FileSource([b, a]).cluster_id()


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line and b"\r" not in line), max_size=20))
def test_any_lines_come_as_they_are(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl.gz"
    write(path, b"".join(line + b"\n" for line in lines))
    want = [line.removeprefix(b"\xef\xbb\xbf") if i == 0 else line for i, line in enumerate(lines)]
    found = read_all(start(FileSource([path])))
    assert [r.value for r in found] == want
    assert [r.offset for r in found] == list(range(len(lines)))
