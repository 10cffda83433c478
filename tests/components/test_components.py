"""Every component starts, answers, survives what tests do to it, and is gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import sqlalchemy as sa
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from tests.components.alertmanager import Alertmanager
from tests.components.kafka import KafkaBroker
from tests.components.need import REQUIRE, MissingComponent, give_up
from tests.components.postgres import Postgres
from tests.components.process import Component, ComponentFailed, descendants, exists, free_ports
from tests.components.prometheus import Prometheus, Promtool
from tests.components.waiting import wait_until
from tests.conftest import obtain

MAKERS: dict[str, Callable[[], Component]] = {
    "kafka": KafkaBroker,
    "postgres": Postgres,
    "alertmanager": Alertmanager,
    "prometheus": Prometheus,
}


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, or needs prctl(2)")


class Sleeper(Component):
    """A component of the standard library, for what does not need a server."""

    name: ClassVar[str] = "sleeper"
    code: ClassVar[str] = "import time; print('up', flush=True); time.sleep(600)"

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.code]

    def ready(self) -> bool:
        return "up" in self.log_tail()


class Failing(Sleeper):
    code: ClassVar[str] = "import sys; print('no such setting: colour'); sys.exit(3)"


@pytest.mark.parametrize("name", MAKERS)
def test_starts_answers_and_is_gone_after_stop(name: str) -> None:
    component = obtain(name, MAKERS[name])
    try:
        component.start()
        pids = [component.pid, *descendants(component.pid)]
        assert component.ready()
        component.stop()
        assert not component.ready()
        assert not [pid for pid in pids if exists(pid)]
    finally:
        component.close()
    assert not component.directory.exists()


def test_kafka_keeps_records_over_kill_and_restart(kafka: KafkaBroker) -> None:
    topic = kafka.create_topic(f"kept-{uuid.uuid4().hex}", 1, retention_ms=3_600_000)
    produce(kafka, topic, 5)
    before = kafka.pid
    kafka.kill()
    assert not exists(before)
    kafka.start()
    assert values(kafka, topic) == [b"0", b"1", b"2", b"3", b"4"]
    kafka.restart()
    assert len(values(kafka, topic)) == 5


def test_kafka_partitions_records_and_topics_can_be_changed(kafka: KafkaBroker) -> None:
    topic = kafka.create_topic(f"changed-{uuid.uuid4().hex}", 1)
    produce(kafka, topic, 5)
    kafka.delete_records_before(topic, 0, 3)
    assert values(kafka, topic) == [b"3", b"4"]
    kafka.add_partitions(topic, 3)
    assert partitions(kafka, topic) == {0, 1, 2}
    kafka.delete_topic(topic)
    kafka.create_topic(topic, 2)
    assert partitions(kafka, topic) == {0, 1}
    assert values(kafka, topic) == []


def test_postgres_gives_an_empty_database(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (n integer)"))
        tables = sa.inspect(connection).get_table_names()
    engine.dispose()
    assert tables == ["t"]


def test_postgres_databases_are_apart(postgres: Postgres) -> None:
    first, second = postgres.create_database(), postgres.create_database()
    with postgres.connect(first) as connection:
        connection.execute("CREATE TABLE t (n integer)")
    with postgres.connect(second) as connection:
        assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)
    with postgres.connect() as connection:
        postgres.drop_database(first)
        postgres.drop_database(second)
        rows = connection.execute("SELECT 1 FROM pg_database WHERE datname IN (%s, %s)", (first, second))
        assert rows.fetchall() == []


def test_postgres_keeps_what_was_committed_before_a_kill(postgres: Postgres) -> None:
    name = postgres.create_database()
    with postgres.connect(name) as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS n")
        pids = [postgres.pid, *descendants(postgres.pid)]
        postgres.kill()
    assert not [pid for pid in pids if exists(pid)]
    postgres.start()
    with postgres.connect(name) as connection:
        assert connection.execute("SELECT n FROM t").fetchone() == (7,)
    postgres.drop_database(name)


def test_alertmanager_shows_an_alert_until_it_is_resolved(alertmanager: Alertmanager) -> None:
    labels = {"alertname": "Drift", "model": "credit"}
    alertmanager.post([{"labels": labels}])
    shown = wait_until(lambda: alertmanager.alerts(model="credit"), 10, "the alert is shown")
    assert [alert["labels"] for alert in shown] == [labels]
    assert alertmanager.alerts(model="other") == []
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    alertmanager.post([{"labels": labels, "endsAt": now}])
    wait_until(lambda: not alertmanager.alerts(), 10, "the alert is resolved")


def test_alertmanager_posts_to_a_webhook(start_alertmanager: Callable[..., Alertmanager]) -> None:
    bodies: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        alertmanager = start_alertmanager(webhook_url=f"http://127.0.0.1:{server.server_port}/")
        alertmanager.post([{"labels": {"alertname": "Drift"}}])
        wait_until(lambda: bodies, 10, "the webhook is called")
        server.shutdown()
    assert b'"status":"firing"' in bodies[0]


def test_prometheus_scrapes_a_target(prometheus: Prometheus) -> None:
    own = f"127.0.0.1:{prometheus.port}"
    assert prometheus.targets() == []
    prometheus.set_targets(own)
    up = wait_until(lambda: prometheus.query('up{job="modelwarden"} == 1'), 20, "the target is up")
    assert up[0]["metric"]["instance"] == own


def test_promtool_tells_good_metrics_from_bad(promtool: Promtool, tmp_path: Path) -> None:
    assert promtool.check_metrics("# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n") == ""
    assert "a_total" in promtool.check_metrics("# TYPE a_total gauge\na_total 1\n")
    rules = tmp_path / "rules.yml"
    rules.write_text('{"groups": [{"name": "g", "rules": [{"record": "r", "expr": "sum("}]}]}')
    assert "parse error" in promtool.check_rules(rules)


@linux
def test_a_frozen_component_does_not_hinder_its_end() -> None:
    with Sleeper() as sleeper:
        sleeper.sigstop()
        wait_until(lambda: state(sleeper.pid) == "T", 5, "frozen")
        sleeper.heal()
        wait_until(lambda: state(sleeper.pid) == "S", 5, "thawed")
        sleeper.sigstop()
        sleeper.stop()
        assert sleeper.returncode == -signal.SIGTERM


def test_a_killed_component_is_healed() -> None:
    with Sleeper() as sleeper:
        before = sleeper.pid
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: not sleeper.running, 5, "killed")
        sleeper.heal()
        assert sleeper.running
        assert sleeper.pid != before


def test_a_start_that_fails_shows_the_log() -> None:
    failing = Failing()
    try:
        with pytest.raises(ComponentFailed, match=r"status 3\n(.|\n)*no such setting: colour"):
            failing.start()
    finally:
        failing.close()


@linux
def test_a_component_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from tests.components.test_components import Sleeper\n"
        "print(Sleeper().start().pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    pid = int(result.stdout)
    wait_until(lambda: not exists(pid), 5, "the component is gone")


def test_free_ports_are_different_and_free() -> None:
    assert len(set(free_ports(20))) == 20


def test_a_missing_component_is_a_skip_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE, "postgres,prometheus")
    with pytest.raises(pytest.skip.Exception, match="kafka is missing: install Java"):
        give_up("kafka", "install Java")


def test_a_missing_component_is_a_failure_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE, "postgres, kafka")
    with pytest.raises(pytest.fail.Exception, match="MODELWARDEN_REQUIRE requires it: install Java"):
        give_up("kafka", "install Java")


@pytest.mark.parametrize("name", MAKERS)
def test_a_program_that_is_not_installed_is_missing(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr("tests.components.postgres.INSTALLED", tmp_path)
    with pytest.raises(MissingComponent, match="there is no"):
        MAKERS[name]()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def produce(kafka: KafkaBroker, topic: str, count: int) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    for number in range(count):
        producer.send(topic, str(number).encode(), partition=0)
    producer.flush(timeout=30)
    producer.close()


def values(kafka: KafkaBroker, topic: str) -> list[bytes]:
    """What partition 0 holds."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers)
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end, found = consumer.end_offsets([partition])[partition], []
        while consumer.position(partition) < end:
            found += [record.value for record in consumer.poll(500).get(partition, [])]
        return found
    finally:
        consumer.close()


def partitions(kafka: KafkaBroker, topic: str) -> set[int]:
    with kafka.admin() as admin:
        return {partition["partition_index"] for partition in admin.describe_topics([topic])[0]["partitions"]}
