"""Files of JSON lines that are still being written: read to their end, and on as they grow.

A file that is moved away and made again (rotated) is read to its end before the new one; one that is emptied or
written anew in place is read from its beginning. Offsets go on counting lines across all of that.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from monitor.intake.events import Record
from monitor.intake.packed import is_packed
from monitor.intake.sources.base import Loss, Polled, SourceError, SourceTopic, TopicPartition
from monitor.intake.sources.file import RECORD_BYTES, STDIN, FileSource

LOOK_SECONDS: Final = 0.1
"""Between looks at files that have nothing new."""
_CHUNK: Final = 64 * 1024
_HEAD: Final = 256
"""Bytes at the beginning of a file that tell whether it was written anew in place."""
_BOM = b"\xef\xbb\xbf"


class TailSource:
    """Follows plain files side by side (see Source); a line without its end waits. It never finishes.

    `topic` and `record_bytes` are as of FileSource. A file must exist at the start, and may be missing for a while
    later, as while it is rotated. What was written to a file that was rotated twice between two polls is not seen.
    """

    def __init__(
        self, paths: Sequence[str | Path], topic: str | SourceTopic = "events", record_bytes: int = RECORD_BYTES
    ) -> None:
        packed = next((p for p in map(Path, paths) if p == STDIN or p.suffix == ".gz" or _is_packed(p)), None)
        if packed is not None:
            raise SourceError(f"{packed} cannot be followed: only plain files grow by lines. Read it without following")
        self._files = FileSource(paths, topic, record_bytes)
        self._paths = [Path(path) for path in paths]
        self._cap = record_bytes
        self._tails: dict[TopicPartition, _Tail] = {}
        self._next: dict[TopicPartition, int] = {}
        self._turn = 0
        self._paused = False
        self._closed = False

    @property
    def condition(self) -> str | None:
        missing = [str(t.path) for t in self._tails.values() if not t.path.exists()]
        return f"{missing[0]} does not exist. It is waited for" if missing else None

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes read, of the files as they are now; there is no all."""
        return sum(tail.position for tail in self._tails.values()), 0

    def cluster_id(self) -> str:
        return self._files.cluster_id()

    def discover(self) -> list[TopicPartition]:
        return self._files.discover()

    def resolve_start(self, tp: TopicPartition, first_start: bool) -> int:
        return 0

    def own(self, positions: Mapping[TopicPartition, int]) -> None:
        wanted = {TopicPartition(*tp): offset for tp, offset in positions.items()}
        unknown = wanted.keys() - set(self.discover())
        if unknown:
            raise ValueError(f"{min(unknown)} is not a partition of this source")
        self._next = dict(sorted(wanted.items()))

    def poll(self, timeout: float, max_records: int) -> Polled:
        if self._closed:
            raise SourceError("the source is closed")
        deadline = time.monotonic() + timeout
        while True:
            polled = Polled() if self._paused else self._look(max_records)
            left = deadline - time.monotonic()
            if polled.records or polled.losses or left <= 0:
                return polled
            time.sleep(min(LOOK_SECONDS, left))

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def lag(self) -> dict[TopicPartition, int]:
        """0 for a file that is read to its end, else 1: how many lines are left is not known without reading them."""
        return {tp: 0 if tp in self._tails and self._tails[tp].all_read() else 1 for tp in self._next}

    def hint(self, positions: Mapping[TopicPartition, int]) -> None:
        """Nobody is told."""

    def close(self) -> None:
        self._closed = True
        for tail in self._tails.values():
            tail.close()

    def _look(self, max_records: int) -> Polled:
        """What the files have now. Each poll begins with the next file, so that a busy one starves no other."""
        polled = Polled()
        order = list(self._next)
        self._turn += 1
        for i in range(len(order)):
            tp = order[(self._turn + i) % len(order)]
            if max_records <= 0:
                break
            loss, lines = self._take(tp, max_records)
            if loss is not None:
                polled.losses.append(loss)
            if lines:
                first = self._next[tp]
                records = [Record(*tp, first + n, None, None, line) for n, line in enumerate(lines)]
                polled.records.append((tp, records))
                self._next[tp] += len(lines)
                max_records -= len(lines)
        return polled

    def _take(self, tp: TopicPartition, count: int) -> tuple[Loss | None, list[bytes]]:
        tail = self._tails.get(tp)
        if tail is None:
            tail = self._tails[tp] = _Tail(self._paths[tp.partition], self._cap)
        due = self._next[tp]
        first = self._next[tp] = tail.seek(due)
        loss = Loss(*tp, due, first, first - due, first) if first != due else None
        return loss, tail.take(count)


