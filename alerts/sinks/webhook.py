"""Standard Webhooks 1.0.0: one signed POST, to an address that was checked, within a fixed time.

A webhook must not become a proxy into the network of the monitor: names are resolved here, every address found is
checked, and the connection goes to a checked address (no second look-up). Redirects are not followed, no proxy of the
environment is used, and of an answer at most `MAX_ANSWER` bytes are read.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpcore
import httpx
import standardwebhooks

from alerts.sinks.alertmanager import DeliveryError

TIMEOUT: Final = 15.0
"""Seconds for one POST in all: connecting, sending, and the whole answer."""
MAX_ANSWER: Final = 4_096
MAX_RETRY_AFTER: Final = 300.0
_PREFIX = "whsec_"
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Answer(NamedTuple):
    """What a receiver answered: the status, the beginning of the body, and for how many seconds it asks to wait."""

    status: int
    text: str
    retry_after: float | None


class Webhook:
    """One endpoint. `secret_file` holds `whsec_` secrets, one a line: all of them sign, so that one can be replaced.

    The file is read at each POST. Used by one thread.
    """

    def __init__(self, url: str, secret_file: Path | None = None, allow_private: bool = False) -> None:
        self._secret_file = secret_file
        parsed = httpx.URL(url)
        self.host = parsed.host
        self._url = httpcore.URL(
            scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path
        )
        self._authorization = _basic(parsed)
        self._network = _CheckedNetwork(allow_private)
        context = httpx.create_ssl_context() if parsed.scheme == "https" else None
        self._pool = httpcore.ConnectionPool(context, max_connections=1, network_backend=self._network)

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()

    def post(self, key: str, body: bytes, now: float) -> Answer:
        """Sign and send these bytes. `now`: epoch seconds. DeliveryError when no answer came, or none was asked."""
        headers = self._headers(key, body, now)
        self._network.deadline = time.monotonic() + TIMEOUT
        try:
            with self._pool.stream("POST", self._url, headers=headers, content=body, extensions=_LIMITS) as answer:
                text = _beginning(answer)
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise DeliveryError(f"{self.host}: {str(error) or type(error).__name__}") from error
        fields = {name.lower(): value for name, value in answer.headers}
        return Answer(answer.status, text, _retry_after(fields.get(b"retry-after", b""), now))

    def _headers(self, key: str, body: bytes, now: float) -> list[tuple[str, str]]:
        signed = {"webhook-id": key, "webhook-timestamp": str(int(now))}
        if self._secret_file is not None:
            # The library takes the fields of the date as UTC whatever its zone, so the zone must be UTC.
            at = datetime.fromtimestamp(int(now), UTC)
            secrets = read_secrets(self._secret_file)
            signatures = [standardwebhooks.Webhook(secret).sign(key, at, body.decode()) for secret in secrets]
            signed["webhook-signature"] = " ".join(signatures)
        general = {"content-type": "application/json", "user-agent": "ModelWarden", "accept-encoding": "identity"}
        return [*{**general, **self._authorization, **signed}.items()]


def read_secrets(path: Path) -> list[str]:
    """The secrets in a file. DeliveryError, which does not show them, when they cannot be used."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise DeliveryError(f"secret_file {path} cannot be read: {reason}") from None
    mend = f"write {_PREFIX} and 24 to 64 random bytes in base64 on a line"
    for line in lines:
        encoded = line.removeprefix(_PREFIX)
        try:
            length = len(base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True))
        except binascii.Error:
            length = 0
        if not line.startswith(_PREFIX) or not 24 <= length <= 64:
            raise DeliveryError(f"secret_file {path} holds a line that is no secret: {mend}")
    if not lines:
        raise DeliveryError(f"secret_file {path} is empty: {mend}")
    return lines


def is_public(address: Address) -> bool:
    """Whether an address is on the public Internet; of IPv6 that carries an IPv4 address, whether that one is too."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not (address.is_multicast or address.is_reserved)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    inner = [address.sixtofour, *(address.teredo or ())]
    return address in _GLOBAL_UNICAST and address.is_global and all(is_public(a) for a in inner if a is not None)


class _CheckedNetwork(httpcore.NetworkBackend):
    """Connects to addresses that were checked, and to nothing after the deadline."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._sockets = httpcore.SyncBackend()
        self.deadline = 0.0

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._resolve(host, port)
        last: Exception | None = None
        for address in addresses:
            try:
                stream = self._sockets.connect_tcp(str(address), port, self.left(), local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
            else:
                return _TimedStream(stream, self)
        raise last or httpcore.ConnectError("no address")

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        raise httpcore.ConnectError("a webhook is not a socket on this machine")

    def left(self) -> float:
        """Seconds until the deadline; ReadTimeout when it is over."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout(f"no complete answer within {TIMEOUT:.0f} s")
        return left

    def _resolve(self, host: str, port: int) -> list[Address]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name cannot be resolved: {error}") from error
        addresses = list(dict.fromkeys(ipaddress.ip_address(str(place[4][0])) for place in found))
        if not self._allow_private and not all(is_public(a) for a in addresses):
            raise httpcore.ConnectError(
                "the name leads to a private, loopback or link-local address; if that is meant, set allow_private"
            )
        return addresses


class _TimedStream(httpcore.NetworkStream):
    """A connection whose every step ends at the deadline: one byte now and then does not hold it open."""

    def __init__(self, stream: httpcore.NetworkStream, network: _CheckedNetwork) -> None:
        self._stream = stream
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._network.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, self._network.left()), self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


_LIMITS: dict[str, Any] = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT)}


def _beginning(answer: httpcore.Response) -> str:
    """The beginning of the body, printable. The status has been read: whatever happens to the body changes nothing."""
    read = b""
    try:
        for piece in answer.iter_stream():
            read += piece
            if len(read) >= MAX_ANSWER:
                break
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
        pass
    text = read[:200].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _retry_after(field: bytes, now: float) -> float | None:
    """Seconds from a Retry-After header (a number, or a date), at most `MAX_RETRY_AFTER`."""
    text = field.decode("ascii", "replace").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), MAX_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(text)
        at = date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(at - now, 0.0), MAX_RETRY_AFTER)


def _basic(url: httpx.URL) -> dict[str, str]:
    """Credentials of the URL as a header."""
    if not url.userinfo:
        return {}
    return {"authorization": "Basic " + base64.b64encode(f"{url.username}:{url.password}".encode()).decode()}
