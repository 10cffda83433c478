"""One Apache Kafka node: broker and controller in one process (KRaft)."""

from __future__ import annotations

import base64
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaError

from tests.components.kafka.artifacts import java, kafka_jars
from tests.components.process import Component, free_ports
from tests.components.waiting import wait_until


class KafkaBroker(Component):
    """Topics are made only on request. `settings` overrides lines of server.properties."""

    name: ClassVar[str] = "kafka"

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._java = java()
        self._jars = kafka_jars()
        super().__init__()
        self.port, self._controller_port = free_ports(2)
        self.bootstrap_servers = f"127.0.0.1:{self.port}"
        self._settings = dict(settings or {})
        self._properties = self.directory / "server.properties"

    def prepare(self) -> None:
        lines = (f"{key}={value}\n" for key, value in self._server_properties().items())
        self._properties.write_text("".join(lines), encoding="utf-8")
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        format_ = ["format", "-t", cluster, "-c", str(self._properties), *self._format_options()]
        self.run_tool(self._class("kafka.tools.StorageTool", *format_))

    def command(self) -> list[str]:
        return self._class("kafka.Kafka", str(self._properties))

    def ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            with self.admin() as admin:
                return bool(admin.describe_cluster()["brokers"])
        except (OSError, KafkaError):
            return False

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """A connected admin client of kafka-python."""
        client = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=10_000)
        try:
            yield client
        finally:
            client.close()

    def create_topic(self, name: str, partitions: int = 1, **config: object) -> str:
        """Make a topic and wait until it can be written to; `retention_ms=1` sets `retention.ms`. Returns the name."""
        configs = {key.replace("_", "."): str(value) for key, value in config.items()}
        with self.admin() as admin:
            admin.create_topics(
                {name: {"num_partitions": partitions, "replication_factor": 1, "configs": configs}},
                wait_for_metadata=True,
            )
        return name

    def add_partitions(self, topic: str, total: int) -> None:
        """Raise the number of partitions to `total` and wait until all can be written to."""
        with self.admin() as admin:
            admin.create_partitions({topic: total})

            def leaders() -> int:
                found = admin.describe_topics([topic])[0]["partitions"]
                return sum(partition["leader_id"] >= 0 for partition in found)

            wait_until(lambda: leaders() == total, 10, f"{total} partitions of {topic}")

    def delete_records_before(self, topic: str, partition: int, offset: int) -> None:
        """Drop the records below `offset`, as retention does."""
        with self.admin() as admin:
            admin.delete_records({TopicPartition(topic, partition): offset})

    def delete_topic(self, topic: str) -> None:
        """Delete a topic and wait until it is gone, so that one of the same name can be made."""
        with self.admin() as admin:
            admin.delete_topics([topic])
            wait_until(lambda: topic not in admin.list_topics(), 10, f"{topic} deleted")

    def _class(self, name: str, *arguments: str) -> list[str]:
        options = ["-Xms128m", "-Xmx512m", "-Dlog4j2.level=WARN"]
        return [self._java, *options, "-cp", f"{self._jars}/*", name, *arguments]

    def _format_options(self) -> list[str]:
        """More arguments of the storage tool."""
        return []

    def _server_properties(self) -> dict[str, str]:
        broker, controller = self.bootstrap_servers, f"127.0.0.1:{self._controller_port}"
        own = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{broker}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.directory / "data"),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            # a broker that was killed may register again only when its old registration has run out
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
        }
        for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
            own[f"{topic}.replication.factor"] = "1"
            own[f"{topic}.num.partitions"] = "1"
        for topic in ("transaction.state.log", "share.coordinator.state.topic"):
            own[f"{topic}.min.isr"] = "1"
        return own | self._settings
