"""Fills a topic of its own on a real broker, reads it as the daemon does, and says what an event costs."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from monitor.assembly import reference_rules, topic_rules, watch_settings
from monitor.bench.stages import Stages, measure
from monitor.bench.traffic import MODEL, events, rows
from monitor.config import Config, parse_config
from monitor.daemon import Daemon, kafka_source
from monitor.demo.produce import Message, produce
from monitor.intake.events import Record
from monitor.intake.formats.base import formats
from monitor.intake.identity import Pseudonyms
from monitor.intake.sources.base import Polled, Source
from monitor.references import read_reference
from monitor.state.store import open_store

PARTITIONS: Final = 4
PASSES: Final = 3
REFERENCE_ROWS: Final = 2_000
STAGE_EVENTS: Final = 50_000
"""Events that the stages are measured one by one on: they are held in memory."""
CLIENTS: Final = {"kafka-python": "kafka", "confluent-kafka": "confluent_kafka"}
_RATE: Final = 1_000.0
_PATIENCE: Final = 60.0
_ANSWER_MS: Final = 5_000
"""A broker answers within this time, or it is taken for none."""
Progress = Callable[[str, float], None]
"""Told what is being done and how far it is, 0 to 1."""

_CONFIG = """\
kafka:
  bootstrap_servers: {servers}
  group: {group}
  client: {client}
  topics: [{{name: {topic}, type: prediction, live: false, start: earliest}}]
store: {{url: {url}}}
identity: {{key_file: {key}}}
models: {{{model}: {{reference: reference.jsonl, classes: ["no", "yes"]}}}}
api: {{listen: "127.0.0.1:0"}}
"""


class BenchError(RuntimeError):
    """The measurement cannot be made. The text says why and what mends it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured: `events` events of `features` features."""

    bootstrap_servers: Sequence[str]
    events: int
    features: int
    directory: Path
    security: Any = None
    """`kafka.security` of a configuration, where the broker asks for it."""
    url: str | None = None
    """A database; None: SQLite in the directory."""


def bench(plan: Plan, progress: Progress = lambda what, share: None) -> dict[str, Any]:
    """The measured costs, as `interfaces.md` names them. BenchError when no broker answers."""
    topic = f"modelwarden-bench-{uuid.uuid4().hex[:12]}"
    with (plan.directory / "reference.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(REFERENCE_ROWS, plan.features, 1))
    with _topic(plan, topic):
        _fill(plan, topic, progress)
        found = [name for name, module in CLIENTS.items() if importlib.util.find_spec(module)]
        return {"sources": [_source(plan, topic, name, progress) for name in found]}


def _source(plan: Plan, topic: str, client: str, progress: Progress) -> dict[str, Any]:
    polls, wholes, written, stages = [], [], [], []
    for i in range(PASSES):
        progress(f"{client}: poll alone, pass {i + 1}", i / PASSES)
        seconds, records = _poll(_config(plan, topic, client, f"poll{i}"), plan.events)
        polls.append(seconds / plan.events)
        progress(f"{client}: stages, pass {i + 1}", (i + 0.3) / PASSES)
        stages.append(_stages(plan, _config(plan, topic, client, f"stages{i}"), records))
        progress(f"{client}: the whole loop, pass {i + 1}", (i + 0.6) / PASSES)
        seconds, counted = _whole(_config(plan, topic, client, f"whole{i}"), plan.events)
        wholes.append(seconds / plan.events)
        written.append(counted / plan.events)
    poll, whole = median(polls), median(wholes)
    names = sorted({name for s in stages for name in s.detectors})
    return {
        "source": client,
        "events": plan.events,
        "features": plan.features,
        "poll_us": _us(poll),
        "decode_us": _us(median(s.decode / s.events for s in stages)),
        "columns_us": _us(median(s.columns / s.events for s in stages)),
        "views_us": _us(median(s.views / s.events for s in stages)),
        "detectors": {name: _us(median(s.detectors[name] / s.events for s in stages)) for name in names},
        "naming_us": _us(median(s.naming / s.events for s in stages)),
        "commit_us": _us(median(s.commit / s.events for s in stages)),
        "all_us": _us(whole),
        "ratio": round(whole / poll, 2),
        "bytes_written_per_event": round(median(written), 1),
    }


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 2)


def _config(plan: Plan, topic: str, client: str, name: str) -> Config:
    """A configuration with a database and a group of its own."""
    place = plan.directory / name
    key = plan.directory / "identity.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(b"0123456789abcdef0123456789abcdef")
    text = _CONFIG.format(
        servers=json.dumps(list(plan.bootstrap_servers)),
        group=json.dumps(f"{topic}-{client}-{name}"),
        client=client,
        topic=topic,
        url=json.dumps(plan.url or f"sqlite:///{place}-{client}.db"),
        key=json.dumps(str(key)),
        model=MODEL,
    )
    config = parse_config(text, plan.directory / "modelwarden.yaml")
    if plan.security is None:
        return config
    return config.model_copy(update={"kafka": config.need_kafka().model_copy(update={"security": plan.security})})


def _poll(config: Config, wanted: int) -> tuple[float, list[Record]]:
    """CPU seconds to poll everything, and the first records."""
    source = kafka_source(config)
    kept: list[Record] = []
    try:
        source.cluster_id()
        source.own(dict.fromkeys(source.discover(), 0))
        begin, seen, deadline = time.process_time(), 0, time.monotonic() + _PATIENCE
        while seen < wanted:
            polled = source.poll(0.2, 1_000)
            for _, records in polled.records:
                seen += len(records)
                if len(kept) < STAGE_EVENTS:
                    kept += records
                deadline = time.monotonic() + _PATIENCE
            if time.monotonic() > deadline:
                raise BenchError(f"only {seen:,} of {wanted:,} records came back from the broker: is it overloaded?")
        return time.process_time() - begin, kept
    finally:
        source.close()


def _stages(plan: Plan, config: Config, records: Sequence[Record]) -> Stages:
    kafka = config.need_kafka()
    store = open_store(config.store.url.url, kafka.group, create=True)
    try:
        lease = store.acquire_lease("bench", 600.0)
        assert lease is not None
        rules = topic_rules(kafka.topics[0], config, Pseudonyms(b"bench" * 8))
        reference = read_reference(plan.directory / "reference.jsonl", formats()["native"], reference_rules(config))
        settings = watch_settings(config.model_settings(MODEL), config.detectors).panel
        return measure(records, reference, (formats()["native"], rules), settings, store, lease)
    finally:
        store.close()


def _whole(config: Config, wanted: int) -> tuple[float, float]:
    """CPU seconds of the daemon from its first records to its last commit, and bytes of state it wrote."""
    ends = _Ends(wanted)
    daemon = Daemon(config, make_source=lambda c: ends.of(kafka_source(c)))
    ends.stop = daemon.stop
    runner = threading.Thread(target=daemon.run, name="bench daemon")
    runner.start()
    runner.join(_PATIENCE + wanted / 1_000)
    if runner.is_alive() or ends.seen < wanted:
        daemon.stop()
        raise BenchError(f"the daemon read {ends.seen:,} of {wanted:,} records: see its log above")
    return time.process_time() - ends.begin, daemon.metrics.state_bytes._value.get()


class _Ends:
    """Stops the daemon when it has read everything."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.seen = 0
        self.begin = 0.0
        self.stop: Callable[[], None] = lambda: None

    def of(self, source: Source) -> Source:
        """The same source, whose polls are counted."""
        poll = source.poll

        def counted(timeout: float, max_records: int) -> Polled:
            if not self.begin:
                self.begin = time.process_time()
            if self.seen >= self.wanted:
                self.stop()
            polled = poll(timeout, max_records)
            self.seen += sum(len(records) for _, records in polled.records)
            return polled

        source.poll = counted  # type: ignore[method-assign]
        return source


