"""Many models in one daemon: what they cost in memory, and that a quiet one is judged while a hot one floods."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from monitor.config import parse_config
from monitor.daemon import Daemon
from monitor.intake.sources.base import SourceTopic, TopicPartition
from monitor.intake.sources.memory import MemoryBroker, MemorySource
from monitor.state.store import StateStore, open_store
from tests.components.waiting import wait_until

MODELS, CLIENTS, EVENTS, FEATURES = 50, 10_000, 2_000, 20
MAX_RESIDENT = 800 * 2**20


def feed_many() -> None:
    """Runs in a process of its own: 50 models with 200 clients and 2,000 events each; prints what it holds."""
    import numpy as np

    from monitor.intake.events import Record
    from monitor.intake.formats.base import TopicRules, formats
    from monitor.intake.identity import Pseudonyms
    from monitor.intake.reader import Intake
    from monitor.metrics import Metrics
    from monitor.pipeline import Pipeline, PipelineSettings
    from monitor.watch import WatchSettings

    rules = TopicRules("t", Pseudonyms(b"k" * 32), client_from=("field:client",))
    intake = Intake(formats()["native"], rules)
    pipeline = Pipeline(PipelineSettings({"t": intake}, lambda model, tenant: WatchSettings()), Metrics())
    pipeline.own("t", 0, 0)
    rng = np.random.default_rng(1)
    per_model = CLIENTS // MODELS
    offset = 0
    for turn in range(EVENTS // 100):
        for model in range(MODELS):
            rows = []
            for i, values in enumerate(rng.normal(size=(100, FEATURES)).round(3).tolist()):
                at = 1_763_625_600 + turn * 60 + i * 0.5
                client = f"m{model}-c{(turn * 100 + i) % per_model}"
                event = {"type": "prediction", "ts": at, "model": f"m{model}", "client": client}
                event["features"] = {f"f{j}": v for j, v in enumerate(values)}
                rows.append(Record("t", 0, offset, at, None, json.dumps(event).encode()))
                offset += 1
            pipeline.feed("t", 0, rows)
        pipeline.tick(1_763_625_600 + turn * 60 + 60.0)
        pipeline.take_unit(float(turn))
    clients = sum(watch.clients.distinct for watch in pipeline.watches.values())
    watching = sum(watch.panel is not None for watch in pipeline.watches.values())
    print(json.dumps({"watching": watching, "clients": clients, "resident": peak_resident()}))


def peak_resident() -> int:
    """Bytes, of this process alone: on Linux `getrusage` also counts what its parent held when it began."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1_024 for line in lines if line.startswith("VmHWM:"))
    import resource

    unit = 1 if sys.platform == "darwin" else 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def test_fifty_models_and_ten_thousand_clients_in_memory() -> None:
    code = "from tests.monitor.test_many_models import feed_many; feed_many()"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"resident {found['resident'] / 2**20:.0f} MiB")
    assert (found["watching"], found["clients"]) == (MODELS, CLIENTS)
    assert found["resident"] <= MAX_RESIDENT


def lag(daemon: Daemon, topic: str) -> float:
    value = daemon.metrics.registry.get_sample_value("modelwarden_lag_records", {"topic": topic, "partition": "0"})
    return value or 0.0


def predictions(store: StateStore, model: str) -> int:
    return sum(m["predictions"] for m in store.status()["models"] if m["model"] == model)


def test_a_quiet_model_is_judged_while_a_hot_one_floods(tmp_path: Path) -> None:
    text = """
kafka: {bootstrap_servers: ["unused:9092"], group: g, topics: [{name: hot, live: false}, {name: quiet, live: false}]}
store: {url: "sqlite:///state.db", commit_interval: 1s}
api: {listen: "127.0.0.1:0"}
"""
    config = parse_config(text, tmp_path / "modelwarden.yaml")
    broker = MemoryBroker()
    broker.create_topic("hot")
    broker.create_topic("quiet")
    now = time.time()
    features = {f"f{j}": j / 7 for j in range(FEATURES)}
    hot = json.dumps({"type": "prediction", "ts": now - 7_200, "model": "hot", "features": features}).encode()
    quiet = json.dumps({"type": "prediction", "ts": now, "model": "quiet", "features": features}).encode()
    flooding = threading.Event()

    def flood() -> None:
        """Far more than is judged in the test, two hours behind; more of it while it is read."""
        at = 0
        while not flooding.is_set():
            place = broker.range(source_partition)
            if place is not None and place[1] - taken() < 50_000:
                for _ in range(5_000):
                    broker.produce("hot", 0, hot, timestamp=now - 7_200 + at / 1_000)
                    at += 1
            else:
                time.sleep(0.05)

    source_partition = TopicPartition("hot", 0)
    source = MemorySource(broker, [SourceTopic("hot", "earliest"), SourceTopic("quiet", "earliest")])

    def taken() -> int:
        return source._next.get(source_partition, 0)

    store = open_store(config.store.url.url, "g", create=True)
    daemon = Daemon(config, make_source=lambda _: source)
    threads = [threading.Thread(target=flood), threading.Thread(target=daemon.run)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: predictions(store, "hot") > 2_000, 60, "the flood is read", 0.2)
        begun = time.monotonic()
        for _ in range(10):
            broker.produce("quiet", 0, quiet, timestamp=time.time())
        wait_until(lambda: predictions(store, "quiet") == 10, 30, "the quiet model is judged", 0.1)
        waited = time.monotonic() - begun
        assert waited < 12, waited  # five seconds for the order of time, one for the tick, one for the commit
        wait_until(lambda: lag(daemon, "hot") > 5_000, 20, "lag is shown")
        assert lag(daemon, "quiet") == 0
    finally:
        flooding.set()
        daemon.stop()
        for thread in threads:
            thread.join(30)
        store.close()
