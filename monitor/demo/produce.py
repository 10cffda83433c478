"""Send events to Kafka at a given rate, each with its client as key, and count what arrived."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from monitor.intake.packed import unpacked

_FLUSH_SECONDS = 60.0
_EARLY = 0.005
"""Messages are sent up to this much early, so that a fast rate does not sleep between any two."""


class Message(NamedTuple):
    """A record to send. `at`: not before this epoch second."""

    key: bytes | None
    value: bytes
    at: float | None = None


@dataclass(slots=True)
class Produced:
    """Records given to the client, acknowledged by the broker and refused, and how long it took."""

    sent: int = 0
    acknowledged: int = 0
    failed: int = 0
    seconds: float = 0.0
    error: str = ""
    """The first failure."""


def produce(
    bootstrap_servers: str | Sequence[str],
    topic: str,
    messages: Iterable[Message],
    *,
    rate: float | None = None,
    client_options: Mapping[str, Any] | None = None,
    stop: threading.Event | None = None,
    progress: Produced | None = None,
) -> Produced:
    """Send messages in order until they end or `stop` is set; returns when all are acknowledged or refused.

    `rate` is in messages a second; without it each goes at its `at`, or at once. `client_options` are kafka-python's
    (encryption, login, api_version). `progress` is filled as it goes. KafkaError when no broker answers.
    """
    done = progress if progress is not None else Produced()
    stop = stop if stop is not None else threading.Event()
    options = {"acks": "all", "enable_idempotence": True, "compression_type": "lz4", "linger_ms": 20}
    client = KafkaProducer(bootstrap_servers=bootstrap_servers, **(options | dict(client_options or {})))
    begin = time.time()
    try:
        for i, message in enumerate(messages):
            due = begin + i / rate if rate else message.at
            if _stopped(stop, due):
                break
            future = client.send(topic, message.value, key=message.key)
            done.sent += 1
            future.add_callback(partial(_acknowledge, done)).add_errback(partial(_fail, done))
        client.flush(timeout=_FLUSH_SECONDS)
    finally:
        client.close(timeout=5)
        done.seconds = time.time() - begin
    return done


def messages_of(lines: Iterable[bytes]) -> Iterator[Message]:
    """Lines as they are, each keyed with its `client` (none where a line is no event); empty lines are left out."""
    for line in lines:
        value = line.rstrip(b"\r\n")
        if value:
            yield Message(client_of(value), value)


def client_of(value: bytes) -> bytes | None:
    """The client of an encoded event; None where there is none, or where it cannot be read."""
    try:
        client = _DECODER.decode(value).client
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return None if client is None else client.encode("utf-8", "replace")


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file of events, plain or gz."""
    with path.open("rb") as raw, unpacked(raw) as file:
        yield from file


class _Keyed(msgspec.Struct):
    client: str | None = None


_DECODER = msgspec.json.Decoder(_Keyed)


def _stopped(stop: threading.Event, due: float | None) -> bool:
    """Wait until `due`; True when asked to stop."""
    if due is not None:
        delay = due - time.time()
        if delay > _EARLY:
            return stop.wait(delay)
    return stop.is_set()


def _acknowledge(done: Produced, _: object) -> None:
    done.acknowledged += 1  # callbacks all run in the one thread of the client


def _fail(done: Produced, error: BaseException) -> None:
    done.failed += 1
    done.error = done.error or f"{type(error).__name__}: {error}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Send a file of events to a topic, as they are and in order. Prints the counts as one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m monitor.demo.produce", description=main.__doc__)
    parser.add_argument("--bootstrap", required=True, metavar="HOST:PORT")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--events", required=True, type=Path, metavar="FILE", help="JSON lines, plain or gz")
    parser.add_argument("--rate", type=float, help="events a second; default: as fast as it goes")
    parser.add_argument("--api-version", metavar="2.3", help="fix the protocol version (embedded broker: 2.3)")
    parser.add_argument("--options", type=json.loads, default={}, metavar="JSON", help="further kafka-python options")
    given = parser.parse_args(arguments)
    if given.rate is not None and not given.rate > 0:
        parser.error("--rate must be above 0")
    options = dict(given.options)
    if given.api_version:
        options["api_version"] = tuple(int(part) for part in given.api_version.split("."))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        lines = messages_of(read_lines(given.events))
        done = produce(given.bootstrap, given.topic, lines, rate=given.rate, client_options=options, stop=stop)
    except (OSError, EOFError, KafkaError) as error:
        print(f"{given.events} could not be sent to {given.topic} at {given.bootstrap}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(done)))
    return 0 if done.acknowledged == done.sent else 1


if __name__ == "__main__":
    sys.exit(main())
