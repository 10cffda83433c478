"""A bad file: each class of mistake names file, line, key and mend, and nothing but ConfigError ever comes out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.config import Config, ConfigError, KeyProblem, config_json_schema, load_config, parse_config

FILE = Path("modelwarden.yaml")


def problems(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(dedent(text).lstrip("\n"), FILE, environ=environ)
    assert caught.value.problems
    return [str(problem) for problem in caught.value.problems]


def kafka(topic: str = "name: t", security: str = "") -> str:
    return f"kafka:\n  bootstrap_servers: [a:1]\n  security: {{{security}}}\n  topics:\n    - {{{topic}}}\n"


SCRAM = "security_protocol: SASL_SSL, sasl_mechanism: SCRAM-SHA-256"

CASES = [
    # text, the line, the key, a part of the sentence, a part of the mend
    ("a: [1\nb: 2\n", 2, "", "not valid YAML", "brackets"),
    ("a: 1\n\tb: 2\n", 2, "", "not valid YAML", "indentation"),
    ("a: 1\n--- \nb: 2\n", 2, "", "not valid YAML", ""),
    ("a: *x\n", 1, "", "not valid YAML", ""),
    ("a: '\x07'\n", 1, "", "not allowed in YAML", "Remove"),
    ("notify: on\n\nnotify: off\n", 3, "notify", "given twice, first in line 1", "Remove one"),
    ("? [a]\n: 1\n", 1, "", "plain text", "brackets"),
    ("budget: !!python/object:os.system x\n", 1, "budget", "tag", "Remove"),
    ("budget: !!set {a, b}\n", 1, "budget", "tag", "Remove"),
    ("budget:\n  <<: {drift: 2}\n", 2, "budget", "Merge keys", "Write the keys out"),
    ("- a\n- b\n", 1, "", "must be a mapping", ""),
    ("api:\n  listen: ${env:PORT}\n", 2, "api.listen", "variable PORT is not set", "${env:PORT:-default}"),
    ("api:\n  listen: ${env:1}\n", 2, "api.listen", "not complete", "${env:NAME}"),
    ("bugdet: {}\n", 1, "bugdet", "not known", "Did you mean budget?"),
    ("limits:\n  sekw: 10m\n", 2, "limits.sekw", "not known", "Did you mean skew?"),
    ("models:\n  m:\n    reverence: x\n", 3, "models.m.reverence", "not known", "Did you mean reference?"),
    ("models:\n  m:\n    zzz: x\n", 3, "models.m.zzz", "not known", "Known: budget, calibration"),
    ("models:\n  a/b.c:\n    zzz: x\n", 3, 'models["a/b.c"].zzz', "not known", ""),
    ("models:\n  auto: {most: 3}\n", 2, "models.auto.most", "not known", ""),
    ("kafka:\n  topics: []\n", 1, "kafka.bootstrap_servers", "missing", 'bootstrap_servers: ["kafka:9092"]'),
    ("kafka:\n  bootstrap_servers: a:1\n", 2, "kafka.bootstrap_servers", "must be a list", '["kafka:9092"]'),
    ("kafka:\n  bootstrap_servers: []\n", 2, "kafka.bootstrap_servers", "empty", "kafka:9092"),
    ("kafka:\n  bootstrap_servers: [kafka]\n", 2, "kafka.bootstrap_servers[0]", "host and a port", "host:port"),
    (kafka("type: label"), 5, "kafka.topics[0].name", "missing", "name: predictions"),
    (kafka("name: t, type: predictions"), 5, "kafka.topics[0].type", 'not "predictions"', "Did you mean prediction?"),
    (kafka("name: t, type: 7"), 5, "kafka.topics[0].type", "must be one of prediction, label", ""),
    (kafka("name: t, live: maybe"), 5, "kafka.topics[0].live", 'on or off, not "maybe"', ""),
    (kafka("name: t, start: 2026-11-20"), 5, "kafka.topics[0].start", "place to start", "2026-11-20T08:00:00Z"),
    (kafka("name: t, start: 2026-11-20T08:00:00"), 5, "kafka.topics[0].start", "place to start", "zone"),
    (kafka("name: t, client_from: [client]"), 5, "kafka.topics[0].client_from[0]", "source", "field:PATH"),
    (kafka("name: a b"), 5, "kafka.topics[0].name", "characters not allowed", "Name of the topic"),
    (kafka("name: t}\n    - {name: t"), 6, "kafka.topics[1].name", "already listed as topics[0]", "Remove one"),
    (kafka(security="ssl_cafile: ca"), 3, "kafka.security.ssl_cafile", "no effect", "SSL"),
    (kafka(security="sasl_mechanism: PLAIN"), 3, "kafka.security.sasl_mechanism", "no effect", "SASL_SSL"),
    (kafka(security="security_protocol: SASL_SSL"), 3, "kafka.security.sasl_mechanism", "needs it", "SCRAM"),
    (kafka(security=SCRAM), 3, "kafka.security.sasl_plain_username", "needs it", "user name"),
    (kafka(security=f"{SCRAM}, sasl_plain_username: u"), 3, "kafka.security.sasl_plain_password", "needs", "_file"),
    (
        kafka(security=f"{SCRAM}, sasl_plain_username: u, sasl_plain_password: x, sasl_plain_password_file: y"),
        3, "kafka.security.sasl_plain_password_file", "also given", "Keep one",
    ),
    (
        "kafka:\n  bootstrap_servers: [a:1]\n  client: confluent-kafka\n"
        "  security: {security_protocol: SASL_SSL, sasl_mechanism: AWS_MSK_IAM}\n",
        4, "kafka.security.sasl_mechanism", "confluent-kafka has no AWS_MSK_IAM", "kafka-python",
    ),
    (
        "kafka:\n  bootstrap_servers: [a:1]\n  client: confluent-kafka\n"
        "  security: {security_protocol: SASL_SSL, sasl_mechanism: GSSAPI, sasl_kerberos_domain_name: d}\n",
        4, "kafka.security.sasl_kerberos_domain_name", "no such setting", "kafka-python",
    ),
    ("store:\n  commit_interval: 10\n", 2, "store.commit_interval", "duration", "10s"),
    ("store:\n  commit_interval: 10 sec\n", 2, "store.commit_interval", "not a duration", "ms, s, m, h, d or w"),
    ("store:\n  commit_interval: 0s\n", 2, "store.commit_interval", "longer than zero", ""),
    ("limits:\n  record_bytes: 256\n", 2, "limits.record_bytes", "size", "256KiB"),
    ("limits:\n  record_bytes: 0KiB\n", 2, "limits.record_bytes", "larger than zero", ""),
    ("limits:\n  series: many\n", 2, "limits.series", 'a whole number, not "many"', ""),
    ("limits:\n  series: true\n", 2, "limits.series", "must be a number", ""),
    ("limits:\n  series: 0\n", 2, "limits.series", 'greater than 0, not "0"', ""),
    ("budget:\n  drift: 0\n", 2, "budget.drift", "greater than 0", ""),
    ("budget:\n  drift: .inf\n", 2, "budget.drift", "finite number", ""),
    ("budget: 1\n", 1, "budget", "must be a mapping", ""),
    ("models:\n  m: {owner: 7}\n", 2, "models.m.owner", 'text, not "7"', "quotes"),
    ("models:\n  m: {threshold: {y: high}}\n", 2, "models.m.threshold.y", 'a number, not "high"', ""),
    ("models:\n  m:\n    classes: [a, bad]\n    threshold: {bed: 1}\n", 4, "models.m.threshold.bed", "class", "bad?"),
    ("models:\n  m:\n    features: [a]\n    importances: {b: 1}\n", 4, "models.m.importances.b", "feature", "Known: a"),
    ("models:\n  m: {reference_is: same_traffic}\n", 2, "models.m.reference_is", "needs a ref", "reference: FILE"),
    ("models:\n  m: {reference: ''}\n", 2, "models.m.reference", "not a path", ""),
    ("detectors:\n  d: {enabled: yes}\n", 2, "detectors.d.enabled", "true or false", "Write true or false"),
    ("detectors: {d: 1}\n", 1, "detectors.d", "must be a mapping", ""),
    ("receivers:\n  a:\n    urls: []\n", 2, "receivers.a.type", "missing", "alertmanager, webhook"),
    ("receivers:\n  a:\n    type: webhok\n", 3, "receivers.a.type", 'not "webhok"', "Did you mean webhook?"),
    ("receivers:\n  webhook:\n    type: webhook\n    ulr: x\n", 4, "receivers.webhook.ulr", "not known", "url?"),
    ("receivers:\n  a:\n    type: alertmanager\n    urls: [am]\n", 4, "receivers.a.urls[0]", "HTTP URL", "http://"),
    (
        "receivers:\n  a:\n    type: webhook\n    url: http://10.1.2.3/\n",
        4, "receivers.a.url", "private", "allow_private: true",
    ),
    ("receivers:\n  pager: {type: alertmanager, urls: ['http://x']}\nroutes:\n  - receiver: pagr\n", 4,
     "routes[0].receiver", "no receiver of this name", "Did you mean pager?"),
    ("routes:\n  - receivers: [a]\n", 2, "routes[0].receivers[0]", "no receiver", "Add it under receivers"),
    ("routes:\n  - severity: info\n", 2, "routes[0]", "no receiver", "receiver: NAME"),
    ("routes:\n  - {receiver: a, kinds: [drift]}\n", 2, "routes[0].kinds[0]", "must be one of data_quality", ""),
    ("access:\n  networks:\n    office: [10.0.0.1/8]\n", 3, "access.networks.office[0]", "CIDR", "Write 10.0.0.0/8"),
    ("access:\n  trusted_proxies: [proxy]\n", 2, "access.trusted_proxies[0]", "CIDR", "10.0.0.0/8"),
    ("overload: drop\n", 1, "overload", "lag, sample", ""),
    ("api:\n  listen: 9464\n", 2, "api.listen", "host and a port", "127.0.0.1:9464"),
    ("api:\n  listen: 'a:99999'\n", 2, "api.listen", "host and a port", ""),
    ("store:\n  url: mysql://db/mw\n", 2, "store.url", "SQLite or PostgreSQL", "sqlite:///"),
    ("store:\n  url: sqlite://mw.db\n", 2, "store.url", "three slashes", ""),
    ("store:\n  url: postgresql://u:p/w@db/mw\n", 2, "store.url", "cannot be read", "%2F"),
    ("store:\n  url: postgresql://db/mw\n", 2, "identity.key_file", "PostgreSQL requires a key file", "mode 0600"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "key", "sentence", "mend"), CASES, ids=[f"{c[2]}-{c[3]}" for c in CASES])
def test_each_mistake_names_file_line_key_and_mend(text: str, line: int, key: str, sentence: str, mend: str) -> None:
    shown = problems(text)
    start = f"modelwarden.yaml:{line}: {key}: " if key else f"modelwarden.yaml:{line}: "
    assert any(one.startswith(start) and sentence in one and mend in one for one in shown), shown


def test_all_mistakes_are_shown_at_once_in_the_order_of_the_file() -> None:
    shown = problems("api: {listen: x}\nbudget:\n  drift: -1\n  atack: 1\nnotfy: on\n")
    assert [one.split(": ")[:2] for one in shown] == [
        ["modelwarden.yaml:1", "api.listen"],
        ["modelwarden.yaml:3", "budget.drift"],
        ["modelwarden.yaml:4", "budget.atack"],
        ["modelwarden.yaml:5", "notfy"],
    ]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path, "Is a directory"),
        (Path("a\0b"), "usable"),
    ):
        with pytest.raises(ConfigError, match=reason):
            load_config(path)
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: This is not UTF-8"):
        load_config(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (5 * 2**20))
    with pytest.raises(ConfigError, match="larger than"):
        load_config(tmp_path / "large.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "{a: " * 5_000,
        "&a [*a, *a, *a]",
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "- " * 3_000,
        '"\\U7fffffff"',
        "%YAML 9999999999.1\n---\na",
        f"limits: {{series: {'9' * 5_000}}}",
        f"limits: {{series: {'9' * 400}}}",
        f"budget: {{drift: {'9' * 400}}}",
        "budget: {per: " + "9" * 60 + "w}",
        "budget: {drift: 1e999}",
        "limits: {series: !!int x}",
        "a: !!bool maybe",
        "!!binary gA==",
        "api: {listen: !<tag:evil> x}",
        "store: {url: 'postgresql://[::1/mw'}",
        "receivers: {a: {type: webhook, url: 'http://[x'}}",
        "receivers: {a: {type: webhook, url: 'http://a:99999/'}}",
        "kafka: {bootstrap_servers: ['a:٣']}",
        "models: {'': {}}",
        'models: {"\\0": {reference: "\\0"}}',
        "\ud800",
    ],
    ids=range(23),
)
def test_hostile_documents_are_refused(text: str) -> None:
    assert len("\n".join(problems(text))) < 20_000


def test_no_secret_is_in_a_message() -> None:
    text = """
        store: {url: "mysql://u:s3cret@db"}
        receivers: {h: {type: webhook, url: "s3cret", secret_file: [s3cret]}, a: {type: alertmanager, urls: s3cret}}
        kafka:
          bootstrap_servers: [a:1]
          security: {security_protocol: s3cret, sasl_plain_password: [s3cret], sasl_plain_usrname: s3cret}
        overload: ${env:PASSWORD}
    """
    shown = problems(text, PASSWORD="s3cret")
    assert len(shown) >= 7
    assert "s3cret" not in "\n".join(shown)
    assert any('not "${env:PASSWORD}"' in one for one in shown)


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("example.com", False), ("93.184.216.34", False), ("[2606:4700::1111]", False),
        ("localhost", True), ("a.localhost", True), ("hook", True), ("x.internal", True), ("printer.local.", True),
        ("127.0.0.1", True), ("127.1", True), ("2130706433", True), ("0x7f.1", True), ("0.0.0.0", True),
        ("10.0.0.8", True), ("192.168.1.1", True), ("172.16.0.1", True), ("169.254.169.254", True),
        ("[::1]", True), ("[fe80::1]", True), ("[fc00::1]", True), ("[::ffff:127.0.0.1]", True), ("224.0.0.1", True),
    ],
)  # fmt: skip
def test_a_private_webhook_must_be_allowed(host: str, private: bool) -> None:
    text = f"receivers: {{h: {{type: webhook, url: 'https://{host}/x', allow_private: %s}}}}"
    assert parse_config(text % "true", FILE).receivers
    if private:
        assert "allow_private: true" in problems(text % "false")[0]
    else:
        assert parse_config(text % "false", FILE).receivers


def test_an_injected_check_gets_file_line_and_key() -> None:
    def only_known(config: Config) -> Iterator[KeyProblem]:
        for name in config.detectors:
            yield KeyProblem(("detectors", name), "There is no such detector.", "Did you mean outlier_queries?")

    text = "notify: on\ndetectors:\n  outlier_querys: {}\n"
    with pytest.raises(ConfigError) as caught:
        parse_config(text, FILE, checks=[only_known])
    assert str(caught.value) == (
        "modelwarden.yaml:3: detectors.outlier_querys: There is no such detector. Did you mean outlier_queries?"
    )


def _keys() -> list[str]:
    schema = config_json_schema()
    nodes = [schema, *schema["$defs"].values()]
    return sorted({name for node in nodes for name in node.get("properties", {})})


WORDS = st.one_of(
    st.sampled_from(
        [*_keys(), "auto", "m", "type", "webhook", "alertmanager", "SASL_SSL", "PLAIN", "on", "10s", "1KiB"]
    ),
    st.text(max_size=12),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=12,
)


def accepts_or_explains(text: str) -> None:
    try:
        parse_config(text, FILE, environ={}).model_settings("m", "t")
    except ConfigError as error:
        problems = error.problems
    else:
        return
    assert problems
    assert all(problem.sentence and problem.file == "modelwarden.yaml" for problem in problems)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.text(), st.text(alphabet="ab:-{}[]'\"\n &*!%?|>#@,01.~<$\t")))
def test_any_text_is_accepted_or_explained(text: str) -> None:
    accepts_or_explains(text)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(Config.model_fields)), VALUES, max_size=5))
def test_any_tree_is_accepted_or_explained(tree: dict[str, object]) -> None:
    accepts_or_explains(yaml.safe_dump(tree, allow_unicode=True))
