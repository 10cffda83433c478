"""What flows from a source to the detectors: records as they lie in the log, and the events decoded from them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec


class Record(NamedTuple):
    """One record of a source. `timestamp` is the broker's, in epoch seconds (of a file: None)."""

    topic: str
    partition: int
    offset: int
    timestamp: float | None
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class EventType(StrEnum):
    """What a native event is."""

    PREDICTION = "prediction"
    LABEL = "label"
    ACCESS = "access"
    METRIC = "metric"


class Event(msgspec.Struct, gc=False):
    """One decoded row. Identifiers of clients, principals and addresses are pseudonyms already.

    `features` is the mapping as logged (values of any JSON type), or None where `vector` (flat numbers) stands for
    it. `scores` is a mapping class → number, a sequence in class order, or None.
    """

    type: EventType
    time: float
    row: int = 0
    event_id: str | None = None
    model: str | None = None
    tenant: str = ""
    model_version: str | None = None
    shadow: bool = False
    client: str | None = None
    features: dict[str, Any] | None = None
    vector: list[float] | None = None
    prediction: Any = None
    scores: Any = None
    label: Any = None
    source: str | None = None
    latency_ms: float | None = None
    sample_weight: float = 1.0
    segment: str | None = None
    request_id: str | None = None
    trace_id: str | None = None
    source_ip: str | None = None
    """Pseudonym of the address; `networks` of its /24 or /48 and the configured networks that contain it."""
    networks: tuple[str, ...] = ()
    principal: str | None = None
    method: str | None = None
    resource: str | None = None
    status: int | None = None
    bytes: float | None = None
    user_agent: str | None = None
    series: str | None = None
    value: float | None = None
    time_corrected: bool = False
    unknown_fields: int = 0


class Tensor(msgspec.Struct, array_like=True, gc=False):
    """Named columns of a request or a response: `values` are row by row, `width` of them a row."""

    name: str
    width: int
    values: list[Any]


class Half(msgspec.Struct, array_like=True, gc=False):
    """A request or a response, which is half of its predictions until the other half is there.

    `key` is what both share. A response whose `failed` is set says that there is no answer.
    """

    key: str
    is_response: bool
    time: float
    place: tuple[str, int, int]
    """Topic, partition and offset."""
    rows: int
    tensors: list[Tensor]
    model: str | None = None
    model_version: str | None = None
    tenant: str = ""
    client: str | None = None
    failed: bool = False


class Reason(StrEnum):
    """Why a record or a row was refused. A closed list: it is a metric label."""

    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    DUPLICATE_KEY = "duplicate_key"
    EMPTY = "empty"
    BAD_TYPE = "bad_type"
    BAD_TIME = "bad_time"
    NO_SUBJECT = "no_subject"
    BAD_FIELD = "bad_field"
    BAD_FORMAT = "bad_format"
    INTERNAL = "internal"


class Rejected(Exception):
    """A record that cannot be taken. `detail` says where and what, with no value of the record in it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class DeadLetter(NamedTuple):
    """What is kept of a refused record: where it lies and its structure, never its values.

    `structure` maps known field names to "type:length"; of a record that does not parse it is empty, and `length`
    and `digest` (keyed hash of the bytes, hex) are all there is. `row` is -1 for a whole record.
    """

    topic: str
    partition: int
    offset: int
    row: int
    reason: Reason
    detail: str
    structure: dict[str, str]
    length: int
    digest: str


class Decoded(NamedTuple):
    """What a format makes of one record: its events, and dead letters of the rows that were bad.

    A format of requests and responses gives a `half` instead of events.
    """

    events: list[Event]
    bad_rows: list[DeadLetter]
    half: Half | None = None
