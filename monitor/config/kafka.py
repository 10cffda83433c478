"""The `kafka:` section: brokers, security and topics."""

from __future__ import annotations

from typing import Literal

from pydantic import SecretStr

from monitor.config.errors import ConfigError, Problem
from monitor.config.section import Section, key
from monitor.config.values import ClientKey, ConfigPath, Duration, Name, PathKey, ServerKey, StartKey, Switch

SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "AWS_MSK_IAM"]
TopicType = Literal["prediction", "label", "access", "metric", "request", "response", "auto"]


class KafkaSecurity(Section):
    """Encryption and login; the names are those of kafka-python, plus `*_file` for the two passwords."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = key(
        "How to talk to the brokers.", "PLAINTEXT", reload=False
    )
    ssl_cafile: PathKey | None = key(
        "Certificates of the authorities to trust (PEM); default the system's.", None, reload=False
    )
    ssl_certfile: PathKey | None = key("Client certificate (PEM).", None, reload=False)
    ssl_keyfile: PathKey | None = key("Private key of the client certificate (PEM).", None, reload=False)
    ssl_crlfile: PathKey | None = key("Certificates that are revoked (PEM).", None, reload=False)
    ssl_password: SecretStr | None = key("Password of the private key.", None, reload=False)
    ssl_password_file: PathKey | None = key("File that holds the password of the private key.", None, reload=False)
    ssl_ciphers: str | None = key("Ciphers to allow, in OpenSSL's notation.", None, reload=False)
    ssl_check_hostname: Switch = key("Whether the broker's certificate must name its host.", True, reload=False)
    sasl_mechanism: SaslMechanism | None = key("How to log in.", None, reload=False, example="SCRAM-SHA-512")
    sasl_plain_username: str | None = key("User name of PLAIN and SCRAM.", None, reload=False)
    sasl_plain_password: SecretStr | None = key("Password of PLAIN and SCRAM.", None, reload=False)
    sasl_plain_password_file: PathKey | None = key(
        "File that holds the password of PLAIN and SCRAM.", None, reload=False
    )
    sasl_kerberos_name: str | None = key(
        "Full Kerberos name of the brokers, instead of service and domain.", None, reload=False
    )
    sasl_kerberos_service_name: str = key("Kerberos service name of the brokers.", "kafka", reload=False)
    sasl_kerberos_domain_name: str | None = key("Kerberos domain of the brokers.", None, reload=False)

    def client_options(self) -> dict[str, str | bool]:
        """Keyword arguments for kafka-python, only those that were given. Reads the `*_file` secrets now.

        Raises ConfigError when a secret cannot be read.
        """
        options: dict[str, str | bool] = {"security_protocol": self.security_protocol}
        for name in sorted(self.model_fields_set):
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                options[name] = value.get_secret_value()
            elif name.endswith("_password_file") and isinstance(value, ConfigPath):
                options[name.removesuffix("_file")] = read_secret(value, f"kafka.security.{name}").get_secret_value()
            elif value is not None:
                options[name] = value if isinstance(value, bool) else str(value)
        return options


class Topic(Section):
    """One topic to read."""

    name: Name = key("Name of the topic.", reload=False, example="predictions", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    format: Name = key("Format of its records.", "native", reload=False)
    type: TopicType = key(
        "What an event is that does not say so itself; auto: every event says so.", "auto", reload=False
    )
    time: Literal["event", "broker"] = key("Whose time counts: the event's own or the broker's.", "event", reload=False)
    live: Switch = key("Events arrive as they happen: a time far from the broker's is corrected.", True, reload=False)
    start: StartKey = key("Where the first start begins: latest, earliest or an RFC 3339 time.", "latest", reload=False)
    on_data_loss: Literal["earliest", "stop"] = key(
        "When records were deleted before they were read: go on at the earliest, or stop.", "earliest", reload=False
    )
    client_from: tuple[ClientKey, ...] = key(
        "Where the client is found: header:NAME, field:PATH or key; the first that exists.",
        ["field:client"],
        reload=False,
    )
    keyed_by: Literal["none", "model"] = key(
        "model: all records of a model are in one partition.", "none", reload=False
    )
    pairs_with: Name | None = key(
        "On a response topic: the request topic; needed where several topics hold requests in this format.",
        None,
        reload=False,
        example="mlserver-input",
    )
    pair_within: Duration = key(
        "On a response topic: how long a request waits for its response, and a response for its request.",
        "10m",
        reload=False,
    )
    model: Name | None = key("Model of every event that does not name one.", None, reload=False)
    tenant: Name | None = key("Tenant of every event that does not name one.", None, reload=False)


class Kafka(Section):
    """Where the events come from."""

    bootstrap_servers: tuple[ServerKey, ...] = key(
        'Brokers to ask first, as "host:port".', reload=False, min_length=1, example=["kafka:9092"]
    )
    group: Name = key("Consumer group; it also names this installation in the database.", "modelwarden", reload=False)
    client: Literal["kafka-python", "confluent-kafka"] = key(
        "Client library; confluent-kafka needs the extra `fast`.", "kafka-python", reload=False
    )
    security: KafkaSecurity = key("Encryption and login.", {}, reload=False)
    topics: tuple[Topic, ...] = key("Topics to read.", [], reload=False)


def read_secret(file: ConfigPath, name: str) -> SecretStr:
    """The secret in `file` without the line end; `name` is its key in the configuration. Raises ConfigError."""
    try:
        text = file.path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a text file"
        problem = Problem(
            file.written, None, name, f"The secret cannot be read: {reason}.", "Check path and permissions."
        )
        raise ConfigError([problem]) from None
    if not text:
        raise ConfigError(
            [Problem(file.written, None, name, "The secret is empty.", "Write the secret into this file.")]
        )
    return SecretStr(text)
