"""Named arrays ↔ bytes: how detector state and references are stored. Never pickle.

Layout, little-endian:

    magic "MWST" · codec version u8 · flags u8 · state version u32 · header length u32 · body length u64 (unpacked)
    · checksum (16 bytes of BLAKE2b over all other bytes) · header · body

The header is JSON, `[[name, dtype, [shape]], ...]`; the body is the raw bytes of the arrays one after the other,
deflated when flag 1 is set. Sizes are checked against each other before anything is allocated.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors.base import U8, Page

CODEC_VERSION: Final = 1
MAX_BODY: Final = 256 * 2**20
"""Bytes of all arrays of one page, unpacked."""
MAX_ARRAYS: Final = 4_096
MAX_DIMENSIONS: Final = 8
MAX_NAME: Final = 200

_MAGIC: Final = b"MWST"
_PREFIX: Final = struct.Struct("<4sBBIIQ")
_CHECKSUM: Final = 16
_DEFLATED: Final = 1
_DEFLATE_FROM: Final = 4_096
_DEFLATE_RATIO: Final = 1_032
"""Deflate cannot do better than this, so a longer claim is forged."""
_DTYPES: Final = frozenset(("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"))

_Layout = list[tuple[str, "np.dtype[Any]", tuple[int, ...], int]]


class CodecError(ValueError):
    """Bytes that are no page of ours, or arrays that cannot become one."""


def encode(page: Page, version: int) -> bytes:
    """The bytes of a page, tagged with the detector's `version` (0 to 2**32 - 1). CodecError names a bad array."""
    if not 0 <= version < 2**32:
        raise CodecError(f"state version {version} is not in 0..2**32-1")
    if len(page) > MAX_ARRAYS:
        raise CodecError(f"a page holds at most {MAX_ARRAYS} arrays, this one has {len(page)}")
    header, parts = [], []
    for name, array in page.items():
        plain = _storable(name, array)
        header.append([name, plain.dtype.str, list(plain.shape)])
        parts.append(plain.tobytes())
    raw = b"".join(parts)
    if len(raw) > MAX_BODY:
        raise CodecError(f"a page holds at most {MAX_BODY} bytes, this one has {len(raw)}")
    flags, body = _deflated(raw)
    head = json.dumps(header, separators=(",", ":")).encode()
    prefix = _PREFIX.pack(_MAGIC, CODEC_VERSION, flags, version, len(head), len(raw))
    return b"".join((prefix, _checksum(prefix, head, body), head, body))


def decode(data: bytes | bytearray | memoryview, version: int | None = None) -> Page:
    """The arrays of a page, as writable copies. With `version`, a page of another state version is refused.

    Whatever the bytes are, the only exception is CodecError.
    """
    view = memoryview(data).cast("B")
    start = _PREFIX.size + _CHECKSUM
    if len(view) < start:
        raise CodecError(f"{len(view)} bytes are too short for a page")
    magic, codec, flags, found, head_length, length = _PREFIX.unpack(view[: _PREFIX.size])
    if magic != _MAGIC:
        raise CodecError("not a page: wrong magic")
    if codec != CODEC_VERSION or flags & ~_DEFLATED:
        raise CodecError(f"page of codec version {codec}, flags {flags}; this program reads version {CODEC_VERSION}")
    if head_length > len(view) - start:
        raise CodecError("page is cut short")
    head, body = view[start : start + head_length], view[start + head_length :]
    if _checksum(view[: _PREFIX.size], head, body) != bytes(view[_PREFIX.size : start]):
        raise CodecError("page is damaged: checksum differs")
    if version is not None and found != version:
        raise CodecError(f"page of state version {found}, version {version} is wanted")
    layout = _layout(bytes(head))
    if sum(size for *_, size in layout) != length:
        raise CodecError("page is forged: sizes differ")
    return _arrays(layout, _inflated(body, length) if flags & _DEFLATED else _exact(body, length))


def text_array(texts: Sequence[str]) -> U8:
    """A list of texts as an array that a page can hold: JSON in uint8."""
    return np.frombuffer(json.dumps(list(texts), separators=(",", ":")).encode(), dtype=np.uint8).copy()


