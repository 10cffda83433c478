"""Where a command writes its result: a place that is looked at before the work, and written at once after it."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from monitor.cli.failures import CommandError

STDOUT: Final = Path("-")


def check_place(out: Path, read: Iterable[Path | None]) -> None:
    """Fail before the work where the result could not be written after it, or would replace a file in `read`."""
    if out == STDOUT:
        return
    directory = out.resolve().parent
    if out.is_dir():
        raise CommandError(f"{out} is a directory; name a file")
    if not directory.is_dir() or not os.access(directory if out.is_file() or not out.exists() else out, os.W_OK):
        raise CommandError(f"{directory}: cannot be written to; name another place for --out")
    for path in read:
        if path is not None and out.is_file() and path.is_file() and out.samefile(path):
            raise CommandError(f"{out} is read by this command, and would be lost: name another file for --out")


def write_result(out: Path, text: str) -> None:
    """All at once, packed where the name ends in .gz: whoever reads the file sees the old one or the whole new one."""
    if out == STDOUT:
        sys.stdout.write(text)
    elif out.exists() and not out.is_file():  # a pipe or a device
        out.write_text(text, encoding="utf-8")
    else:
        data = text.encode()
        _replace(out.resolve(), gzip.compress(data, mtime=0) if out.suffix.lower() == ".gz" else data)


def _replace(out: Path, data: bytes) -> None:
    draft = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(out)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
