"""A good file: the published example, the defaults, paths, substitution, the settings of one model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import import_module
from ipaddress import ip_network
from pathlib import Path
from textwrap import dedent

import pytest

from monitor.config import (
    AlertmanagerReceiver,
    ClientSource,
    Config,
    ConfigError,
    WebhookReceiver,
    find_config,
    load_config,
    parse_config,
    read_secret,
)

HERE = Path("/srv/mw/modelwarden.yaml")

# The published example. Its three ellipses stand for what the reader fills in.
EXAMPLE = """
kafka: {bootstrap_servers: ["kafka:9092"], group: modelwarden, client: kafka-python, security: {}, topics: [{name: predictions, format: native, type: prediction, time: event, live: true, start: latest, on_data_loss: earliest, client_from: ["field:client"], keyed_by: none}]}
store: {url: "postgresql+psycopg://…", commit_interval: 10s, retention: {incidents: 400d, dead_letters: 30d, evidence: 90d}}       # url defaults to sqlite:///modelwarden.db
identity: {key_file: /etc/modelwarden/identity.key}
budget: {per: 30d, drift: 1, attack: 1, traffic: 1}             # default of every model
models:
  auto: {max: 200}                                              # unknown models are watched up to this many; beyond, one monitor_health incident, and `unwatched` in status
  credit-risk: {owner: risk-team, budget: {drift: 2}, reference: refs/credit.jsonl.gz, reference_is: file, training_rows: refs/train.jsonl.gz, features: [income, region], shape: [], classes: ["no", "yes"], threshold: {"yes": 0.5}, segments: [region], importances: {income: 0.4},
                services: {k8fc37517: svc-backfill}, labels: {max_delay: 60d, max_bytes: 256MiB}, on_new_version: inherit, calibration: {for: 12h}, season: auto}
