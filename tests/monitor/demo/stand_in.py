"""A process in place of the daemon: counts predictions, and opens an incident while incomes are low. For tests of the
demo itself: `python -m tests.monitor.demo.stand_in CONFIG LOSE LOW` leaves LOSE events uncounted, and takes a mean
income below LOW for a drift."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import deque
from dataclasses import replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition

from alerts.incidents import Incident, IncidentSubject
from monitor.config import load_config
from monitor.demo.broker import PARTITIONS
from monitor.state.store import open_store
from monitor.state.unit import CommitUnit, SubjectRow


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def main(config_file: Path, lose: int, threshold: float) -> int:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    config = load_config(config_file)
    kafka = config.need_kafka()
    store = open_store(config.store.url.url, kafka.group, create=True)
    server = HTTPServer((config.api.listen.host, config.api.listen.port), Ready)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    version = tuple(map(int, os.environ["MODELWARDEN_KAFKA_API_VERSION"].split(".")))
    consumer = KafkaConsumer(
        bootstrap_servers=[str(a) for a in kafka.bootstrap_servers],
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        api_version=version,
    )
    topic = kafka.topics[0].name
    consumer.assign([TopicPartition(topic, i) for i in range(PARTITIONS)])
    lease = store.acquire_lease("stand-in", 60.0)
    assert lease is not None
    incomes: deque[float] = deque(maxlen=600)
    clients: set[str] = set()
    seen = 0
    now = 0.0
    incident: Incident | None = None
    while not stop.is_set():
        events = [json.loads(r.value) for records in consumer.poll(100).values() for r in records]
        seen += len(events)
        incomes += [e["features"]["income"] for e in events if e["type"] == "prediction"]
        clients |= {e["client"] for e in events if "client" in e}
        now = _time(events) if events else now
        low = len(incomes) == incomes.maxlen and sum(incomes) / len(incomes) < threshold
        changed = []
        if low and incident is None:
            incident = _incident(now)
            changed.append(incident)
        elif incident is not None and incident.status == "open" and not low and events:
            incident = replace(incident, status="resolved", resolved_at=now, resolution="recovered")
            changed.append(incident)
        counted = max(0, seen - lose)
        row = SubjectRow(
            "model:/credit-risk",
            "credit-risk",
            "",
            counted,
            0,
            0,
            seen,
            len(clients),
            True,
            "watching",
            "off",
            False,
            now,
        )
        store.commit(CommitUnit(now, subjects=[row], incidents=changed), lease)
    consumer.close()
    store.close()
    return 0


def _time(events: list[dict[str, str]]) -> float:
    return max(datetime.fromisoformat(e["ts"]).timestamp() for e in events)


def _incident(at: float) -> Incident:
    return Incident(
        id="i1", subject="model:/credit-risk", model="credit-risk", tenant="", kind="feature_drift", account="drift",
        cause="", severity="warning", severity_max="warning", status="open", model_version=None, opened_at=at,
        resolved_at=None, onset=at, why="income is low", subjects=(IncidentSubject("feature", "income", at, None),),
        detectors=(), measures=(), atlas=(), last_position=1,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
