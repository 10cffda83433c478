from __future__ import annotations

import hashlib

import pytest

from monitor.intake.dead_letters import dead_letter
from monitor.intake.events import DeadLetter, Reason, Record, Rejected
from monitor.intake.formats.base import TopicRules, formats
from monitor.intake.identity import Pseudonyms

KEY = bytes(range(32))
RULES = TopicRules("t", Pseudonyms(KEY), record_bytes=1_000)


def letter(raw: bytes | None) -> DeadLetter:
    record = Record("t", 3, 9, None, b"key", raw)
    with pytest.raises(Rejected) as caught:
        formats()["native"].decode(record, RULES)
    return dead_letter(record, caught.value, KEY)


def test_structure_without_values() -> None:
    raw = (
        b'{"type":"prediction","ts":"soon","model":"credit","client":"acme","features":{"a":1,"b":"x"},"input":[1,2,3],'
        b'"scores":null,"status":200,"latency_ms":1.25,"label":true,"acme@example.com":"acme"}'
    )
    assert letter(raw) == DeadLetter(
        topic="t",
        partition=3,
        offset=9,
        row=-1,
        reason=Reason.BAD_TIME,
        detail="ts is neither RFC 3339 with a time zone nor epoch seconds",
        structure={
            "type": "string:10",
            "ts": "string:4",
            "model": "string:6",
            "client": "string:4",
            "features": "object:2",
            "input": "array:3",
            "scores": "null:0",
            "status": "number:3",
            "latency_ms": "number:4",
            "label": "boolean:0",
        },
        length=len(raw),
        digest=hashlib.blake2b(raw, key=KEY, digest_size=16).hexdigest(),
    )


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, Reason.EMPTY),
        (b"", Reason.EMPTY),
        (b'{"ts":1', Reason.NOT_JSON),
        (b'{"ts":"\xff"}', Reason.NOT_JSON),
        (b'["acme"]', Reason.NOT_AN_OBJECT),
        (b'{"ts":"' + b"x" * 1_000 + b'"}', Reason.TOO_LARGE),
        (b'{"ts":' + b"[" * 40 + b"]" * 40 + b"}", Reason.TOO_DEEP),
    ],
)
def test_what_does_not_parse_has_length_and_digest_only(raw: bytes | None, reason: Reason) -> None:
    made = letter(raw)
    assert (made.reason, made.structure, made.length) == (reason, {}, len(raw or b""))
    assert len(made.digest) == 32


def test_duplicate_keys_show_the_last() -> None:
    made = letter(b'{"ts":1,"ts":"ab","status":' + b"9" * 500 + b"}")
    assert (made.reason, made.structure) == (Reason.DUPLICATE_KEY, {"ts": "string:2", "status": "number:3"})
    assert letter(b'{"ts":1,"ts\\u0000":1,"ts\\ufffd":1}').structure == {"ts": "number:3"}


def test_a_row_has_its_number_and_another_key_another_digest() -> None:
    record = Record("t", 0, 0, None, None, b"{}")
    rejected = Rejected(Reason.BAD_FORMAT, "x")
    assert dead_letter(record, rejected, KEY, row=4).row == 4
    assert dead_letter(record, rejected, KEY).digest != dead_letter(record, rejected, b"other").digest
