"""Text that others wrote, made fit for a terminal or a log line."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Final

# Everything that could move a cursor, break a line or turn the direction of writing.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def whereabouts(error: BaseException) -> str:
    """What was raised and where, without its text: that may quote what a client sent."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + at


def one_line(text: str) -> str:
    """`text` with control characters written out (\\n, \\x1b), so that it cannot forge a line."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