@contextmanager
def _topic(plan: Plan, topic: str) -> Iterator[None]:
    """A topic that exists as long as the measurement, whatever ends it."""
    options = {} if plan.security is None else dict(plan.security.client_options())
    try:
        limits = {"bootstrap_timeout_ms": _ANSWER_MS, "request_timeout_ms": 2 * _ANSWER_MS}
        admin = KafkaAdminClient(bootstrap_servers=list(plan.bootstrap_servers), **limits, **options)
        admin.create_topics([NewTopic(name=topic, num_partitions=PARTITIONS, replication_factor=1)])
    except Exception as error:
        servers = ", ".join(plan.bootstrap_servers)
        raise BenchError(
            f"no broker of {servers} made a topic ({type(error).__name__}: {error}); "
            "name a running one with --bootstrap-servers HOST:PORT"
        ) from error
    try:
        yield
    finally:
        try:
            admin.delete_topics([topic])
        finally:
            admin.close()


def _fill(plan: Plan, topic: str, progress: Progress) -> None:
    def messages() -> Iterator[Message]:
        begin = time.time() - plan.events / _RATE
        for i, (key, value) in enumerate(events(plan.events, plan.features, begin, _RATE)):
            if i % 10_000 == 0:
                progress("filling a topic", i / plan.events)
            yield Message(key, value)

    options = {} if plan.security is None else dict(plan.security.client_options())
    done = produce(list(plan.bootstrap_servers), topic, messages(), client_options=options)
    if done.acknowledged != plan.events:
        raise BenchError(f"the broker took {done.acknowledged:,} of {plan.events:,} events: {done.error}")
