"""Identifiers of clients, principals and addresses, as pseudonyms: the keyed hashes that stand for them everywhere.

A pseudonym is `c_` and 26 base32 characters: the first 128 bits of HMAC-SHA-256 over domain, a zero byte and value
(NFC, UTF-8). The identifier itself is kept once, encrypted, to be resolved where that is allowed and to be erased.
One thread at a time may use a `Pseudonyms`.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import ipaddress
import os
import secrets
import stat
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from monitor.intake.text import clean
from monitor.state.unit import IdentityRow

PREFIX = "c_"
CLIENT, PRINCIPAL, ADDRESS, NETWORK = "client", "principal", "address", "network"
MIN_KEY_BYTES = 32
CACHE_SIZE = 32_768
"""Identifiers remembered per domain and generation (two generations)."""
REPORTED_SIZE = 131_072
MAX_CACHED_CHARACTERS = 256
MAX_STORED_CHARACTERS = 1_024
"""Of a longer identifier the whole is hashed, and the beginning is kept for resolving."""
_MAX_KEY_FILE = 4_096
_FORBIDDEN_MODE = 0o037
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
V = TypeVar("V")


class UnresolvableError(Exception):
    """A stored identity does not belong to this pseudonym, was changed, or was encrypted with another key."""


class _Place(NamedTuple):
    address: str
    networks: tuple[str, ...]


class Pseudonyms:
    """Pseudonyms under one key. `networks` names address ranges (CIDR); `plain` returns the identifiers themselves.

    `at` is the event time in epoch seconds, kept as first_seen of an identifier not met before. ValueError: the key
    is too short, or a network is no network.
    """

    def __init__(self, key: bytes, networks: Mapping[str, Sequence[str]] | None = None, plain: bool = False) -> None:
        if not plain and len(key) < MIN_KEY_BYTES:
            raise ValueError(f"the identity key has {len(key)} bytes; at least {MIN_KEY_BYTES} are needed")
        self._key = key
        self._plain = plain
        self._cipher = AESSIV(derive_key(key, "identities", 64))
        self._named = _named_networks(networks or {})
        self._clients: _Recent[str] = _Recent(CACHE_SIZE)
        self._principals: _Recent[str] = _Recent(CACHE_SIZE)
        self._places: _Recent[_Place] = _Recent(CACHE_SIZE)
        self._reported: _Recent[bool] = _Recent(REPORTED_SIZE)
        self._new: list[tuple[str, str, str, float]] = []

    def client(self, value: str, at: float = 0.0) -> str:
        """The pseudonym of a client."""
        return self._clients.young.get(value) or self._clients.find(value, self._client, at)

    def principal(self, value: str, at: float = 0.0) -> str:
        """The pseudonym of a principal (an authenticated name); it differs from that of a client of the same name."""
        return self._principals.young.get(value) or self._principals.find(value, self._principal, at)

    def address(self, value: str, at: float = 0.0) -> str:
        """The pseudonym of a network address; all spellings of an address have one. Other text is hashed as it is."""
        return (self._places.young.get(value) or self._places.find(value, self._place, at)).address

    def networks(self, value: str, at: float = 0.0) -> tuple[str, ...]:
        """The pseudonym of the /24 (IPv6: /48) around an address and the names of configured networks that hold it.

        Empty for text that is no address.
        """
        return (self._places.young.get(value) or self._places.find(value, self._place, at)).networks

    def refresh(self) -> None:
        """Report every identifier met from now on once more, so that the store learns who is still there."""
        self._clients, self._principals = _Recent(CACHE_SIZE), _Recent(CACHE_SIZE)
        self._places, self._reported = _Recent(CACHE_SIZE), _Recent(REPORTED_SIZE)

    def take_new(self) -> list[IdentityRow]:
        """Identities met since the last call, encrypted; one that was forgotten meanwhile may come again."""
        new, self._new = self._new, []
        return [IdentityRow(name, domain, self.encrypt(name, domain, value), at) for name, domain, value, at in new]

    def known_as(self, value: str) -> dict[str, str]:
        """Domain → pseudonym under which an identifier may have been stored: client, principal, and address."""
        found = {CLIENT: _normal(value), PRINCIPAL: _normal(value)}
        address = parse_address(value)
        found[ADDRESS] = _normal(value) if address is None else str(address)
        return {domain: self._hashed(domain, text) for domain, text in found.items()}

    def encrypt(self, pseudonym: str, domain: str, value: str) -> bytes:
        """`value` for the identities table, bound to its pseudonym. The same input gives the same bytes (AES-SIV)."""
        return self._cipher.encrypt(f"{domain}\0{value}".encode(), [pseudonym.encode()])

    def resolve(self, pseudonym: str, ciphertext: bytes) -> str:
        """The identifier behind a pseudonym. UnresolvableError: see there."""
        try:
            plain = self._cipher.decrypt(ciphertext, [pseudonym.encode()])
        except (InvalidTag, ValueError):
            raise UnresolvableError(
                f"The stored identity of {pseudonym} cannot be read: it was changed or written with another key."
            ) from None
        return plain.decode().partition("\0")[2]

    def _client(self, value: str, at: float) -> str:
        return self._pseudonym(CLIENT, _normal(value), at)

    def _principal(self, value: str, at: float) -> str:
        return self._pseudonym(PRINCIPAL, _normal(value), at)

    def _place(self, value: str, at: float) -> _Place:
        address = parse_address(value)
        if address is None:
            return _Place(self._pseudonym(ADDRESS, _normal(value), at), ())
        block: _Network
        if isinstance(address, ipaddress.IPv4Address):
            block = ipaddress.IPv4Network((int(address), 24), strict=False)
        else:
            block = ipaddress.IPv6Network((int(address), 48), strict=False)
        names = dict.fromkeys(name for name, network in self._named if address in network)
        return _Place(self._pseudonym(ADDRESS, str(address), at), (self._pseudonym(NETWORK, str(block), at), *names))

    def _pseudonym(self, domain: str, value: str, at: float) -> str:
        if self._plain:
            return value[:MAX_STORED_CHARACTERS]
        pseudonym = self._hashed(domain, value)
        if pseudonym not in self._reported:
            self._reported.keep(pseudonym, True)
            self._new.append((pseudonym, domain, value[:MAX_STORED_CHARACTERS], at))
        return pseudonym

    def _hashed(self, domain: str, value: str) -> str:
        digest = hmac.digest(self._key, f"{domain}\0{value}".encode(), "sha256")
        return PREFIX + base64.b32encode(digest[:16]).decode()[:26].lower()


class _Recent(Generic[V]):
    """The last `size` to 2·`size` keys and their values: two generations, of which the older is dropped as a whole.

    A hit among the young costs one dictionary look-up; an exact LRU would reorder at every hit.
    """

    __slots__ = ("_old", "_size", "young")

    def __init__(self, size: int) -> None:
        self.young: dict[str, V] = {}
        self._old: dict[str, V] = {}
        self._size = size

    def find(self, key: str, make: Callable[[str, float], V], at: float) -> V:
        """The value of a key that is not among the young: from the older generation, or made now."""
        found = self._old.get(key)
        if found is None:
            found = make(key, at)
        if len(key) <= MAX_CACHED_CHARACTERS:
            self.keep(key, found)
        return found

    def keep(self, key: str, value: V) -> None:
        if len(self.young) >= self._size:
            self._old, self.young = self.young, {}
        self.young[key] = value

    def __contains__(self, key: str) -> bool:
        return key in self.young or key in self._old


def derive_key(key: bytes, purpose: str, length: int = 32) -> bytes:
    """A key for one purpose from the identity key (HKDF-SHA-256, RFC 5869)."""
    return HKDF(hashes.SHA256(), length, salt=None, info=f"modelwarden {purpose}".encode()).derive(key)


def key_id(key: bytes) -> str:
    """16 hex digits by which a changed key is recognised; they tell nothing about the key."""
    return derive_key(key, "key id", 8).hex()


class IdentityKeyError(Exception):
    """The identity key cannot be used; the text says why and what to do."""


def load_or_create_key(path: str | os.PathLike[str], create: bool) -> bytes:
    """The identity key in the file `path`: its content without surrounding white space, at least 32 bytes.

    With `create` a missing file is made (mode 0600, 64 hex digits); it appears whole or not at all, and one that
    another process made meanwhile is taken. A group may read the file, others may not. Raises IdentityKeyError.
    """
    try:
        return _read_key(path)
    except FileNotFoundError:
        if not create:
            raise IdentityKeyError(
                f"{path}: the identity key does not exist. Restore it from a backup, or make one: "
                f"(umask 077; openssl rand -hex 32 > {path})"
            ) from None
    try:
        _create_key(path)
    except OSError as error:
        raise IdentityKeyError(
            f"{path}: the identity key cannot be created: {error.strerror}. Make its directory writable, "
            "or name another file in identity.key_file."
        ) from None
    try:
        return _read_key(path)
    except FileNotFoundError:
        raise IdentityKeyError(f"{path}: the identity key was removed while it was made. Start again.") from None


def _read_key(path: str | os.PathLike[str]) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise IdentityKeyError(f"{path}: the identity key cannot be read: {error.strerror}.") from None
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise IdentityKeyError(f"{path}: the identity key must be a regular file.")
        if about.st_mode & _FORBIDDEN_MODE:
            mode = stat.S_IMODE(about.st_mode)
            raise IdentityKeyError(f"{path}: the identity key is open to others (mode {mode:04o}): chmod 600 {path}")
        key = os.read(handle, _MAX_KEY_FILE + 1)
    finally:
        os.close(handle)
    if len(key) > _MAX_KEY_FILE:
        raise IdentityKeyError(f"{path}: this is no identity key: it is longer than {_MAX_KEY_FILE} bytes.")
    key = key.strip()
    if len(key) < MIN_KEY_BYTES:
        raise IdentityKeyError(
            f"{path}: the identity key is too short ({len(key)} bytes, at least {MIN_KEY_BYTES} are needed). "
            "Restore it from a backup; a new key makes all known clients unknown."
        )
    return key


def _create_key(path: str | os.PathLike[str]) -> None:
    """Write a new key beside `path` and link it there: a crash leaves no half key, and no existing key is replaced."""
    target = os.path.abspath(path)
    draft = f"{target}.{secrets.token_hex(8)}.new"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_hex(32).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, target)
    finally:
        os.unlink(draft)
    directory = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _normal(value: str) -> str:
    return unicodedata.normalize("NFC", clean(value))


def parse_address(value: str) -> _Address | None:
    """The address as it is known on the network: IPv4 inside IPv6 is IPv4, and the name of a local link is dropped."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return address.ipv4_mapped or ipaddress.IPv6Address(int(address))


def _named_networks(networks: Mapping[str, Sequence[str]]) -> tuple[tuple[str, _Network], ...]:
    named = []
    for name, ranges in networks.items():
        for text in ranges:
            try:
                named.append((name, ipaddress.ip_network(text)))
            except ValueError as error:
                raise ValueError(f"network {name!r}: {error}") from None
    return tuple(named)
