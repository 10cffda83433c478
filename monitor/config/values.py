"""The scalars of the configuration: durations, sizes, paths, addresses, times, URLs. Each says how it is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema

from monitor.config.section import wrong
from monitor.config.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class ConfigPath:
    """A path of the file: `path` is resolved against the directory of the configuration, `written` is for messages."""

    written: str
    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class DatabaseUrl:
    """A database URL that does not show its password: `str()` and `repr()` are masked, `url` is the real one.

    `path` is the file of SQLite, or None for a database in memory and for PostgreSQL.
    """

    url: str = field(repr=False)
    written: str = field(repr=False)
    backend: Literal["sqlite", "postgresql"]
    path: Path | None
    masked: str

    def __str__(self) -> str:
        return self.masked


@dataclass(frozen=True)
class ClientSource:
    """Where the client's identity is found: header NAME, field PATH (dots descend), or the record's key (name "")."""

    kind: Literal["header", "field", "key"]
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


@dataclass(frozen=True)
class Address:
    """Host and port; the host of an IPv6 address has no brackets. Port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _text(value: object, what: str, example: str) -> str:
    if not isinstance(value, str):
        raise wrong(f"This must be {what}.", f"Write it as text, like {example}.")
    return value


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    text = _text(value, "a duration with its unit", "10s, 12h or 30d")
    try:
        return parse_duration(text)
    except ValueError as error:
        raise wrong("This is not a duration.", str(error)) from None


def _positive_duration(value: object) -> timedelta:
    duration = _duration(value)
    if not duration:
        raise wrong("This duration must be longer than zero.", "Write a longer one, for example 10s.")
    return duration


def _size(value: object) -> int:
    text = _text(value, "a size with its unit", "256KiB or 512MiB")
    try:
        size = parse_size(text)
    except ValueError as error:
        raise wrong("This is not a size.", str(error)) from None
    if not size:
        raise wrong("This size must be larger than zero.", "Write a larger one, for example 1KiB.")
    return size


def _path(value: object, info: ValidationInfo) -> ConfigPath:
    if isinstance(value, ConfigPath):
        return value
    written = _text(value, "a path", "refs/credit.jsonl.gz")
    if not written or "\0" in written:
        raise wrong("This is not a path.", "Write the path of a file, or remove the key.")
    return ConfigPath(written, base_directory(info) / written)


def base_directory(info: ValidationInfo) -> Path:
    """The directory that relative paths start from: that of the configuration file, else the current one."""
    base = info.context.get("base") if isinstance(info.context, dict) else None
    return base if isinstance(base, Path) else Path.cwd()


_URL_MEND = (
    "Write sqlite:///modelwarden.db or postgresql+psycopg://user:password@host/name; "
    "encode / and @ in a password as %2F and %40."
)
_SCHEMES: dict[str, Literal["sqlite", "postgresql"]] = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "postgresql+psycopg": "postgresql",
}


def _database(value: object, info: ValidationInfo) -> DatabaseUrl:
    if isinstance(value, DatabaseUrl):
        return value
    written = _text(value, "a database URL", "sqlite:///modelwarden.db")
    scheme, _, rest = written.partition("://")
    backend = _SCHEMES.get(scheme)
    if backend is None or "\0" in rest:
        raise wrong("This is not a URL of SQLite or PostgreSQL (with psycopg).", _URL_MEND)
    return _sqlite(written, rest, info) if backend == "sqlite" else _postgresql(written, rest)


def _sqlite(written: str, rest: str, info: ValidationInfo) -> DatabaseUrl:
    if rest and not rest.startswith("/"):
        raise wrong("The URL of SQLite takes three slashes before its path.", "Write sqlite:///modelwarden.db.")
    name, mark, query = rest[1:].partition("?")
    if name in ("", ":memory:"):
        return DatabaseUrl(written, written, "sqlite", None, "sqlite:///:memory:")
    path = base_directory(info) / name
    url = f"sqlite:///{path}"
    return DatabaseUrl(url + mark + query, written, "sqlite", path, url)


def _postgresql(written: str, rest: str) -> DatabaseUrl:
    url = f"postgresql+psycopg://{rest}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong("Host and port of the database cannot be read.", _URL_MEND) from None
    user = f"{parts.username}:***@" if parts.username else ""
    shown = f"postgresql+psycopg://{user}{host or ''}{'' if port is None else f':{port}'}{parts.path}"
    return DatabaseUrl(url, written, "postgresql", None, shown)


_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})")


