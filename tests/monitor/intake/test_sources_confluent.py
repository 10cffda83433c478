"""confluent-kafka as a source: seeking with much fetched ahead, hints, options."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from kafka.errors import KafkaError

from monitor.config import Config
from monitor.daemon import kafka_source
from monitor.intake.sources.base import SourceError, SourceTopic, SourceUnavailable, TopicPartition
from monitor.intake.sources.confluent import ConfluentSource
from monitor.intake.sources.confluent_options import client_settings, consumer_settings
from tests.components.kafka import KafkaBroker
from tests.components.process import free_ports
from tests.components.waiting import wait_until
from tests.conformance.source_worlds import ConfluentWorld, begin, new_name, read, transactions


@pytest.fixture
def world(kafka: KafkaBroker) -> Iterator[ConfluentWorld]:
    with ExitStack() as stack:
        yield ConfluentWorld(stack, kafka)


def test_no_seek_hands_out_what_was_fetched_before_it(world: ConfluentWorld) -> None:
    topic = world.create(1)
    for i in range(3000):
        world._producer.send(topic, b"%d" % i, partition=0)
    world._producer.flush()
    tp, chance = TopicPartition(topic, 0), random.Random(1)
    source = world.source(SourceTopic(topic))
    for _ in range(25):
        at = chance.randrange(2900)
        source.own({tp: at})
        if chance.random() < 0.3:
            source.pause()
            assert source.poll(0.05, 10).records == []
            source.resume()
        count = chance.randrange(1, 90)
        assert [r.offset for r in read(source, count, max_records=count)] == list(range(at, at + count))


def test_hinted_offsets_are_those_of_the_group(world: ConfluentWorld) -> None:
    topic, group = world.create(1), new_name()
    world.produce(topic, 0, b"x")
    source = world.source(SourceTopic(topic, "earliest"), group=group)
    begin(source)
    read(source, 1)

    def committed() -> list[int]:
        with world.broker.admin() as admin:
            return [at.offset for at in admin.list_group_offsets({group: None})[group].values()]

    def hinted() -> bool:
        source.hint({TopicPartition(topic, 0): 1})
        with suppress(KafkaError):  # the first group of a cluster has no coordinator for some time
            return committed() == [1]
        return False

    wait_until(hinted, 20, "offsets of the group")
    for at in range(2, 6):
        source.hint({TopicPartition(topic, 0): at})
    source.close()
    assert committed() == [5]


def test_an_open_transaction_is_neither_read_nor_skipped(world: ConfluentWorld) -> None:
    topic = world.create(1)
    world.produce(topic, 0, b"before")
    with transactions(world.broker.bootstrap_servers) as producer:
        producer.begin_transaction()
        producer.send(topic, b"open", partition=0).get(timeout=10)
        source = world.source(SourceTopic(topic, "latest"))
        assert begin(source) == {TopicPartition(topic, 0): 1}
        assert source.poll(0.7, 10).records == []
        producer.commit_transaction()
        assert [r.value for r in read(source, 1)] == [b"open"]


def test_a_start_without_a_broker_is_unavailable() -> None:
    source = ConfluentSource([f"127.0.0.1:{free_ports(1)[0]}"], [SourceTopic("t")], call_timeout=0.5)
    with pytest.raises(SourceUnavailable, match="no broker"):
        source.cluster_id()
    assert source.discover() == []
    assert "no broker" in str(source.condition)
    source.own({TopicPartition("t", 0): 5})
    assert source.poll(0.1, 10).records == []
    source.close()


def test_options_are_checked_when_the_source_is_made(tmp_path: Path) -> None:
    for options, message in (
        ({"sasl_username": "x"}, "no settings sasl_username"),
        ({"sasl_mechanism": "AWS_MSK_IAM"}, "has no AWS_MSK_IAM"),
        ({"ssl_cafile": str(tmp_path / "ca.pem")}, r"ssl_cafile: .*ca\.pem cannot be read"),
        ({"security_protocol": "NONE"}, "librdkafka refuses"),
    ):
        with pytest.raises(SourceError, match=message):
            ConfluentSource(["127.0.0.1:1"], [SourceTopic("t")], client_options=options)


def test_names_of_options_are_translated(tmp_path: Path) -> None:
    both = tmp_path / "client.pem"
    both.touch()
    given = {
        "security_protocol": "SASL_SSL", "ssl_certfile": str(both), "ssl_check_hostname": False,
        "sasl_mechanism": "PLAIN", "sasl_plain_username": "u", "sasl_plain_password": "p", "api_version": (2, 3),
    }  # fmt: skip
    settings = client_settings(["a:1", "b:2"], given)
    assert settings["bootstrap.servers"] == "a:1,b:2"
    assert settings["ssl.certificate.location"] == settings["ssl.key.location"] == str(both)
    assert settings["ssl.endpoint.identification.algorithm"] == "none"
    assert (settings["sasl.mechanism"], settings["sasl.username"], settings["sasl.password"]) == ("PLAIN", "u", "p")
    assert consumer_settings(["a:1"], {"fetch_max_bytes": 2000})["fetch.max.bytes"] == 2000


def test_the_configuration_chooses_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.model_validate(
        {"kafka": {"bootstrap_servers": ["127.0.0.1:1"], "client": "confluent-kafka", "topics": [{"name": "t"}]}}
    )
    source = kafka_source(config)
    assert isinstance(source, ConfluentSource)
    source.close()
    monkeypatch.delitem(sys.modules, "monitor.intake.sources.confluent")
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(SourceError, match=r"needs the extra `fast`: pip install 'modelwarden\[fast\]'"):
        kafka_source(config)
