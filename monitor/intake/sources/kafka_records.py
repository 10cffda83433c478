"""Records whose header names are not UTF-8, as kafka-python reads them.

Whoever may write to a topic may give a header any name, and brokers do not look at it. kafka-python 3.0 takes such a
record for a damaged one and can never get past it. `tolerate_header_names` makes it read on: the name is replaced by
as many NUL characters, so that nothing else in the record moves, and `has_name` tells such a header.
"""

from __future__ import annotations

from typing import Any

from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint


def tolerate_header_names() -> None:
    """Let every consumer of this process read such records. kafka-python has no setting for it."""
    patched: Any = memory_records
    patched.DefaultRecordBatch = _Batch


def has_name(name: str) -> bool:
    """Whether a header's name is the one that was written."""
    return name[:1] != "\0"


class _Batch(DefaultRecordBatch):  # type: ignore[misc]
    """Only a record that fails to decode costs more than it did."""

    __slots__ = ()

    def _read_msg(self) -> Any:
        try:
            return DefaultRecordBatch._read_msg(self)
        except UnicodeDecodeError:
            _blank_names(self._buffer, self._pos)
            return DefaultRecordBatch._read_msg(self)


def _blank_names(buffer: bytearray, at: int) -> None:
    """Overwrite the header names that are not UTF-8 of the record at `at`. IndexError if it is cut short."""
    for _ in range(4):  # length, attributes, time, offset
        _, at = decode_varint(buffer, at)
    for _ in range(2):  # key, value
        at = _after(buffer, at)
    count, at = decode_varint(buffer, at)
    for _ in range(count):
        size, begin = decode_varint(buffer, at)
        try:
            buffer[begin : begin + size].decode()
        except UnicodeDecodeError:
            buffer[begin : begin + size] = bytes(size)
        at = _after(buffer, begin + size)


def _after(buffer: bytearray, at: int) -> int:
    """Where the bytes that begin with their length at `at` end."""
    size, at = decode_varint(buffer, at)
    return int(at + max(0, size))
