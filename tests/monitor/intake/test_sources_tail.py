"""Files that grow while they are read: unfinished lines, rotation, truncation."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path

import pytest

from monitor.intake.sources.base import Loss, SourceError, TopicPartition
from monitor.intake.sources.tail import TailSource

TP = TopicPartition("events", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.jsonl").write_bytes(b"")
    return tmp_path / "a.jsonl"


def add(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def start(path: Path, offset: int = 0, cap: int = 100) -> TailSource:
    source = TailSource([path], record_bytes=cap)
    source.own({TP: offset})
    return source


def take(source: TailSource, count: int = 1000) -> list[tuple[int, bytes | None]]:
    return [(r.offset, r.value) for _, records in source.poll(0, count).records for r in records]


def test_a_line_without_its_end_waits(path: Path) -> None:
    source = start(path)
    add(path, b"\xef\xbb\xbfone\r\n\ntw")
    assert take(source) == [(0, b"one"), (1, b"")]
    assert take(source) == []
    add(path, b"o")
    assert take(source) == []
    add(path, b"\nthree\n")
    assert take(source) == [(2, b"two"), (3, b"three")]
    assert source.lag() == {TP: 0}
    assert not source.poll(0, 1).finished


@pytest.mark.parametrize("count", [1, 1000])
def test_a_rotated_file_is_read_to_its_end_first(path: Path, count: int) -> None:
    source = start(path)
    add(path, b"one\n")
    assert take(source) == [(0, b"one")]
    old = path.rename(path.with_suffix(".1"))
    assert take(source) == [] and "a.jsonl does not exist" in str(source.condition)
    path.touch()
    add(old, b"two\nthr")  # the writer has not noticed
    assert take(source) == [(1, b"two")] and source.condition is None
    add(old, b"ee")
    add(path, b"four\nfive\n")
    read = [line for _ in range(4) for line in take(source, count)]
    assert read == [(2, b"three"), (3, b"four"), (4, b"five")]


def test_an_emptied_file_is_read_from_its_beginning(path: Path) -> None:
    source = start(path)
    add(path, b"one\ntwo\nunfinis")
    assert len(take(source)) == 2
    path.write_bytes(b"x\n")
    assert take(source) == [(2, b"x")]
    path.write_bytes(b"written anew, and longer than it was\n")
    assert take(source) == [(3, b"written anew, and longer than it was")]


def test_a_long_line_is_cut_and_its_rest_left_out(path: Path) -> None:
    source = start(path, cap=10)
    for _ in range(5):
        add(path, b"y" * 70_000)
        assert take(source) == []
    add(path, b"\nshort\n")
    assert take(source) == [(0, b"y" * 11), (1, b"short")]


def test_seeking_goes_back_as_far_as_the_file_does(path: Path) -> None:
    source = start(path)
    add(path, b"0\n1\n")
    assert len(take(source)) == 2
    path.rename(path.with_suffix(".1"))
    add(path, b"2\n3\n")
    assert len(take(source)) == 2
    source.own({TP: 3})
    assert take(source) == [(3, b"3")]
    source.own({TP: 0})
    polled = source.poll(0, 10)
    assert polled.losses == [Loss("events", 0, 0, 2, 2, 2)]
    assert [r.offset for _, records in polled.records for r in records] == [2, 3]
    with pytest.raises(SourceError, match="only 2 lines, but 3 were read"):
        start(path, 3).poll(0, 1)


def test_poll_waits_for_a_line(path: Path) -> None:
    source = start(path)
    writer = threading.Timer(0.2, add, (path, b"late\n"))
    writer.start()
    assert [r.value for _, records in source.poll(10, 10).records for r in records] == [b"late"]
    writer.join()


@pytest.mark.parametrize(("name", "reason"), [("-", "cannot be followed"), ("a.jsonl.gz", "cannot be followed")])
def test_what_has_an_end_cannot_be_followed(name: str, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        TailSource([name])


def test_a_packed_file_cannot_be_followed_whatever_its_name(path: Path) -> None:
    path.write_bytes(gzip.compress(b"0\n"))
    with pytest.raises(SourceError, match="cannot be followed"):
        TailSource([path])
