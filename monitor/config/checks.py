"""Rules between keys: names that must exist elsewhere, keys that need or exclude each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from urllib.parse import urlsplit

from monitor.config.errors import Key, KeyProblem
from monitor.config.kafka import Kafka, KafkaSecurity
from monitor.config.models import ModelEntry
from monitor.config.receivers import WebhookReceiver
from monitor.config.schema import Config


def cross_checks(config: Config) -> Iterator[KeyProblem]:
    """Every broken rule of a configuration whose keys are each valid."""
    yield from _identity(config)
    if config.kafka is not None:
        yield from _topics(config.kafka)
        yield from _security(config.kafka.security)
        yield from _client(config.kafka)
    for name, entry in config.models.listed.items():
        yield from _model(name, entry)
    yield from _detectors(config)
    yield from _receivers(config)
    yield from _routes(config)


def did_you_mean(name: str, known: list[str]) -> str:
    """`Did you mean x?`, or the list of what is known."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]}?"
    return f"Known: {', '.join(sorted(known))}." if known else ""


def _identity(config: Config) -> Iterator[KeyProblem]:
    if config.store.url.backend == "postgresql" and config.identity.key_file is None:
        yield KeyProblem(
            ("identity", "key_file"),
            "PostgreSQL requires a key file, so that every daemon makes the same pseudonyms.",
            "Create one of mode 0600 (head -c 32 /dev/urandom | base64) and name it here, the same on every host.",
            at=("identity",) if "identity" in config.model_fields_set else ("store", "url"),
        )


def _topics(kafka: Kafka) -> Iterator[KeyProblem]:
    first: dict[str, int] = {}
    for index, topic in enumerate(kafka.topics):
        key: Key = ("kafka", "topics", index, "name")
        if topic.name in (".", ".."):
            yield KeyProblem(key, "Kafka has no topic of this name.", "Write the name of a topic.")
        if topic.name in first:
            yield KeyProblem(key, f"The topic is already listed as topics[{first[topic.name]}].", "Remove one.")
        first.setdefault(topic.name, index)


def _security(security: KafkaSecurity) -> Iterator[KeyProblem]:
    section: Key = ("kafka", "security")
    given = security.model_fields_set
    protocol = security.security_protocol
    for name in sorted(given):
        if name.startswith("ssl_") and not protocol.endswith("SSL"):
            mend = "Write security_protocol: SSL or SASL_SSL, or remove it."
            yield KeyProblem((*section, name), f"This has no effect with security_protocol {protocol}.", mend)
        if name.startswith("sasl_") and not protocol.startswith("SASL"):
            mend = "Write security_protocol: SASL_SSL, or remove it."
            yield KeyProblem((*section, name), f"This has no effect with security_protocol {protocol}.", mend)
    for name in ("ssl_password", "sasl_plain_password"):
        if name in given and f"{name}_file" in given:
            yield KeyProblem(
                (*section, f"{name}_file"), f"The password is also given as {name}.", "Keep one of the two."
            )
    if not protocol.startswith("SASL"):
        return
    if security.sasl_mechanism is None:
        mend = "Write PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, GSSAPI or AWS_MSK_IAM."
        yield KeyProblem((*section, "sasl_mechanism"), f"security_protocol {protocol} needs it.", mend)
    elif security.sasl_mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        if not security.sasl_plain_username:
            yield KeyProblem(
                (*section, "sasl_plain_username"), f"{security.sasl_mechanism} needs it.", "Add the user name."
            )
        if security.sasl_plain_password is None and security.sasl_plain_password_file is None:
            mend = "Add sasl_plain_password_file: PATH, or sasl_plain_password: ${env:NAME}."
            yield KeyProblem((*section, "sasl_plain_password"), f"{security.sasl_mechanism} needs a password.", mend)


def _client(kafka: Kafka) -> Iterator[KeyProblem]:
    """What librdkafka does not have."""
    if kafka.client != "confluent-kafka":
        return
    section: Key = ("kafka", "security")
    mend = "Use kafka.client: kafka-python."
    if kafka.security.sasl_mechanism == "AWS_MSK_IAM":
        yield KeyProblem((*section, "sasl_mechanism"), "confluent-kafka has no AWS_MSK_IAM.", mend)
    for name in ("sasl_kerberos_name", "sasl_kerberos_domain_name"):
        if name in kafka.security.model_fields_set:
            yield KeyProblem((*section, name), "confluent-kafka has no such setting.", mend)


def _model(name: str, entry: ModelEntry) -> Iterator[KeyProblem]:
    key: Key = ("models", name)
    if not name.strip("/") or len(name) > 511:
        yield KeyProblem(key, "This is not a name of a model.", 'Write "name" or "tenant/name".')
    if entry.reference_is == "same_traffic" and entry.reference is None:
        yield KeyProblem(
            (*key, "reference_is"), "same_traffic needs a reference.", "Add reference: FILE, or remove this key."
        )
    yield from _known_names((*key, "threshold"), entry.threshold, list(entry.classes), "classes")
    yield from _known_names((*key, "importances"), entry.importances, list(entry.features), "features")


def _known_names(key: Key, given: Mapping[str, float], known: list[str], where: str) -> Iterator[KeyProblem]:
    for name in given:
        if known and name not in known:
            yield KeyProblem((*key, name), f"This name is not among the model's {where}.", did_you_mean(name, known))


def _detectors(config: Config) -> Iterator[KeyProblem]:
    for name, params in config.detectors.items():
        if not isinstance(params.get("enabled", True), bool):
            yield KeyProblem(("detectors", name, "enabled"), "This must be true or false.", "Write true or false.")


def _receivers(config: Config) -> Iterator[KeyProblem]:
    for name, receiver in config.receivers.items():
        if isinstance(receiver, WebhookReceiver) and not receiver.allow_private and is_private_host(receiver.url):
            yield KeyProblem(
                ("receivers", name, "url"),
                "This is a private or loopback address.",
                "Write allow_private: true beside it if that is meant.",
            )


def is_private_host(url: str) -> bool:
    """Whether the host, as written, is not on the public Internet. A name is judged by its ending, not looked up."""
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        # Numbers such as 127.1 or 0x7f000001 are addresses to most resolvers.
        last = host.rpartition(".")[2]
        numeric = last.isdigit() or last.startswith("0x")
        if not any(c.isascii() and c.isalnum() for c in host):
            return False  # stands for a name, as in a template
        return numeric or "." not in host or host.endswith((".localhost", ".local", ".internal"))
    mapped = getattr(address, "ipv4_mapped", None)
    return not (address if mapped is None else mapped).is_global or address.is_multicast


def _routes(config: Config) -> Iterator[KeyProblem]:
    known = list(config.receivers)
    for index, route in enumerate(config.routes):
        key: Key = ("routes", index)
        if route.receiver is not None and route.receivers:
            yield KeyProblem((*key, "receiver"), "Both receiver and receivers are given.", "Keep one of the two.")
        if not route.targets:
            yield KeyProblem(key, "The route has no receiver.", "Add receiver: NAME.")
        if route.receiver is not None and route.receiver not in known:
            yield _no_receiver((*key, "receiver"), route.receiver, known)
        for position, name in enumerate(route.receivers):
            if name not in known:
                yield _no_receiver((*key, "receivers", position), name, known)


def _no_receiver(key: Key, name: str, known: list[str]) -> KeyProblem:
    mend = did_you_mean(name, known) or "Add it under receivers."
    return KeyProblem(key, "There is no receiver of this name.", mend)