def _is_packed(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK) and is_packed(path)


class _Tail:
    """One path. Lines of the files that it named before count on."""

    def __init__(self, path: Path, cap: int) -> None:
        self.path = path
        self.position = 0
        """Bytes read of the file as it is now."""
        self._cap = cap
        self._base = 0
        """Number of the file's first line."""
        self._line = 0
        """Number of the line that `take` hands out next."""
        self._lines: deque[bytes] = deque()
        self._begun = b""
        """A line without its end so far: as much of it as counts."""
        self._at_first = True
        """Whether the line begun is the first of the file."""
        self._head = b""
        self._file: IO[bytes] | None = None

    def take(self, count: int) -> list[bytes]:
        """Up to `count` whole lines."""
        moved = self._moved()  # first: what the writer wrote before it went to the new file is read of the old one
        self._fill(count)
        if moved and len(self._lines) < count:
            if self._file is not None and self._begun and not self._rewritten():
                self._end_line()  # nobody will
            self._base = self._line + len(self._lines)
            self._open()
            self._fill(count)
        taken = [self._lines.popleft() for _ in range(min(count, len(self._lines)))]
        self._line += len(taken)
        return taken

    def seek(self, line: int) -> int:
        """Go to this line, or the first there is; its number. SourceError if the file has not so many."""
        if line < self._line:
            self._lines.clear()
            self._line = self._base
            self._open()
        while self._line < line:
            if not self.take(1):
                raise SourceError(
                    f"{self.path} has only {self._line} lines, but {line} were read of it before. Give the same file"
                )
        return self._line

    def all_read(self) -> bool:
        """Whether no line waits, as far as can be told without reading."""
        size = 0 if self._file is None else os.fstat(self._file.fileno()).st_size
        return not self._lines and self.position >= size and not self._moved()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        """Read what the path names now from its beginning."""
        self.close()
        self.position, self._begun, self._at_first, self._head = 0, b"", True, b""
        try:
            self._file = self.path.open("rb", buffering=0)
        except FileNotFoundError:
            return  # being rotated
        except OSError as error:
            raise SourceError(f"{self.path} cannot be read ({error.strerror}). Check path and permissions") from error

    def _moved(self) -> bool:
        """Whether lines to come are elsewhere: in a new file of this name that holds something, or at the beginning."""
        if self._file is None:
            return self.path.exists()
        if self._rewritten():
            return True
        try:
            named = self.path.stat()
        except OSError:
            return False
        own = os.fstat(self._file.fileno())
        return (named.st_dev, named.st_ino) != (own.st_dev, own.st_ino) and named.st_size > 0

    def _rewritten(self) -> bool:
        """Whether the open file was emptied or written anew."""
        if self._file is None:
            return False
        place = self._file.fileno()
        return os.fstat(place).st_size < self.position or os.pread(place, len(self._head), 0) != self._head

    def _fill(self, count: int) -> None:
        """Read until `count` lines wait, or to the end of the file."""
        while self._file is not None and len(self._lines) < count and not self._rewritten():
            piece = self._file.read(_CHUNK)
            if not piece:
                break
            self._head += piece[: _HEAD - len(self._head)]
            self.position += len(piece)
            first, *others = piece.split(b"\n")
            self._more(first)
            for following in others:
                self._end_line()
                self._more(following)

    def _more(self, text: bytes) -> None:
        """More of the line begun; of a long one only as much as the format needs to refuse it."""
        room = self._cap + 2 + len(_BOM) - len(self._begun)
        if room > 0:
            self._begun += text[:room]

    def _end_line(self) -> None:
        line = self._begun.removeprefix(_BOM) if self._at_first else self._begun
        self._lines.append(line.removesuffix(b"\r")[: self._cap + 1])
        self._begun, self._at_first = b"", False
