"""Files that may be packed (gzip): what a file begins with says so, not its name."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import IO, Final

_MAGIC: Final = b"\x1f\x8b"


def unpacked(raw: IO[bytes]) -> IO[bytes] | gzip.GzipFile:
    """What the stream holds, unpacked where it is packed; nothing of the stream is consumed yet.

    A stream that cannot be looked into before it is read (only open files and pipes can) is taken as it is.
    """
    begins = raw.peek(len(_MAGIC))[: len(_MAGIC)] if isinstance(raw, io.BufferedReader) else b""
    return gzip.GzipFile(fileobj=raw) if begins == _MAGIC else raw


def is_packed(path: Path) -> bool:
    """Whether a file is packed. OSError when it cannot be read."""
    with path.open("rb") as raw:
        return raw.read(len(_MAGIC)) == _MAGIC