def array_text(array: npt.NDArray[Any]) -> list[str]:
    """The texts of an array made by `text_array`. CodecError when it is none."""
    if array.dtype != np.uint8 or array.ndim != 1:
        raise CodecError("not an array of texts")
    texts = _parsed(array.tobytes())
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise CodecError("not an array of texts")
    return texts


def _storable(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not isinstance(array, np.ndarray):
        raise CodecError(f"{name!r} is no array but {type(array).__name__}")
    dtype = array.dtype.newbyteorder("<")
    if dtype.str not in _DTYPES:
        raise CodecError(
            f"array {name!r} has dtype {array.dtype}; allowed are bool, ints and floats (text: text_array)"
        )
    if len(name) > MAX_NAME or array.ndim > MAX_DIMENSIONS:
        raise CodecError(f"array {name[:40]!r}: at most {MAX_NAME} characters of name, {MAX_DIMENSIONS} dimensions")
    return array.astype(dtype, copy=False)


def _deflated(raw: bytes) -> tuple[int, bytes]:
    """Deflate long bodies at the fastest level, and keep that only if it saves a tenth."""
    if len(raw) > _DEFLATE_FROM:
        packed = zlib.compress(raw, 1)
        if len(packed) < 0.9 * len(raw):
            return _DEFLATED, packed
    return 0, raw


def _inflated(body: memoryview, length: int) -> bytes:
    if length > len(body) * _DEFLATE_RATIO:
        raise CodecError("page is forged: no such ratio")
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(body, length) if length else b""
        rest = inflate.decompress(inflate.unconsumed_tail, 1) if not inflate.eof else b""
    except zlib.error as error:
        raise CodecError(f"page is damaged: {error}") from None
    if len(raw) != length or rest or not inflate.eof or inflate.unused_data:
        raise CodecError("page is forged: lengths differ")
    return raw


def _exact(body: memoryview, length: int) -> memoryview:
    if len(body) != length:
        raise CodecError("page is forged: lengths differ")
    return body


def _layout(head: bytes) -> _Layout:
    """Names, dtypes, shapes and sizes in bytes, every one of them checked."""
    entries = _parsed(head)
    if not isinstance(entries, list) or len(entries) > MAX_ARRAYS:
        raise CodecError("page is forged: header is no list of arrays")
    layout: _Layout = []
    seen = set()
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 3):
            raise CodecError("page is forged: header entry")
        name, dtype, shape = entry
        if not isinstance(name, str) or len(name) > MAX_NAME or name in seen:
            raise CodecError("page is forged: array name")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise CodecError("page is forged: dtype")
        seen.add(name)
        layout.append((name, np.dtype(dtype), *_shape(shape, np.dtype(dtype).itemsize)))
    return layout


def _shape(shape: Any, itemsize: int) -> tuple[tuple[int, ...], int]:
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise CodecError("page is forged: shape")
    if not all(type(n) is int and 0 <= n <= MAX_BODY for n in shape):
        raise CodecError("page is forged: shape")
    # Dimensions beside a zero count too: numpy refuses them by their product.
    if itemsize * math.prod(max(n, 1) for n in shape) > MAX_BODY:
        raise CodecError("page is forged: too large")
    return tuple(shape), itemsize * math.prod(shape)


def _arrays(layout: _Layout, raw: bytes | memoryview) -> Page:
    page: Page = {}
    at = 0
    for name, dtype, shape, size in layout:
        if dtype.kind == "b" and (np.frombuffer(raw, dtype=np.uint8, count=size, offset=at) > 1).any():
            raise CodecError(f"page is forged: {name!r} holds no truth values")
        count = size // dtype.itemsize
        page[name] = np.frombuffer(raw, dtype=dtype, count=count, offset=at).reshape(shape).copy()
        at += size
    return page


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise CodecError("page is damaged: unreadable header or text") from None


def _checksum(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=_CHECKSUM)
    for part in parts:
        digest.update(part)
    return digest.digest()
