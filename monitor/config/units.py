"""Durations ("10s", "400d", "1h30m") and sizes ("256KiB") as they are written in the configuration."""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)? ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$"

_MICROSECONDS = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_BYTES = {
    "B": 1,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
_LONGEST_TEXT = 64
_LONGEST = timedelta(days=36_500)  # a century: dates computed from it stay dates
_LARGEST = 2**60


def parse_duration(text: str) -> timedelta:
    """A number and a unit (ms, s, m, h, d, w), or several in a row. Raises ValueError with the mend."""
    if len(text) > _LONGEST_TEXT or not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError("Write a number and a unit: ms, s, m, h, d or w, for example 10s or 30d.")
    total = sum((Fraction(number) * _MICROSECONDS[unit] for number, unit in _PART.findall(text)), Fraction(0))
    if total > _LONGEST // timedelta(microseconds=1):
        raise ValueError(f"Write at most {_LONGEST.days}d.")
    return timedelta(microseconds=round(total))


def parse_size(text: str) -> int:
    """Bytes: a number and a unit (kB, MB, …: powers of 1000; KiB, MiB, …: of 1024). Raises ValueError with the mend."""
    if len(text) > _LONGEST_TEXT or not re.fullmatch(SIZE_PATTERN, text):
        raise ValueError("Write a number and a unit: B, KiB, MiB, GiB or TiB (or kB, MB, GB, TB), for example 256KiB.")
    number = text.rstrip("BkKMGTi ")
    size = Fraction(number) * _BYTES[text[len(number) :].strip()]
    if size > _LARGEST:
        raise ValueError("Write at most 1048576TiB.")
    return int(size)


def format_duration(value: timedelta) -> str:
    """The duration in its largest whole unit, as `parse_duration` reads it: 10s, 400d, 90m."""
    microseconds = value // timedelta(microseconds=1)
    for unit in ("d", "h", "m", "s", "ms"):
        if microseconds % _MICROSECONDS[unit] == 0:
            return f"{microseconds // _MICROSECONDS[unit]}{unit}"
    return f"{microseconds / 1000:.3f}ms"


def format_size(value: int) -> str:
    """The size in its largest whole unit, as `parse_size` reads it: 256KiB."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value and value % _BYTES[unit] == 0:
            return f"{value // _BYTES[unit]}{unit}"
    return f"{value}B"
