"""From Apache Kafka to the real Alertmanager: the incident is shown once, and then resolved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from monitor.demo.produce import messages_of, produce
from monitor.demo.traffic import CreditTraffic
from tests.components.alertmanager import Alertmanager
from tests.components.kafka import KafkaBroker
from tests.components.prometheus import Prometheus, Promtool
from tests.components.waiting import wait_until
from tests.e2e.deployment import RATE, START, Deployment


@pytest.fixture
def topic(kafka: KafkaBroker) -> Iterator[str]:
    kafka.create_topic("alerts-e2e", 1)
    yield "alerts-e2e"
    kafka.delete_topic("alerts-e2e")


def test_an_incident_is_one_alert_and_then_resolved(
    kafka: KafkaBroker,
    topic: str,
    alertmanager: Alertmanager,
    prometheus: Prometheus,
    promtool: Promtool,
    tmp_path: Path,
) -> None:
    credit = CreditTraffic(7)
    place = Deployment(
        tmp_path, kafka.bootstrap_servers, topic, topic, f"sqlite:///{tmp_path}/state.db", alertmanager.url
    )
    daemon = place.daemon()
    at = START

    def send(n: int, broken: bool) -> None:
        nonlocal at
        events = credit.events(n, at, RATE)
        at += n / RATE
        for event in events if broken else ():
            del event["features"]["income"]
        produce(kafka.bootstrap_servers, topic, messages_of([msgspec.json.encode(e) for e in events]))

    def firing() -> list[dict[str, object]]:
        return [a for a in alertmanager.alerts() if a["labels"]["alertname"].startswith("ModelWarden")]

    try:
        daemon.start()
        send(2_000, broken=False)
        send(300, broken=True)
        wait_until(lambda: len(firing()) == 1, 30, "the alert is shown")
        (alert,) = firing()
        assert alert["labels"] == {
            "alertname": "ModelWardenDataQuality",
            "model": "credit-risk",
            "kind": "data_quality",
            "severity": "warning",
        }
        (incident,) = place.json("incidents", "list")
        assert incident["id"] in str(alert["annotations"]) and incident["why"] in str(alert["annotations"])
        assert [s["id"] for s in incident["subjects"]] == ["income"]

        # Alertmanager forgets what it knew; the next reconciliation tells it again.
        alertmanager.restart()
        wait_until(lambda: len(firing()) == 1, 40, "the alert is told again after a restart")

        send(4_000, broken=False)
        wait_until(lambda: place.json("incidents", "list", "--open") == [], 30, "the incident closes")
        wait_until(lambda: firing() == [], 40, "the alert is resolved")
        (closed,) = place.json("incidents", "list")
        assert closed["status"] == "resolved" and closed["resolved_at"]

        assert promtool.check_metrics(daemon.metrics()) == ""
        prometheus.set_targets(daemon.url.removeprefix("http://"))
        seen = 'modelwarden_incidents_total{kind="data_quality",model="credit-risk"}'
        wait_until(lambda: [float(r["value"][1]) for r in prometheus.query(seen)] == [1.0], 30, "Prometheus sees it")
    finally:
        daemon.stop()
        daemon.close()
