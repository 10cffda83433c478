"""Settings of kafka-python by its names, as librdkafka has them by its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from monitor.intake.sources.base import SourceError

FIXED: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "check.crcs": True,
    "enable.partition.eof": True,
    "allow.auto.create.topics": False,
}
"""What the rules of the source rest on."""
_CLIENT = {
    "security_protocol": "security.protocol",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_crlfile": "ssl.crl.location",
    "ssl_password": "ssl.key.password",
    "ssl_ciphers": "ssl.cipher.suites",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "sasl_kerberos_service_name": "sasl.kerberos.service.name",
    "client_id": "client.id",
    "request_timeout_ms": "socket.timeout.ms",
    "reconnect_backoff_ms": "reconnect.backoff.ms",
    "reconnect_backoff_max_ms": "reconnect.backoff.max.ms",
    "connections_max_idle_ms": "connections.max.idle.ms",
    "metadata_max_age_ms": "topic.metadata.refresh.interval.ms",
}
_CONSUMER = {
    "fetch_min_bytes": "fetch.min.bytes",
    "fetch_max_bytes": "fetch.max.bytes",
    "max_partition_fetch_bytes": "max.partition.fetch.bytes",
    "fetch_max_wait_ms": "fetch.wait.max.ms",
}
_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")
_DEFAULTS: dict[str, Any] = {
    "client.id": "modelwarden",
    "reconnect.backoff.max.ms": 1_000,
    "topic.metadata.refresh.interval.ms": 60_000,
    "log_level": 0,  # what it would print to standard error is told by errors
}
_SIZES: dict[str, Any] = {
    "fetch.max.bytes": 16 * 1024 * 1024,
    "max.partition.fetch.bytes": 1024 * 1024,  # a larger batch still comes, alone
    "fetch.wait.max.ms": 500,
    "queued.max.messages.kbytes": 16 * 1024,
}
_RECEIVE_BYTES = 100_000_000


def client_settings(servers: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of any client. SourceError when one is unknown, not to be had, or names a file that cannot be read."""
    special = {"ssl_check_hostname", "api_version"}
    unknown = sorted(given.keys() - _CLIENT.keys() - _CONSUMER.keys() - special)
    if unknown:
        raise SourceError(
            f"confluent-kafka has no settings {', '.join(unknown)}. Remove them, or use kafka.client: kafka-python"
        )
    if given.get("sasl_mechanism") == "AWS_MSK_IAM":
        raise SourceError("sasl_mechanism: confluent-kafka has no AWS_MSK_IAM. Use kafka.client: kafka-python")
    for name in _FILES:
        path = given.get(name)
        if path is not None and not os.access(path, os.R_OK):
            raise SourceError(f"{name}: {path} cannot be read. Check path and permissions")
    settings = _DEFAULTS | {"bootstrap.servers": ",".join(servers)} | _renamed(_CLIENT, given)
    if "ssl_check_hostname" in given:
        settings["ssl.endpoint.identification.algorithm"] = "https" if given["ssl_check_hostname"] else "none"
    if "ssl_certfile" in given and "ssl_keyfile" not in given:
        settings["ssl.key.location"] = given["ssl_certfile"]  # one file may hold both
    return settings


def consumer_settings(servers: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the consumer, without those that are FIXED."""
    sizes = _SIZES | _renamed(_CONSUMER, given)
    sizes["receive.message.max.bytes"] = max(_RECEIVE_BYTES, int(sizes["fetch.max.bytes"]) + 1_024)
    # librdkafka wants room for one message, and takes larger ones anyway
    sizes["message.max.bytes"] = min(1_000_000, max(1_000, int(sizes["fetch.max.bytes"])))
    return client_settings(servers, given) | sizes


def _renamed(names: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    return {names[name]: value for name, value in given.items() if name in names and value is not None}
