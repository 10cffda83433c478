"""Open Inference Protocol v2 in JSON, as MLServer writes it to Kafka: requests on one topic, responses on another.

A request holds input tensors, a response output tensors, of many rows each; the record key is the request's id and
joins the two (`monitor.intake.pairing`). Time is the broker's: the protocol has none.
Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec

from monitor.intake.columns import MAX_FIELDS
from monitor.intake.events import Decoded, Half, Reason, Record, Rejected, Tensor
from monitor.intake.formats.base import HALVES, TopicRules, as_text, header, identifier, register
from monitor.intake.formats.native import EARLIEST, LATEST, MAX_NAME, MAX_TEXT, checked_name
from monitor.intake.json_object import INT_LIMIT, json_type, parse_object

MAX_DIMENSIONS = 8
MAX_ROWS = 50_000
"""Of a record: a row costs far more as an event than the two bytes it may have in JSON."""
_Value = Annotated[int, msgspec.Meta(ge=-INT_LIMIT, le=INT_LIMIT - 1)] | float | str | bool | None
_NUMBERS = frozenset(
    {"UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16"}
)
_DATATYPES = _NUMBERS | {"BOOL", "BYTES"}
_SCALARS = frozenset({int, float, str, bool, type(None)})


class _Wire(msgspec.Struct, gc=False):
    """A tensor as written. The quick parser fills it with these types, the careful one with whatever is there."""

    name: str
    shape: list[int]
    datatype: str
    data: list[_Value | list[_Value]]
    parameters: dict[str, Any] | None = None


class _Body(msgspec.Struct, gc=False):
    id: str | int | None = None
    model_name: str | None = None
    model_version: str | None = None


class _Request(_Body, gc=False):
    inputs: list[_Wire] = []


class _Response(_Body, gc=False):
    outputs: list[_Wire] = []


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_response = msgspec.json.Decoder(_Response).decode


@register
class OpenInferenceFormat:
    """Decodes one request or response into a `Half`.

    Rejected are records that do not hold together: no key, no tensors, a shape that does not match its data, tensors
    of different numbers of rows, binary tensor data. A bad value in a tensor (NaN, text among numbers) is passed on,
    and is no number to the detectors.
    """

    name = "oip-v2"
    types = HALVES

    def decode(self, record: Record, settings: TopicRules) -> Decoded:
        """The half that `record` is. Raises Rejected."""
        json_bytes = header(record, "inference-header-content-length")
        if json_bytes is not None and json_bytes != str(len(record.value or b"")):
            raise _binary()
        is_response = settings.type == "response"
        time = _time(record)
        body, tensors, client, failed = _quick(record, settings, is_response) or _careful(record, settings, is_response)
        columns, rows = ([], 0) if failed else _tensors(tensors, "outputs" if is_response else "inputs")
        half = Half(
            key=_key(record, body),
            is_response=is_response,
            time=time,
            place=(record.topic, record.partition, record.offset),
            rows=rows,
            tensors=columns,
            model=_model(record, body, settings),
            model_version=_version(record, body),
            tenant=settings.tenant or "",
            client=settings.pseudonyms.client(client, time) if client else None,
            failed=failed,
        )
        return Decoded([], [], half)


_Parsed = tuple[_Body, Any, str | None, bool]
"""Body, its tensors, the client, and whether the response is an error."""


def _quick(record: Record, rules: TopicRules, is_response: bool) -> _Parsed | None:
    """The usual record; None where anything is unusual.

    Without a backslash no string holds what a store refuses. Of a key that is written twice the last counts, as in
    the servers' own parsers.
    """
    raw = record.value
    if not raw or len(raw) > rules.record_bytes or b"\\" in raw:
        return None
    if any(root.encode() in raw for root in rules.client_roots):
        return None
    body: _Request | _Response
    try:
        body = _decode_response(raw) if is_response else _decode_request(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    tensors = body.outputs if isinstance(body, _Response) else body.inputs
    return (body, tensors, rules.take_client(record, {}), False) if tensors else None


def _careful(record: Record, rules: TopicRules, is_response: bool) -> _Parsed:
    """Any record, with all that can be wrong with it. Raises Rejected."""
    fields = parse_object(record.value, rules.record_bytes)
    client = rules.take_client(record, fields)
    body = _Body(fields.get("id"), fields.get("model_name"), fields.get("model_version"))
    listed = fields.get("outputs" if is_response else "inputs")
    failed = is_response and "outputs" not in fields and "error" in fields
    if type(listed) is list:
        listed = [_as_written(item) if type(item) is dict else item for item in listed]
    return body, listed, client, failed


def _as_written(item: dict[str, Any]) -> _Wire:
    values: list[Any] = [item.get(name) for name in _Wire.__struct_fields__]
    return _Wire(*values)


def _time(record: Record) -> float:
    time = record.timestamp
    if time is None or not EARLIEST <= time < LATEST:
        raise Rejected(Reason.BAD_TIME, "the record has no broker time between 1990 and 2100")
    return time


def _key(record: Record, body: _Body) -> str:
    key = as_text(record.key) or identifier(body.id)
    if not key:
        raise Rejected(Reason.NO_SUBJECT, "neither a record key nor an id: request and response cannot be joined")
    if len(key) > MAX_TEXT:
        raise Rejected(Reason.BAD_FIELD, f"the record key is longer than {MAX_TEXT} characters")
    return key


def _model(record: Record, body: _Body, rules: TopicRules) -> str | None:
    """The server's word first; of a request, where the server may say it later, None is no fault."""
    name: Any = body.model_name or header(record, "ce-modelid") or header(record, "mlserver-model") or rules.model
    if name is None:
        return None
    if type(name) is not str or len(name.encode()) > MAX_NAME:
        raise Rejected(Reason.BAD_FIELD, f"the model's name is not a text of 1 to {MAX_NAME} bytes")
    return checked_name("model", name)


