"""The `receivers:` and `routes:` sections: who is told, and of what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from monitor.config.section import Section, key
from monitor.config.values import Name, PathKey, Switch, UrlKey

Severity = Literal["info", "warning", "critical"]
IncidentKind = Literal[
    "data_quality", "schema_change", "feature_drift", "prediction_drift", "multivariate_drift", "concept_drift",
    "performance_drop", "adversarial_input", "model_extraction", "membership_inference", "unusual_client",
    "feedback_poisoning", "traffic_anomaly", "error_burst", "latency_anomaly", "credential_attack", "access_policy",
    "access_novelty", "monitor_health",
]  # fmt: skip


class AlertmanagerReceiver(Section):
    """Prometheus Alertmanager."""

    type: Literal["alertmanager"] = key("Kind of receiver.", example="alertmanager")
    urls: tuple[UrlKey, ...] = key(
        "Every Alertmanager of the cluster; private and loopback addresses are allowed.",
        min_length=1, example=["http://127.0.0.1:9093"], repr=False,
    )  # fmt: skip


class WebhookReceiver(Section):
    """An HTTP endpoint that gets each incident as JSON."""

    type: Literal["webhook"] = key("Kind of receiver.", example="webhook")
    url: UrlKey = key("Where to post.", example="https://example.com/hook", repr=False)
    secret_file: PathKey | None = key("File with the secret that signs each message; without it, unsigned.", None)
    allow_private: Switch = key("Allow a private or loopback address.", False)
    identities: Literal["hashed", "clear"] = key("Show clients as keyed hashes, or in clear.", "hashed")


Receiver = Annotated[AlertmanagerReceiver | WebhookReceiver, Field(discriminator="type")]


class Route(Section):
    """Which incidents go to which receivers."""

    receiver: Name | None = key("Name of one receiver.", None)
    receivers: tuple[Name, ...] = key("Names of several receivers, instead of `receiver`.", [])
    severity: Severity = key("Least severity.", "warning")
    kinds: tuple[IncidentKind, ...] = key("Kinds of incident; empty: all.", [])
    models: tuple[Name, ...] = key('Models, as "name" or "tenant/name"; empty: all.', [])

    @property
    def targets(self) -> tuple[str, ...]:
        """The receivers of this route, whichever way they were written."""
        return self.receivers if self.receiver is None else (self.receiver, *self.receivers)
