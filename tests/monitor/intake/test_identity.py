from __future__ import annotations

import hashlib
import hmac
import os
import stat
import threading
from base64 import b32encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.intake import identity
from monitor.intake.identity import (
    IdentityKeyError,
    Pseudonyms,
    UnresolvableError,
    derive_key,
    key_id,
    load_or_create_key,
)

KEY = bytes(range(32))


def test_pseudonym_is_the_documented_hash() -> None:
    digest = hmac.new(KEY, b"client\0acme", hashlib.sha256).digest()
    name = Pseudonyms(KEY).client("acme")
    assert name == "c_" + b32encode(digest[:16]).decode().rstrip("=").lower()
    assert len(name) == 28
    assert Pseudonyms(KEY).client("acme") == name
    assert Pseudonyms(bytes(32)).client("acme") != name


def test_domains_are_apart() -> None:
    names = Pseudonyms(KEY)
    assert len({names.client("10.0.0.1"), names.principal("10.0.0.1"), names.address("10.0.0.1")}) == 3


def test_nothing_is_stripped_and_text_is_nfc() -> None:
    names = Pseudonyms(KEY)
    assert names.client("acme") != names.client("acme ") != names.client("Acme")
    assert names.client("e\u0301") == names.client("\u00e9")


def test_addresses_are_canonical() -> None:
    names = Pseudonyms(KEY)
    assert names.address("::ffff:203.0.113.9") == names.address("203.0.113.9")
    assert names.address("2001:DB8:0::1") == names.address("2001:db8::1") == names.address("2001:db8::1%eth0")
    assert names.networks("203.0.113.9") == names.networks("203.0.113.200") != names.networks("203.0.114.9")
    assert names.networks("2001:db8:1:2::1") == names.networks("2001:db8:1:ffff::9") != names.networks("2001:db8:2::1")
    assert names.networks("::1") != names.networks("0.0.0.1")
    assert names.address("unknown") and names.networks("unknown") == ()


def test_configured_networks_are_named() -> None:
    ranges = {"office": ["203.0.113.0/25", "2001:db8::/32"], "all": ["0.0.0.0/0"], "far": ["10.0.0.0/8"]}
    names = Pseudonyms(KEY, ranges)
    assert names.networks("203.0.113.9")[1:] == ("office", "all")
    assert names.networks("203.0.113.200")[1:] == ("all",)
    assert names.networks("2001:db8:5::1")[1:] == ("office",)
    with pytest.raises(ValueError, match="office"):
        Pseudonyms(KEY, {"office": ["203.0.113.1/24"]})


def test_plain_returns_the_identifiers() -> None:
    names = Pseudonyms(b"", {"office": ["203.0.113.0/25"]}, plain=True)
    assert names.client("acme") == names.principal("acme") == "acme"
    assert names.address("::ffff:203.0.113.9") == "203.0.113.9"
    assert names.networks("203.0.113.9") == ("203.0.113.0/24", "office")
    assert names.take_new() == []


def test_new_identities_are_told_once_and_resolve() -> None:
    names = Pseudonyms(KEY)
    name = names.client("acme", 5.0)
    names.client("acme", 9.0)
    address = names.address("203.0.113.9", 7.0)
    rows = names.take_new()
    assert [(r.pseudonym, r.domain, r.first_seen) for r in rows] == [
        (name, "client", 5.0),
        (address, "address", 7.0),
        (names.networks("203.0.113.9")[0], "network", 7.0),
    ]
    assert [names.resolve(r.pseudonym, r.ciphertext) for r in rows] == ["acme", "203.0.113.9", "203.0.113.0/24"]
    assert all(b"acme" not in r.ciphertext for r in rows)
    assert names.take_new() == []


