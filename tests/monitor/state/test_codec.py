from __future__ import annotations

import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from detectors.base import Page
from monitor.state import codec
from monitor.state.codec import CodecError, array_text, decode, encode, text_array

DTYPES = ["?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", ">f8", ">i4"]


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Arrays of every dtype with arbitrary bits, so that NaN payloads and signalling NaNs occur."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7))
    size = int(np.prod(shape)) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    if dtype == np.bool_:
        raw = bytes(byte & 1 for byte in raw)
    return np.frombuffer(raw, dtype).reshape(shape)


def bits(page: Page) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    little = {name: np.asarray(array).astype(array.dtype.newbyteorder("<")) for name, array in page.items()}
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in little.items()}


@given(st.dictionaries(st.text(max_size=40), arrays(), max_size=6), st.integers(0, 2**32 - 1))
def test_round_trip_is_bit_exact(page: Page, version: int) -> None:
    data = encode(page, version)
    back = decode(data, version)
    assert bits(back) == bits(page)
    assert list(back) == list(page)
    assert all(array.flags.writeable and array.flags.owndata for array in back.values())
    assert encode(page, version) == data


def test_long_pages_are_deflated_only_when_it_helps() -> None:
    zeros = {"a": np.zeros(10_000)}
    noise = {"a": np.random.default_rng(1).random(10_000)}
    assert len(encode(zeros, 1)) < 1_000
    assert len(encode(noise, 1)) < 80_000 + 200
    assert bits(decode(encode(zeros, 1))) == bits(zeros)
    assert bits(decode(encode(noise, 1))) == bits(noise)


def test_non_contiguous_arrays_and_nan_payloads() -> None:
    strange = np.frombuffer(struct.pack("<3Q", 0x7FF8000000000001, 0xFFF0000000000123, 0x8000000000000000), "<f8")
    page = {"nan": strange, "slice": np.arange(24).reshape(4, 6)[::2, ::-3], "fortran": np.eye(3, order="F")}
    assert bits(decode(encode(page, 0))) == bits(page)


@pytest.mark.parametrize(
    "array",
    [np.array(["a"]), np.array([object()]), np.array([b"a"]), np.array([1j]), np.zeros(1, "M8[s]"),
     np.zeros(1, [("x", "i4")]), [1.0], np.zeros((1,) * 9), np.zeros(1, np.longdouble)],
)  # fmt: skip
def test_other_arrays_are_refused(array: Any) -> None:
    page: dict[str, Any] = {"x": array}
    with pytest.raises(CodecError):
        encode(page, 1)


def test_wrong_version_is_refused() -> None:
    data = encode({"a": np.ones(2)}, 4)
    with pytest.raises(CodecError, match=r"version 4.*version 5"):
        decode(data, 5)
    with pytest.raises(CodecError):
        encode({}, -1)


def samples() -> list[bytes]:
    pages: list[Page] = [
        {},
        {"a": np.arange(7.0)},
        {"flags": np.array([True, False]), "n": np.array(5, np.int64), "empty": np.zeros((0, 3), np.float32)},
        {"long": np.zeros(4_000), "names": text_array(["x", "y"])},
    ]
    return [encode(page, 9) for page in pages]


def test_mutated_pages_are_refused() -> None:
    """10,000 blobs with flipped, cut, grown or swapped bytes: CodecError for each, nothing else, none taken."""
    dice = random.Random(5)
    originals = samples()
    for _ in range(10_000):
        blob = bytearray(dice.choice(originals))
        for _ in range(dice.randint(1, 4)):
            mutate(blob, dice)
        if bytes(blob) not in originals:
            with pytest.raises(CodecError):
                decode(bytes(blob))


def mutate(blob: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(blob)) if blob else 0
    match dice.randrange(4):
        case 0 if blob:
            blob[at] ^= 1 << dice.randrange(8)
        case 1:
            del blob[at:]
        case 2:
            blob[at:at] = dice.randbytes(dice.randint(1, 9))
        case _:
            blob[at : at + 4] = dice.randbytes(4)