def _version(record: Record, body: _Body) -> str | None:
    version = identifier(body.model_version) or header(record, "mlserver-version")
    return None if version is None else version[:MAX_TEXT]


def _tensors(listed: Any, field: str) -> tuple[list[Tensor], int]:
    """The tensors of a body and the number of rows that all of them have."""
    if type(listed) is not list or not listed:
        raise Rejected(Reason.BAD_FIELD, f"{field} is no list of tensors")
    tensors: list[Tensor] = []
    names: set[str] = set()
    rows = -1
    for i, item in enumerate(listed):
        where = f"{field}[{i}]"
        if type(item) is not _Wire:
            raise Rejected(Reason.BAD_FIELD, f"{where} is {json_type(item)}, not an object")
        tensor, n = _tensor(item, where)
        if rows not in (-1, n):
            raise Rejected(Reason.BAD_FIELD, f"{where} has {n} rows, the tensors before it have {rows}")
        if tensor.name in names:
            raise Rejected(Reason.BAD_FIELD, f"{where} has the name of a tensor before it")
        names.add(tensor.name)
        tensors.append(tensor)
        rows = n
    return tensors, rows


def _tensor(item: _Wire, where: str) -> tuple[Tensor, int]:
    parameters: Any = item.parameters
    if type(parameters) is dict and "binary_data_size" in parameters:
        raise _binary()
    name: Any = item.name
    datatype: Any = item.datatype
    if type(name) is not str or not 1 <= len(name) <= MAX_NAME:
        raise Rejected(Reason.BAD_FIELD, f"{where}.name is not a text of 1 to {MAX_NAME} characters")
    if type(datatype) is not str or datatype not in _DATATYPES:
        raise Rejected(Reason.BAD_FIELD, f"{where}.datatype is none of the protocol's")
    rows, width = _shape(item.shape, where)
    values = _flat(item.data, rows, width, where)
    if not _SCALARS.issuperset(map(type, values)):
        raise Rejected(Reason.BAD_FIELD, f"{where}.data holds something that is no value")
    if width > MAX_FIELDS:  # more are not watched
        values = [v for at in range(0, len(values), width) for v in values[at : at + MAX_FIELDS]]
        width = MAX_FIELDS
    if datatype == "BOOL":
        values = [bool(v) if v in (0, 1) else v for v in values]
    return Tensor(name, width, values), rows


def _shape(shape: Any, where: str) -> tuple[int, int]:
    """Rows, and values a row. Nothing is allocated by what it says."""
    if type(shape) is not list or not 1 <= len(shape) <= MAX_DIMENSIONS:
        raise Rejected(Reason.BAD_FIELD, f"{where}.shape is no list of 1 to {MAX_DIMENSIONS} sizes")
    if any(type(size) is not int or size < 0 for size in shape):
        raise Rejected(Reason.BAD_FIELD, f"{where}.shape holds something that is no size")
    rows, width = shape[0], math.prod(shape[1:])
    if rows > MAX_ROWS:
        raise Rejected(Reason.BAD_FIELD, f"{where} has more than {MAX_ROWS:,} rows")
    if rows and not width:
        raise Rejected(Reason.BAD_FIELD, f"{where}.shape has rows without values")
    return rows, width


def _flat(data: Any, rows: int, width: int, where: str) -> list[Any]:
    """All values row by row, of data that is flat or nested; as many as the shape says, in each row too."""
    if type(data) is not list:
        raise Rejected(Reason.BAD_FIELD, f"{where}.data is {json_type(data)}, not an array")
    nested = bool(data) and type(data[0]) is list
    values = data
    if nested:
        values = []
        for row in data:
            begin = len(values)
            if type(row) is not list:
                raise _mismatch(where)
            _spread(row, values)
            if len(values) - begin != width:
                raise _mismatch(where)
    if len(values) != rows * width or (nested and len(data) != rows):
        raise _mismatch(where)
    return values


def _spread(row: list[Any], values: list[Any]) -> None:
    """Append what `row` holds at any depth (the parser bounds it)."""
    if list not in map(type, row):
        values += row
        return
    for item in row:
        if type(item) is list:
            _spread(item, values)
        else:
            values.append(item)


def _mismatch(where: str) -> Rejected:
    return Rejected(Reason.BAD_FIELD, f"{where}.data does not have the values that its shape says")


def _binary() -> Rejected:
    return Rejected(Reason.BAD_FORMAT, "tensor data is binary (binary_data_size): only data in JSON is read")