def _address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    match = _HOST.fullmatch(_text(value, "a host and a port", '"127.0.0.1:9464"'))
    if match is None or int(match.group(3)) > 65_535:
        raise wrong("This is not a host and a port.", 'Write "host:port", for example "127.0.0.1:9464".')
    return Address(match.group(1) or match.group(2), int(match.group(3)))


def _server(value: object) -> Address:
    address = _address(value)
    if not address.port:
        raise wrong("The port of a broker cannot be 0.", 'Write "host:port", for example "kafka:9092".')
    return address


def _network(value: object) -> Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    text = _text(value, "a network", "10.0.0.0/8")
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        mend = f"Write {ip_network(text, strict=False)}, or the single address with /32 (IPv6: /128)."
    except ValueError:
        mend = "Write address and prefix length, for example 10.0.0.0/8 or 2001:db8::/32."
    raise wrong("This is not a network in CIDR notation.", mend)


def _start(value: object) -> Literal["latest", "earliest"] | datetime:
    if value == "latest" or value == "earliest":
        return "latest" if value == "latest" else "earliest"
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    mend = "Write latest, earliest or a time with its zone, for example 2026-11-20T08:00:00Z."
    if isinstance(value, str) and re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}", value):
        try:
            time = datetime.fromisoformat(value.upper())
        except ValueError:
            time = None
        if time is not None and time.tzinfo is not None:
            return time
    raise wrong("This is not a place to start.", mend)


def _client_source(value: object) -> ClientSource:
    if isinstance(value, ClientSource):
        return value
    text = _text(value, "header:NAME, field:PATH or key", '"field:client"')
    kind, _, name = text.partition(":")
    if text == "key":
        return ClientSource("key", "")
    if name and (kind == "header" or kind == "field"):
        return ClientSource("header" if kind == "header" else "field", name)
    raise wrong("This does not name a source of the client.", 'Write "header:NAME", "field:PATH" or "key".')


def _http_url(value: object) -> str:
    text = _text(value, "a URL", '"https://example.com/hook"')
    mend = "Write http:// or https://, a host, and the path."
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(character.isspace() or not character.isprintable() for character in text):
        raise wrong("This is not an HTTP URL.", mend)
    return text


def _label(value: object) -> str:
    """A class name; true and 1 are the names that a JSON event would show."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise wrong("This is not a class name.", 'Write it in quotes, for example "yes".')


def _no_bool(value: object) -> object:
    # Without this, true would count as the number 1.
    if isinstance(value, bool):
        raise wrong("This must be a number, not true or false.", "Write a number.")
    return value


def _written(parse: Callable[..., Any], pattern: str | None = None, **schema: Any) -> tuple[Any, Any, Any]:
    described = {"type": "string", **({"pattern": pattern} if pattern else {}), **schema}
    return PlainValidator(parse), PlainSerializer(str, when_used="json"), WithJsonSchema(described)


Duration = Annotated[
    timedelta,
    PlainValidator(_positive_duration),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
]
DurationOrZero = Annotated[
    timedelta,
    PlainValidator(_duration),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
]
Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(format_size, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN}),
]
# The bounds stand before the validator, so that the JSON Schema has them too.
Natural = Annotated[int, Field(ge=0, le=1_000_000_000), BeforeValidator(_no_bool)]
Positive = Annotated[int, Field(gt=0, le=1_000_000_000), BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool)]
Weight = Annotated[float, Field(ge=0), BeforeValidator(_no_bool)]
Alarms = Annotated[float, Field(gt=0, le=1_000_000), BeforeValidator(_no_bool)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Label = Annotated[str, BeforeValidator(_label), WithJsonSchema({"type": ["string", "integer", "boolean"]})]
PathKey = Annotated[ConfigPath, *_written(_path)]
DatabaseKey = Annotated[DatabaseUrl, *_written(_database)]
AddressKey = Annotated[Address, *_written(_address)]
ServerKey = Annotated[Address, *_written(_server)]
NetworkKey = Annotated[Network, *_written(_network)]
ClientKey = Annotated[ClientSource, *_written(_client_source, pattern="^(header:.+|field:.+|key)$")]
UrlKey = Annotated[str, *_written(_http_url, format="uri")]
StartKey = Annotated[
    Literal["latest", "earliest"] | datetime,
    PlainValidator(_start),
    WithJsonSchema({"anyOf": [{"enum": ["latest", "earliest"]}, {"type": "string", "format": "date-time"}]}),
]
Switch = Annotated[bool, WithJsonSchema({"enum": ["on", "off", True, False]})]