def test_an_identity_is_bound_to_pseudonym_and_key() -> None:
    names = Pseudonyms(KEY)
    name, other = names.client("acme"), names.client("bond")
    box = names.encrypt(name, "client", "acme")
    changed = bytes([box[0] ^ 1]) + box[1:]
    for who, pseudonym, ciphertext in (
        (names, other, box),
        (names, name, changed),
        (names, name, b""),
        (Pseudonyms(bytes(32)), name, box),
    ):
        with pytest.raises(UnresolvableError, match=pseudonym) as caught:
            who.resolve(pseudonym, ciphertext)
        assert "acme" not in str(caught.value)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "CACHE_SIZE", 10)
    monkeypatch.setattr(identity, "REPORTED_SIZE", 20)
    names = Pseudonyms(KEY)
    first = names.client("client 0")
    for i in range(1_000):
        assert names.client("client 0") == first
        names.client(f"client {i}")
    assert len(names._clients.young) + len(names._clients._old) <= 20
    assert len(names._reported.young) + len(names._reported._old) <= 40
    assert len(names.take_new()) == 1_000
    names.client("x" * 100_000)
    assert "x" * 100_000 not in names._clients.young
    (row,) = names.take_new()
    assert names.resolve(row.pseudonym, row.ciphertext) == "x" * identity.MAX_STORED_CHARACTERS


@given(st.text())
def test_any_text_has_a_pseudonym(text: str) -> None:
    for names in (Pseudonyms(KEY), Pseudonyms(KEY, plain=True)):
        for shown in (names.client(text), names.principal(text), names.address(text), *names.networks(text)):
            shown.encode()
            assert "\0" not in shown
        for row in names.take_new():
            names.resolve(row.pseudonym, row.ciphertext)


def test_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        Pseudonyms(bytes(31))


def test_derived_keys_differ_by_purpose() -> None:
    assert derive_key(KEY, "a") != derive_key(KEY, "b")
    assert len(derive_key(KEY, "a", 64)) == 64
    assert len(key_id(KEY)) == 16
    assert key_id(KEY) != key_id(bytes(32))


def test_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    with pytest.raises(IdentityKeyError, match="does not exist"):
        load_or_create_key(path, create=False)
    key = load_or_create_key(path, create=True)
    assert len(key) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_key(path, create=True) == load_or_create_key(path, create=False) == key
    assert list(tmp_path.iterdir()) == [path]


def test_two_that_make_the_key_share_it(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    found: list[bytes] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        found.append(load_or_create_key(path, create=True))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (b"", 0o600, "too short"),
        (b"k" * 31 + b"\n", 0o600, "too short"),
        (b"k" * 64, 0o644, "open to others"),
        (b"k" * 64, 0o602, "open to others"),
        (b"k" * 64, 0o620, "open to others"),
        (b"k" * 5_000, 0o600, "longer than"),
    ],
    ids=range(6),
)
def test_bad_key_files(tmp_path: Path, content: bytes, mode: int, message: str) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(IdentityKeyError, match=message) as caught:
        load_or_create_key(path, create=True)
    assert str(path) in str(caught.value)
    assert "kkkk" not in str(caught.value)
    assert path.read_bytes() == content


def test_no_key_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(IdentityKeyError, match="cannot be created"):
        load_or_create_key(tmp_path / "missing" / "identity.key", create=True)
    with pytest.raises(IdentityKeyError, match="regular file"):
        load_or_create_key(tmp_path, create=True)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(IdentityKeyError, match="regular file"):
        load_or_create_key(fifo, create=True)
    path = tmp_path / "group"
    path.write_bytes(b"x" * 64)
    path.chmod(0o640)
    assert load_or_create_key(path, create=False) == b"x" * 64


def test_an_identifier_is_known_by_the_pseudonyms_it_was_stored_under() -> None:
    names = Pseudonyms(KEY)
    known = names.known_as("::ffff:192.0.2.7")
    assert known["client"] == names.client("::ffff:192.0.2.7")
    assert known["principal"] == names.principal("::ffff:192.0.2.7")
    assert known["address"] == names.address("192.0.2.7")


def test_after_a_refresh_everybody_is_reported_once_more() -> None:
    names = Pseudonyms(KEY)
    first = names.client("acme", 1.0)
    assert [row.pseudonym for row in names.take_new()] == [first]
    names.client("acme", 2.0)
    assert names.take_new() == []
    names.refresh()
    names.client("acme", 3.0)
    names.client("acme", 4.0)
    assert [(row.pseudonym, row.first_seen) for row in names.take_new()] == [(first, 3.0)]
