"""An embedded broker that speaks the Kafka protocol: librdkafka's mock cluster, in a process of its own.

It needs no Java and no disk, and forgets everything when it ends. What differs from Apache Kafka: topics appear when
they are first named and always have four partitions (there is no way to create one with another number); a
partition keeps 5 MiB as sent, so compress, after which the oldest batches go; times cannot be searched; there are no
transactions. kafka-python cannot read its answer to a version request and must be told: `CLIENT_OPTIONS`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

API_VERSION: Final = (2, 3)
CLIENT_OPTIONS: Final[Mapping[str, Any]] = {"api_version": API_VERSION}
"""What kafka-python clients of this broker must be given."""
PARTITIONS: Final = 4
"""Partitions of every topic of this broker."""
_MISSING = "the demo needs the extra `demo`: pip install 'modelwarden[demo]'"


class BrokerError(RuntimeError):
    """The embedded broker cannot be started. The text says why."""


class EmbeddedBroker:
    """Start and stop the broker: `with EmbeddedBroker(["predictions"]) as bootstrap_servers: ...`.

    It ends with this process, however that ends, because it reads a pipe that only this process holds open.
    """

    def __init__(self, topics: Sequence[str] = ()) -> None:
        self._topics = list(topics)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self, timeout: float = 30.0) -> str:
        """Start it with the topics; returns its address, `host:port`. BrokerError when it does not come up."""
        if importlib.util.find_spec("confluent_kafka") is None:
            raise BrokerError(_MISSING)
        if self._process is not None:
            raise BrokerError("the embedded broker is already running")
        command = [sys.executable, "-m", "monitor.demo.broker", *(f"--topic={name}" for name in self._topics)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in the terminal is for the parent, which then stops it in order
        )
        try:
            return self._address(self._process, timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: float = 5.0) -> None:
        """Stop it and forget what it held. Does nothing when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    @staticmethod
    def _address(process: subprocess.Popen[str], timeout: float) -> str:
        """The line that it prints once it listens."""
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout):
                raise BrokerError(f"the embedded broker did not start within {timeout:g} s")
        line = process.stdout.readline().strip()
        if not line:
            said = process.stderr.read().strip().rpartition("\n")[2]
            raise BrokerError(f"the embedded broker did not start: {said or 'it said nothing'}")
        return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the broker until standard input closes. Prints its address as one line."""
    parser = argparse.ArgumentParser(prog="python -m monitor.demo.broker", description=main.__doc__)
    parser.add_argument("--topic", action="append", default=[], metavar="NAME", help="make this topic at the start")
    topics = parser.parse_args(arguments).topic
    try:
        from confluent_kafka import Producer
    except ImportError as error:
        print(f"{_MISSING} ({error})", file=sys.stderr)
        return 1
    owner = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    broker = next(iter(owner.list_topics(timeout=10).brokers.values()))
    for topic in topics:
        _create(owner, topic)
    print(f"{broker.host}:{broker.port}", flush=True)
    with suppress(KeyboardInterrupt):
        while os.read(sys.stdin.fileno(), 4_096):
            pass
    return 0


def _create(owner: Any, topic: str) -> None:
    """Asking for a topic makes it."""
    deadline = time.monotonic() + 10
    while not owner.list_topics(topic, timeout=10).topics[topic].partitions:
        if time.monotonic() > deadline:
            raise BrokerError(f"the embedded broker did not make the topic {topic}")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