def forged(head: bytes, body: bytes, length: int, flags: int = 0) -> bytes:
    """A page with a good checksum over whatever it says."""
    prefix = codec._PREFIX.pack(b"MWST", 1, flags, 9, len(head), length)
    return prefix + codec._checksum(prefix, head, body) + head + body


@settings(max_examples=300)
@given(st.binary(max_size=200), st.binary(max_size=60), st.integers(0, 2**64 - 1), st.integers(0, 1))
def test_forged_headers_raise_nothing_else(head: bytes, body: bytes, length: int, flags: int) -> None:
    with pytest.raises(CodecError):
        decode(forged(head + b"!", body, length, flags))


BOMB = zlib.compress(bytes(50_000_000), 9)
FORGERIES: dict[str, Callable[[], bytes]] = {
    "huge shape": lambda: forged(b'[["a","<f8",[268435456,268435456]]]', b"", 2**59),
    "huge body": lambda: forged(b'[["a","|u1",[268435456]]]', b"", 2**28),
    "huge deflated": lambda: forged(b'[["a","|u1",[268435456]]]', zlib.compress(b"x"), 2**28, 1),
    "bomb": lambda: forged(b'[["a","|u1",[8]]]', BOMB, 8, 1),
    "huge beside zero": lambda: forged(b'[["a","<f8",[0,99999999,99999999,99999999]]]', b"", 0),
    "negative": lambda: forged(b'[["a","|u1",[-1]]]', b"", 0),
    "true": lambda: forged(b'[["a","|u1",[true]]]', b"x", 1),
    "float": lambda: forged(b'[["a","|u1",[1.0]]]', b"x", 1),
    "object": lambda: forged(b'[["a","|O",[1]]]', b"12345678", 8),
    "structured": lambda: forged(b'[["a","i4,i4",[1]]]', b"12345678", 8),
    "dtype no text": lambda: forged(b'[["a",{},[1]]]', b"x", 1),
    "twice": lambda: forged(b'[["a","|u1",[1]],["a","|u1",[1]]]', b"xy", 2),
    "bool of two": lambda: forged(b'[["a","|b1",[1]]]', b"\x02", 1),
    "deep": lambda: forged(b"[" * 100_000, b"", 0),
    "long number": lambda: forged(b'[["a","|u1",[' + b"9" * 5_000 + b"]]]", b"", 0),
    "nan": lambda: forged(b'[["a","|u1",[NaN]]]', b"", 0),
    "no list": lambda: forged(b'{"a":1}', b"", 0),
    "many": lambda: forged(b"[" + b"[]," * 5_000 + b"[]]", b"", 0),
    "bad utf-8": lambda: forged(b'[["\xff","|u1",[1]]]', b"x", 1),
    "trailing deflate": lambda: forged(b'[["a","|u1",[1]]]', zlib.compress(b"x") + b"more", 1, 1),
    "cut deflate": lambda: forged(b'[["a","|u1",[1]]]', zlib.compress(b"x")[:-1], 1, 1),
    "empty deflate": lambda: forged(b"[]", b"", 0, 1),
    "unknown flag": lambda: forged(b"[]", b"", 0, 2),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_cost_nothing(name: str) -> None:
    data = FORGERIES[name]()
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@given(st.lists(st.text(st.characters(codec=None), max_size=20), max_size=8))
def test_texts_round_trip(texts: list[str]) -> None:
    page = decode(encode({"names": text_array(texts)}, 1))
    assert array_text(page["names"]) == texts


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b"[", b"\xff", b"[" * 100_000])
def test_other_bytes_are_no_texts(raw: bytes) -> None:
    with pytest.raises(CodecError):
        array_text(np.frombuffer(raw, np.uint8))
    with pytest.raises(CodecError):
        array_text(np.zeros(3))
