"""Files of JSON lines as a source: a partition is a file, an offset a line counted from 0."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from monitor.intake.events import Record
from monitor.intake.packed import unpacked
from monitor.intake.sources.base import Polled, SourceError, SourceTopic, TopicPartition

RECORD_BYTES = 256 * 1024
_SKIP_BYTES = 64 * 1024
STDIN = Path("-")
_BOM = b"\xef\xbb\xbf"


class FileSource:
    """Reads files, plain or packed (gzip, whatever their names), one after the other (see Source).

    They come in the order given; "-" is standard input, once.

    `topic` is the name that all files go by, or the topic itself; its `start` does not matter, files are read from
    their beginning. A line longer than `record_bytes` is cut to one byte more than that, so that the format refuses
    it without its full length ever being in memory. Lines without text are records too: an offset is a line number.
    SourceError names file and line when one cannot be read.
    """

    def __init__(
        self, paths: Sequence[str | Path], topic: str | SourceTopic = "events", record_bytes: int = RECORD_BYTES
    ) -> None:
        self._paths = [Path(path) for path in paths]
        self._topic = topic if isinstance(topic, str) else topic.name
        self._cap = record_bytes
        self._next: dict[TopicPartition, int] = {}
        self._done: set[TopicPartition] = set()
        self._reader: _Lines | None = None
        self._reading: TopicPartition | None = None
        self._failed: SourceError | None = None
        self._read_bytes = 0
        self._paused = False
        self._closed = False
        if self._paths.count(STDIN) > 1:
            raise SourceError("standard input is named twice. Name - once")
        for path in self._paths:
            if path == STDIN:
                continue
            if path.is_dir() or not os.access(path, os.R_OK):
                why = "is a directory" if path.is_dir() else "cannot be read" if path.exists() else "does not exist"
                raise SourceError(f"{path} {why}. Check path and permissions")

    @property
    def condition(self) -> str | None:
        return None

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes read and bytes in all, of the files as they lie on disk; the second is 0 when that is not known."""
        sizes = [path.stat().st_size if path.is_file() else 0 for path in self._paths]
        now = self._reader.tell() if self._reader is not None else 0
        return self._read_bytes + now, 0 if 0 in sizes else sum(sizes)

    def cluster_id(self) -> str:
        """A name made of the files' paths."""
        names = "\0".join(str(path.resolve()) for path in self._paths)
        return "files-" + hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()[:16]

    def discover(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, i) for i in range(len(self._paths))]

    def resolve_start(self, tp: TopicPartition, first_start: bool) -> int:
        return 0

    def own(self, positions: Mapping[TopicPartition, int]) -> None:
        wanted = {TopicPartition(*tp): offset for tp, offset in positions.items()}
        unknown = wanted.keys() - set(self.discover())
        if unknown:
            raise ValueError(f"{min(unknown)} is not a partition of this source")
        moved = {tp for tp, offset in wanted.items() if self._next.get(tp) != offset}
        self._done = {tp for tp in self._done if tp in wanted} - moved
        if self._reading is not None and (self._reading in moved or self._reading not in wanted):
            self._leave()
        self._next = dict(sorted(wanted.items()))
        self._failed = None

    def poll(self, timeout: float, max_records: int) -> Polled:
        """Never waits: what is on disk is there."""
        if self._closed:
            raise SourceError("the source is closed")
        if self._paused:
            return Polled()
        taken: list[tuple[TopicPartition, list[Record]]] = []
        while max_records > 0 and self._failed is None:
            tp = next((tp for tp in self._next if tp not in self._done), None)
            if tp is None:
                break
            records = self._take(tp, max_records)
            if records:
                taken.append((tp, records))
                max_records -= len(records)
        if self._failed is not None and not taken:
            raise self._failed
        return Polled(taken, finished=self._failed is None and bool(self._next) and self._done >= self._next.keys())

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def lag(self) -> dict[TopicPartition, int]:
        """0 for a file that is read to its end, else 1: how many lines are left is not known without reading them."""
        return {tp: 0 if tp in self._done else 1 for tp in self._next}

    def hint(self, positions: Mapping[TopicPartition, int]) -> None:
        """Nobody is told."""

    def close(self) -> None:
        self._closed = True
        self._leave()

    def _take(self, tp: TopicPartition, count: int) -> list[Record]:
        """Lines of one file; an error is kept until the lines before it are handed out."""
        records: list[Record] = []
        try:
            reader = self._reader_of(tp)
            while len(records) < count:
                line = reader.next()
                if line is None:
                    self._done.add(tp)
                    self._leave()
                    break
                records.append(Record(tp.topic, tp.partition, self._next[tp] + len(records), None, None, line))
        except SourceError as error:
            self._failed = error
            self._leave()
        self._next[tp] += len(records)
        return records

    def _reader_of(self, tp: TopicPartition) -> _Lines:
        if self._reader is None or self._reading != tp:
            self._leave()
            self._reader, self._reading = _Lines(self._paths[tp.partition], self._cap), tp
            self._reader.skip(self._next[tp])
        return self._reader

    def _leave(self) -> None:
        if self._reader is not None:
            self._read_bytes += self._reader.tell()
            self._reader.close()
        self._reader = self._reading = None


class _Lines:
    """The lines of one file without their ends, each at most `cap` + 1 bytes."""

    def __init__(self, path: Path, cap: int) -> None:
        self._path = path
        self._cap = cap
        self._line = 0
        self._raw: IO[bytes] | None = None
        try:
            self._raw = sys.stdin.buffer if path == STDIN else path.open("rb")
            self._text: IO[bytes] | gzip.GzipFile = unpacked(self._raw)
        except OSError as error:
            raise self._error(error) from error

    def next(self) -> bytes | None:
        """The next line; None after the last."""
        try:
            # one byte over the cap, the two of a line end, and the mark that may begin a file
            limit = self._cap + 3 + (len(_BOM) if self._line == 0 else 0)
            line = self._text.readline(limit)
            if len(line) == limit and not line.endswith(b"\n"):
                while (rest := self._text.readline(_SKIP_BYTES)) and not rest.endswith(b"\n"):
                    pass
        except (OSError, EOFError, zlib.error) as error:
            raise self._error(error) from error
        if not line:
            return None
        if self._line == 0:
            line = line.removeprefix(_BOM)
        self._line += 1
        text = line[:-2] if line.endswith(b"\r\n") else line.removesuffix(b"\n")
        return text[: self._cap + 1]

    def skip(self, count: int) -> None:
        """Go on after `count` lines. SourceError if there are fewer: it is not the file that it was."""
        for _ in range(count):
            if self.next() is None:
                self.close()
                raise SourceError(
                    f"{self._path} has only {self._line} lines, but {count} were read of it before. Give the same file"
                )

    def tell(self) -> int:
        """Bytes read of the file as it lies on disk."""
        if self._raw is None or self._raw.closed or not self._raw.seekable():
            return 0
        return self._raw.tell()

    def close(self) -> None:
        if self._path == STDIN:
            return
        self._text.close()
        if self._raw is not None:
            self._raw.close()

    def _error(self, error: Exception) -> SourceError:
        reason = "the compressed data ends early" if isinstance(error, EOFError) else str(error)
        if self._raw is not None and self._path != STDIN:
            self._raw.close()
        return SourceError(f"{self._path}, line {self._line + 1}: {reason}. Repair or replace the file")
