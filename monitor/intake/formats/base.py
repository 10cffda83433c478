"""What every format offers, the rules of the topic it decodes for, and the registry of formats."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, get_args

from monitor.intake.events import Decoded, Record
from monitor.intake.forwarded import Network, caller, holds_chain
from monitor.intake.identity import Pseudonyms
from monitor.intake.text import clean

EventKind = Literal["auto", "prediction", "label", "access", "metric", "request", "response"]
HALVES = frozenset({"request", "response"})
"""Types whose records are halves of predictions, joined by `monitor.intake.pairing`."""


@dataclass(frozen=True)
class TopicRules:
    """How the records of one topic (or file) are read. Sizes in bytes, times in seconds.

    `client_from`: "header:NAME", "field:PATH" (dots descend) or "key", the first that exists. `default_time` is the
    time of an event that has none, as rows of a reference may (None: such an event is rejected). `trusted_proxies`: see
    `monitor.intake.forwarded`; only the address behind them is taken of a chain of forwarded addresses.
    """

    topic: str
    pseudonyms: Pseudonyms
    type: EventKind = "auto"
    time: Literal["event", "broker"] = "event"
    live: bool = False
    model: str | None = None
    tenant: str | None = None
    client_from: tuple[str, ...] = ("field:client",)
    record_bytes: int = 262_144
    record_age: float = 604_800.0
    skew: float = 600.0
    default_time: float | None = None
    trusted_proxies: tuple[Network, ...] = ()

    @cached_property
    def client_places(self) -> tuple[ClientPlace, ...]:
        """`client_from`, parsed. ValueError names an entry that is none of the three."""
        return tuple(_client_place(text) for text in self.client_from)

    @cached_property
    def client_fields(self) -> frozenset[str]:
        """Top-level fields that hold the client's identifier."""
        return frozenset(p.path[0] for p in self.client_places if p.kind == "field" and len(p.path) == 1)

    @cached_property
    def client_roots(self) -> frozenset[str]:
        """Top-level fields that hold, or contain, the client's identifier."""
        return frozenset(p.path[0] for p in self.client_places if p.kind == "field")

    def take_client(self, record: Record, fields: dict[str, Any]) -> str | None:
        """The client's identifier as logged, None where there is none.

        It is removed from nested fields, so that a mapping which is passed on as it is does not carry it.
        """
        found = None
        for place in self.client_places:
            if place.kind == "field" and len(place.path) == 1:
                value: Any = fields.get(place.path[0])
            elif place.kind == "field":
                value = _pop(fields, place.path)
            elif found is None:
                value = header(record, place.path[0]) if place.kind == "header" else as_text(record.key)
            if found is None:
                found = value if type(value) is str and value else identifier(value)
                if found is not None and place.chain:
                    found = caller(found, self.trusted_proxies)
        return found


class ClientPlace(NamedTuple):
    """Where a client is found. `path`: of a field its parts, of a header its name in lower case."""

    kind: Literal["header", "field", "key"]
    path: tuple[str, ...]
    chain: bool = False
    """Whether it holds the addresses of a chain of proxies."""


class Format(Protocol):
    """Decodes the records of one kind of log. `name` is what `format:` says in the configuration.

    A format may have `types`, the topic types it reads; without it these are all but request and response.
    """

    name: str

    def decode(self, record: Record, settings: TopicRules) -> Decoded:
        """The events of one record. Raises Rejected for a record that is bad as a whole, and nothing else."""
        ...


_MAX_ID_BITS = 1_024
F = TypeVar("F", bound=type[Format])
_FORMATS: dict[str, Format] = {}


def register(cls: F) -> F:
    """Class decorator: make a format known under its name."""
    if cls.name in _FORMATS:
        raise ValueError(f"two formats are called {cls.name!r}")
    _FORMATS[cls.name] = cls()
    return cls


def formats() -> Mapping[str, Format]:
    """All formats by name, sorted: walks the package once and imports every module in it."""
    import monitor.intake.formats as package

    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    return dict(sorted(_FORMATS.items()))


def reads(form: Format, type: EventKind) -> bool:
    """Whether a format reads topics of this type."""
    return type in read_types(form)


def read_types(form: Format) -> tuple[str, ...]:
    """The topic types that a format reads."""
    types: frozenset[str] | None = getattr(form, "types", None)
    return tuple(t for t in get_args(EventKind) if (t not in HALVES if types is None else t in types))


def header(record: Record, name: str) -> str | None:
    """The first non-empty header of this name (in lower case; any case matches) as text."""
    for key, value in record.headers:
        if value and key.lower() == name:
            return as_text(value)
    return None


def as_text(value: bytes | None) -> str | None:
    """Bytes as text: UTF-8, else byte by byte, so that different bytes stay different."""
    if not value:
        return None
    try:
        return clean(value.decode())
    except UnicodeDecodeError:
        return clean(value.decode("latin-1"))


def identifier(value: Any) -> str | None:
    """Text or a finite number as non-empty text, else None. 12.0 is "12": some writers make floats of whole ids."""
    kind = type(value)
    if kind is str:
        return value or None
    if kind is int:
        return str(value) if value.bit_length() <= _MAX_ID_BITS else None
    if kind is float and math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return None


def _client_place(text: str) -> ClientPlace:
    kind, _, name = text.partition(":")
    if kind == "header" and name:
        return ClientPlace("header", (name.lower(),), holds_chain(name))
    if kind == "field" and name:
        path = tuple(name.split("."))
        return ClientPlace("field", path, holds_chain(path[-1]))
    if text == "key":
        return ClientPlace("key", ())
    raise ValueError(f"client_from: {text!r} is none of header:NAME, field:PATH and key")


def _pop(fields: dict[str, Any], path: tuple[str, ...]) -> Any:
    parent: Any = fields
    for part in path[:-1]:
        parent = parent.get(part) if type(parent) is dict else None
    return parent.pop(path[-1], None) if type(parent) is dict else None