detectors: {outlier_queries: {enabled: true}}                   # name: params; a changed param restarts that detector only, visibly
receivers: {am: {type: alertmanager, urls: ["http://127.0.0.1:9093"]}, hook: {type: webhook, url: "https://…", secret_file: /etc/modelwarden/hook.secret, allow_private: false, identities: hashed}}
routes: []                                                      # without routes every incident of severity warning or above goes to every receiver; info nowhere
access: {networks: {}, trusted_proxies: []}
notify: on                                                      # off: a dry run that lists what would have paged
overload: lag                                                   # or sample: weighted, shown, never silent
limits: {record_bytes: 256KiB, client_state: 512MiB, series: 5000, record_age: 7d, skew: 10m}
api: {listen: "127.0.0.1:9464"}
"""  # noqa: E501


def read(text: str, path: Path = HERE, **environ: str) -> Config:
    return parse_config(dedent(text), path, environ=environ)


@pytest.fixture
def example() -> Config:
    filled = EXAMPLE.replace("postgresql+psycopg://…", "postgresql+psycopg://mw:s3cret@db/mw")
    return read(filled.replace("https://…", "https://example.com/hook"))


def test_the_example_loads(example: Config) -> None:
    kafka = example.need_kafka()
    assert [str(server) for server in kafka.bootstrap_servers] == ["kafka:9092"]
    assert (kafka.group, kafka.client) == ("modelwarden", "kafka-python")
    topic = kafka.topics[0]
    assert (topic.name, topic.format, topic.type, topic.time) == ("predictions", "native", "prediction", "event")
    assert (topic.live, topic.start, topic.on_data_loss, topic.keyed_by) == (True, "latest", "earliest", "none")
    assert topic.client_from == (ClientSource("field", "client"),)
    assert example.store.commit_interval == timedelta(seconds=10)
    assert example.store.retention.incidents == timedelta(days=400)
    assert example.models.auto.max == 200
    assert example.detectors == {"outlier_queries": {"enabled": True}}
    assert isinstance(example.receivers["am"], AlertmanagerReceiver)
    hook = example.receivers["hook"]
    assert isinstance(hook, WebhookReceiver)
    assert hook.identities == "hashed" and not hook.allow_private
    assert example.notify is True and example.overload == "lag"
    assert (example.limits.record_bytes, example.limits.client_state) == (262_144, 536_870_912)
    assert (example.limits.record_age, example.limits.skew) == (timedelta(days=7), timedelta(minutes=10))
    assert (example.api.listen.host, example.api.listen.port) == ("127.0.0.1", 9464)


def test_the_example_s_model(example: Config) -> None:
    settings = example.model_settings("credit-risk")
    assert settings.declared and settings.owner == "risk-team"
    assert (settings.budget.drift, settings.budget.attack, settings.budget.per) == (2, 1, timedelta(days=30))
    assert settings.reference is not None
    assert settings.reference.path == Path("/srv/mw/refs/credit.jsonl.gz")
    assert settings.reference.written == "refs/credit.jsonl.gz"
    assert settings.classes == ("no", "yes") and settings.threshold == {"yes": 0.5}
    assert settings.services == {"k8fc37517": "svc-backfill"}
    assert (settings.labels.max_delay, settings.labels.max_bytes) == (timedelta(days=60), 2**28)
    assert settings.calibration is not None and settings.calibration.duration == timedelta(hours=12)
    assert read("").model_settings("other").calibration is None


def test_every_value_of_the_example_that_is_a_default_is_the_default(example: Config) -> None:
    bare = read("")
    topic = read("kafka: {bootstrap_servers: [a:1], topics: [{name: predictions}]}").need_kafka()
    named = example.need_kafka()
    assert topic.topics[0] == named.topics[0].model_copy(update={"type": "auto"})
    assert (topic.group, topic.client, topic.security) == (named.group, named.client, named.security)
    for section in ("budget", "routes", "access", "notify", "overload", "limits", "api"):
        assert getattr(bare, section) == getattr(example, section), section
    assert bare.store.retention == example.store.retention
    assert bare.store.commit_interval == example.store.commit_interval
    assert bare.models.auto == example.models.auto
    entry, default = example.model_settings("credit-risk"), bare.model_settings("credit-risk")
    for same in ("reference_is", "shape", "labels", "on_new_version", "season"):
        assert getattr(entry, same) == getattr(default, same), same


def test_an_empty_file_is_all_defaults_and_has_no_kafka() -> None:
    config = read("# nothing\n")
    assert config.store.url.path == Path("/srv/mw/modelwarden.db")
    assert config.store.url.url == "sqlite:////srv/mw/modelwarden.db"
    with pytest.raises(ConfigError, match="kafka: This section is missing"):
        config.need_kafka()
    assert read("store:\nmodels:\n  fraud:\n").model_settings("fraud").declared


def test_the_configuration_cannot_be_changed(example: Config) -> None:
    with pytest.raises(ValueError, match="frozen"):
        example.budget.drift = 5


def test_tenants_have_their_own_entries() -> None:
    config = read("""
        budget: {attack: 3, per: 7d}
        models:
          fraud: {budget: {drift: 2}}
          acme/fraud: {budget: {traffic: 4}, owner: acme}
    """)
    plain, acme, other = (config.model_settings("fraud", tenant) for tenant in ("", "acme", "umbrella"))
    assert (plain.budget.drift, plain.budget.attack, plain.budget.traffic) == (2, 3, 1)
    assert (acme.budget.drift, acme.budget.attack, acme.budget.traffic) == (1, 3, 4)
    assert acme.owner == "acme" and acme.tenant == "acme" and acme.budget.per == timedelta(days=7)
    assert other.budget == plain.budget and other.tenant == "umbrella"
    unknown = config.model_settings("new")
    assert not unknown.declared and unknown.budget == config.budget


def test_words_stay_words_and_switches_understand_them() -> None:
    config = read("""
        notify: off
        models:
          m: {classes: [no, yes, on, 1], threshold: {yes: 1e-1}, season: none, segments: ["2026-11-20"]}
        kafka:
          bootstrap_servers: ["[::1]:9092"]
          topics: [{name: t, live: no, start: 2026-11-20T08:00:00Z, client_from: [header:X-Client, key]}]
    """)
    settings = config.model_settings("m")
    assert settings.classes == ("no", "yes", "on", "1")
    assert settings.threshold == {"yes": 0.1} and settings.season == "none"
    assert config.notify is False
    topic = config.need_kafka().topics[0]
    assert topic.live is False and topic.start == datetime(2026, 11, 20, 8, tzinfo=UTC)
    assert topic.client_from == (ClientSource("header", "X-Client"), ClientSource("key", ""))
    assert config.need_kafka().bootstrap_servers[0].host == "::1"


def test_environment_variables_are_put_into_text_only_after_parsing() -> None:
    config = read(
        """
        budget: {drift: "${env:DRIFT}"}
        models:
          m: {owner: "team ${env:TEAM} of ${env:SITE:-here}", segments: ["$${env:TEAM}", "${env:EMPTY:-x}"]}
        """,
        DRIFT="2.5", TEAM="a: {b: [c]}", EMPTY="",
    )  # fmt: skip
    settings = config.model_settings("m")
    assert settings.owner == "team a: {b: [c]} of here"
    assert settings.segments == ("${env:TEAM}", "x")
    assert settings.budget.drift == 2.5


def test_access_networks() -> None:
    config = read("access: {networks: {office: [203.0.113.0/24, '2001:db8::/32']}, trusted_proxies: [10.0.0.1]}")
    assert config.access.networks == {"office": (ip_network("203.0.113.0/24"), ip_network("2001:db8::/32"))}
    assert config.access.trusted_proxies == (ip_network("10.0.0.1/32"),)


@pytest.mark.parametrize(
    ("written", "url", "path"),
    [
        ("sqlite:///mw.db", "sqlite:////srv/mw/mw.db", "/srv/mw/mw.db"),
        ("sqlite:////var/mw.db?timeout=5", "sqlite:////var/mw.db?timeout=5", "/var/mw.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:", None),
        ("postgres://u:p%2Fw@db:5433/mw", "postgresql+psycopg://u:p%2Fw@db:5433/mw", None),
    ],
)
def test_database_urls(written: str, url: str, path: str | None) -> None:
    found = read(f"store: {{url: '{written}'}}\nidentity: {{key_file: k}}").store.url
    assert (found.url, found.path) == (url, None if path is None else Path(path))


def test_passwords_are_not_shown(example: Config) -> None:
    assert example.store.url.url == "postgresql+psycopg://mw:s3cret@db/mw"
    config = read("""
        kafka:
          bootstrap_servers: [a:1]
          security: {security_protocol: SASL_SSL, sasl_mechanism: PLAIN,
                     sasl_plain_username: u, sasl_plain_password: s3cret}
    """)
    for shown in (example, config):
        text = f"{shown} {shown!r} {shown.store.url} {shown.store.url!r} {shown.model_dump_json()}"
        assert "s3cret" not in text
    assert str(example.store.url) == "postgresql+psycopg://mw:***@db/mw"


def test_security_becomes_the_options_of_kafka_python(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    config = read(
        """
        kafka:
          bootstrap_servers: [a:1]
          security:
            security_protocol: SASL_SSL
            ssl_cafile: ca.pem
            ssl_check_hostname: off
            sasl_mechanism: SCRAM-SHA-512
            sasl_plain_username: mw
            sasl_plain_password_file: password
        """,
        tmp_path / "modelwarden.yaml",
    )
    assert config.kafka is not None
    assert config.kafka.security.client_options() == {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(tmp_path / "ca.pem"),
        "ssl_check_hostname": False,
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "mw",
        "sasl_plain_password": "s3cret",
    }
    fields = {
        name.removesuffix("_file") if "password" in name else name for name in type(config.kafka.security).model_fields
    }
    assert fields <= set(import_module("kafka").KafkaConsumer.DEFAULT_CONFIG)


def test_a_secret_is_read_only_when_it_is_used(tmp_path: Path) -> None:
    config = read(
        "receivers: {h: {type: webhook, url: 'https://example.com', secret_file: none.txt}}", tmp_path / "c.yaml"
    )
    hook = config.receivers["h"]
    assert isinstance(hook, WebhookReceiver) and hook.secret_file is not None
    with pytest.raises(
        ConfigError, match=r"none\.txt: receivers\.h\.secret_file: The secret cannot be read: No such file"
    ):
        read_secret(hook.secret_file, "receivers.h.secret_file")
    hook.secret_file.path.write_text("\n")
    with pytest.raises(ConfigError, match="empty"):
        read_secret(hook.secret_file, "receivers.h.secret_file")


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODELWARDEN_CONFIG", raising=False)
    monkeypatch.setattr("monitor.config.load._USUAL", (Path("modelwarden.yaml"), tmp_path / "etc.yaml"))
    assert find_config(None) is None
    (tmp_path / "etc.yaml").touch()
    assert find_config(None) == tmp_path / "etc.yaml"
    (tmp_path / "modelwarden.yaml").touch()
    assert find_config(None) == Path("modelwarden.yaml")
    monkeypatch.setenv("MODELWARDEN_CONFIG", "missing.yaml")
    assert find_config(None) == Path("missing.yaml")
    assert find_config(Path("given.yaml")) == Path("given.yaml")


def test_relative_paths_start_from_the_file_not_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "mw.yaml").write_text("\ufeffidentity: {key_file: id.key}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("etc/mw.yaml"))
    assert config.identity.key_file is not None
    assert config.identity.key_file.path == tmp_path / "etc" / "id.key"
    assert config.store.url.path == tmp_path / "etc" / "modelwarden.db"
    assert config.file == Path("etc/mw.yaml")
