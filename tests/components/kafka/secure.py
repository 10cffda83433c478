"""A Kafka broker with TLS and logins beside its plain listener."""

from __future__ import annotations

from tests.components.kafka.broker import KafkaBroker
from tests.components.kafka.certificates import Authority
from tests.components.process import free_ports

_LOGIN = "org.apache.kafka.common.security"


class SecureKafkaBroker(KafkaBroker):
    """`tls` wants a client certificate; `login` wants a password, by PLAIN or SCRAM-SHA-512, over TLS.

    The broker's certificate, signed by `authority`, names 127.0.0.1 and nothing else.
    """

    login_user = "watcher"
    login_password = "correct-horse"

    def __init__(self) -> None:
        super().__init__()
        tls, login = free_ports(2)
        self.tls, self.login = f"127.0.0.1:{tls}", f"127.0.0.1:{login}"
        self.authority = Authority(self.directory, "authority")
        self._certificate = self.authority.issue("broker", "127.0.0.1")

    def _server_properties(self) -> dict[str, str]:
        plain = super()._server_properties()
        own = f"SSL://{self.tls},SASL_SSL://{self.login}"
        names = "listener.security.protocol.map"
        return plain | {
            "listeners": f"{plain['listeners']},{own}",
            "advertised.listeners": f"{plain['advertised.listeners']},{own}",
            names: f"{plain[names]},SSL:SSL,SASL_SSL:SASL_SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._certificate),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.file),
            "listener.name.ssl.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": (
                f'{_LOGIN}.plain.PlainLoginModule required user_{self.login_user}="{self.login_password}";'
            ),
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{_LOGIN}.scram.ScramLoginModule required;",
        }

    def _format_options(self) -> list[str]:
        return ["--add-scram", f"SCRAM-SHA-512=[name={self.login_user},password={self.login_password}]"]
