"""A daemon in a forked child, reading a memory broker with a fast clock, that dies at a fail-point or ends by itself.

A fork costs milliseconds where a new interpreter costs a second: every fail-point can be visited in every run.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from monitor import failpoints
from monitor.assembly import source_topics
from monitor.clock import Clock
from monitor.config import Config, parse_config
from monitor.daemon import Daemon
from monitor.intake.sources.base import Polled, Source, SourceTopic
from monitor.intake.sources.memory import MemoryBroker, MemorySource
from monitor.state.store import open_store

TOPIC = "predictions"
RECORDS_PER_POLL = 150
IDLE_POLLS = 20
"""At the end of the topics: records that wait for those of other partitions are handed on meanwhile."""


class FastClock:
    """Time that flies: each look at the monotonic clock is a tenth of a second later, so ticks come every few polls."""

    def __init__(self) -> None:
        self._at = 0.0

    def now(self) -> float:
        return 1_763_625_600.0 + self._at

    def monotonic(self) -> float:
        self._at += 0.1
        return self._at

    def sleep(self, seconds: float) -> None:
        self._at += seconds


class EndingSource(MemorySource):
    """Reads to the end of the topics and then stops the daemon, as soon as `done` says so."""

    daemon: Daemon | None = None
    idle = 0

    def __init__(
        self, broker: MemoryBroker, topics: Sequence[SourceTopic], done: Callable[[], bool] = lambda: True
    ) -> None:
        super().__init__(broker, topics)
        self._done = done

    def poll(self, timeout: float, max_records: int) -> Polled:
        polled = super().poll(0.0, min(max_records, RECORDS_PER_POLL))
        self.idle = 0 if polled.records or any(self.lag().values()) else self.idle + 1
        if self.idle > IDLE_POLLS and self.daemon is not None and self._done():
            self.daemon.stop()
        return polled


def configuration(directory: Path, url: str | None = None, more: str = "", model: str = "") -> Config:
    """One topic from its beginning, a commit at every tick, a reference beside it; `more` keys, and the `model`'s."""
    key = directory / "identity.key"
    if not key.exists():
        key.write_text("0123456789abcdef" * 4, encoding="ascii")
        key.chmod(0o600)
    return parse_config(configuration_text(directory, url, more, model), directory / "modelwarden.yaml")


def configuration_text(directory: Path, url: str | None = None, more: str = "", model: str = "") -> str:
    """What `configuration` reads."""
    return f"""
kafka: {{bootstrap_servers: ["unused:9092"], group: crash, topics: [{{name: {TOPIC}, start: earliest, live: false}}]}}
store: {{url: "{url or f"sqlite:///{directory}/state.db"}", commit_interval: 0.2s}}
identity: {{key_file: {directory}/identity.key}}
models: {{credit-risk: {{reference: {directory}/reference.jsonl{model and f", {model}"}}}}}
api: {{listen: "127.0.0.1:0"}}
{more}
"""


def fill(broker: MemoryBroker, events: Sequence[bytes], partitions: int) -> None:
    """Produce the events round robin."""
    broker.create_topic(TOPIC, partitions)
    for i, event in enumerate(events):
        broker.produce(TOPIC, i % partitions, event)


def run(
    config: Config,
    broker: MemoryBroker,
    spec: str | None,
    clock: Clock | None = None,
    done: Callable[[], bool] = lambda: True,
) -> int:
    """Run a daemon to the end of the topic in a child, and on until `done`. Returns its exit code, negative for a
    signal."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            if spec is not None:
                failpoints.arm(spec)
            source = EndingSource(broker, source_topics(config), done)
            daemon = Daemon(config, clock or FastClock(), lambda _: _as_source(source))
            source.daemon = daemon
            code = daemon.run()
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def counts(config: Config) -> dict[str, int]:
    """Queries per (model, client pseudonym), predictions, labels and joined labels per model, records per topic."""
    from monitor.clients import ClientLedger
    from monitor.watch import CLIENTS

    store = open_store(config.store.url.url, "crash")
    try:
        status = store.status()
        found = {f"predictions {m['model']}": m["predictions"] for m in status["models"]}
        found |= {f"labels {m['model']}": m["labels"] for m in status["models"]}
        found |= {f"labels matched {m['model']}": m["labels_matched"] for m in status["models"]}
        found |= {f"received {t['topic']}/{t['partition']}": t["received"] for t in status["topics"]}
        for model in status["models"]:
            ledger = ClientLedger()
            pages = store.load_pages(model["subject"])
            ledger.restore({p.page: p.arrays for p in pages if p.detector == CLIENTS})
            found |= {f"{model['model']} {c.client}": c.queries for c in ledger.counts()}
        return found
    finally:
        store.close()


def incidents(config: Config) -> list[tuple[str, str, str | None, tuple[str, ...], str]]:
    """(id, kind, model, subjects, status) of all incidents, in order of opening."""
    store = open_store(config.store.url.url, "crash")
    try:
        found = sorted(store.incidents(), key=lambda i: (i.opened_at, i.id))
        return [(i.id, i.kind, i.model, tuple(s.id for s in i.subjects), i.status) for i in found]
    finally:
        store.close()


def _as_source(source: EndingSource) -> Source:
    return source
