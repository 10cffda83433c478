"""TLS and logins on real Apache Kafka, with both clients: they work, and what is wrong is told in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from monitor.config import Config
from monitor.intake.sources.base import Source, SourceError, SourceTopic, SourceUnavailable
from monitor.intake.sources.confluent import ConfluentSource
from monitor.intake.sources.kafka import KafkaSource
from tests.components.kafka.certificates import Authority
from tests.components.kafka.secure import SecureKafkaBroker
from tests.conformance.source_worlds import begin, read
from tests.conftest import obtain

Security = dict[str, Any]


@pytest.fixture(scope="module")
def broker() -> Iterator[SecureKafkaBroker]:
    with ExitStack() as stack:
        broker = obtain("kafka", SecureKafkaBroker)
        stack.callback(broker.close)
        broker.start()
        broker.create_topic("t")
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        producer.send("t", b"over the wire")
        producer.close()
        yield broker


@pytest.fixture(params=["kafka-python", "confluent-kafka"])
def client(request: pytest.FixtureRequest) -> str:
    if request.param == "confluent-kafka":
        pytest.importorskip("confluent_kafka")
    return str(request.param)


@pytest.fixture
def tls(broker: SecureKafkaBroker) -> Security:
    """What lets a client in by its certificate."""
    secret = broker.directory / "key.secret"
    secret.write_text("lock\n", encoding="ascii")
    return {
        "security_protocol": "SSL",
        "ssl_cafile": str(broker.authority.file),
        "ssl_certfile": str(broker.authority.issue("client", password="lock")),
        "ssl_password_file": str(secret),
    }


@pytest.fixture
def login(broker: SecureKafkaBroker) -> Security:
    """What lets a client in by a password."""
    return {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(broker.authority.file),
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": broker.login_user,
        "sasl_plain_password": broker.login_password,
    }


def document(client: str, server: str, security: Security) -> dict[str, Any]:
    topics = [{"name": "t", "start": "earliest"}]
    return {"kafka": {"bootstrap_servers": [server], "client": client, "security": security, "topics": topics}}


def source_of(client: str, server: str, security: Security) -> Source:
    """As the daemon makes it, but less patient."""
    config = Config.model_validate(document(client, server, security)).need_kafka()
    make = ConfluentSource if config.client == "confluent-kafka" else KafkaSource
    options = config.security.client_options()
    return make([server], [SourceTopic("t", "earliest")], client_options=options, call_timeout=2.0)


def reads(client: str, server: str, security: Security) -> bool:
    source = source_of(client, server, security)
    try:
        source.cluster_id()  # the daemon's first question too
        begin(source)
        return [r.value for r in read(source, 1)] == [b"over the wire"]
    finally:
        source.close()


def refusal(client: str, server: str, security: Security) -> str:
    """The one sentence with which the first question ends, and what mends it."""
    with pytest.raises(SourceError) as caught:
        reads(client, server, security)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 400
    return text


def localhost(address: str) -> str:
    """The same place by a name that the certificate does not have."""
    return address.replace("127.0.0.1", "localhost")


def test_a_client_certificate_lets_in(client: str, broker: SecureKafkaBroker, tls: Security) -> None:
    assert reads(client, broker.tls, tls)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_a_password_lets_in(client: str, broker: SecureKafkaBroker, login: Security, mechanism: str) -> None:
    assert reads(client, broker.login, login | {"sasl_mechanism": mechanism})


def test_the_name_of_the_host_may_be_left_unchecked(client: str, broker: SecureKafkaBroker, login: Security) -> None:
    assert reads(client, localhost(broker.login), login | {"ssl_check_hostname": False})


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_a_wrong_password_is_told(client: str, broker: SecureKafkaBroker, login: Security, mechanism: str) -> None:
    wrong = login | {"sasl_mechanism": mechanism, "sasl_plain_password": "a-bad-guess"}
    told = refusal(client, broker.login, wrong)
    assert "the brokers refuse this client" in told and "Check kafka.security" in told
    assert "nvalid" in told and "a-bad-guess" not in told


Wrong = Callable[[SecureKafkaBroker, Security], tuple[str, Security]]
WRONG: dict[str, tuple[Wrong, str]] = {
    "authority": (
        lambda b, tls: (b.tls, tls | {"ssl_cafile": str(Authority(b.directory, "other").file)}),
        r"no trusted authority has signed .* Name its authority in kafka\.security\.ssl_cafile",
    ),
    "host": (lambda b, tls: (localhost(b.tls), tls), r"certificate does not name localhost\. Use a name"),
    "no certificate": (
        lambda b, tls: (b.tls, {k: v for k, v in tls.items() if k in ("security_protocol", "ssl_cafile")}),
        r"refuses this client's certificate, or misses one .* Check kafka\.security\.ssl_certfile",
    ),
    "foreign certificate": (
        lambda b, tls: (b.tls, tls | {"ssl_certfile": str(Authority(b.directory, "o").issue("f", password="lock"))}),
        r"refuses this client's certificate, or misses one",
    ),
    "no certificates in the file": (
        lambda b, tls: (b.tls, tls | {"ssl_cafile": tls["ssl_password_file"]}),
        r"ssl_cafile: .* holds nothing usable .* It must be PEM",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_certificates_is_told(
    client: str, broker: SecureKafkaBroker, tls: Security, case: str
) -> None:
    change, sentence = WRONG[case]
    server, security = change(broker, tls)
    with pytest.raises(SourceError, match=sentence):
        reads(client, server, security)


def test_a_wrong_password_of_the_key_is_told_and_never_asked_for(
    client: str, broker: SecureKafkaBroker, tls: Security
) -> None:
    del tls["ssl_password_file"]
    for password in ({}, {"ssl_password": "a-bad-guess"}):
        told = refusal(client, broker.tls, tls | password)
        assert told.startswith("kafka.security.ssl_certfile") and "ssl_password" in told and "guess" not in told


def test_a_broker_without_tls_is_waited_for_and_told(client: str, broker: SecureKafkaBroker, login: Security) -> None:
    """A port that closes may belong to a broker that starts, so the daemon goes on."""
    with pytest.raises(SourceUnavailable, match=r"no broker .*127.0.0.1.* does not speak TLS"):
        reads(client, broker.bootstrap_servers, login)


def test_run_ends_and_doctor_tells(client: str, broker: SecureKafkaBroker, login: Security, tmp_path: Path) -> None:
    config = tmp_path / "modelwarden.yaml"
    wrong = document(client, broker.login, login | {"sasl_plain_password": "a-bad-guess"})
    wrong |= {"store": {"url": f"sqlite:///{tmp_path}/state.db"}, "api": {"listen": "127.0.0.1:0"}}
    config.write_text(json.dumps(wrong), encoding="utf-8")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "monitor.cli", *arguments, "--config", str(config)]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    doctor = command("doctor", "--output", "json")
    assert doctor.returncode == 1
    (finding,) = [f for f in json.loads(doctor.stdout) if f["check"] == "kafka"]
    assert not finding["ok"] and "refuse this client" in finding["detail"]
    run = command("run")
    assert run.returncode == 1
    assert "refuse this client" in run.stderr.splitlines()[-1] and "Traceback" not in run.stderr
