"""The whole configuration as immutable models; documentation and JSON Schema are generated from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import PrivateAttr

from monitor.config.errors import ConfigError, Problem
from monitor.config.kafka import Kafka
from monitor.config.models import Budget, Models, ModelSettings
from monitor.config.receivers import Receiver, Route
from monitor.config.section import Section, key
from monitor.config.values import (
    AddressKey,
    DatabaseKey,
    Duration,
    DurationOrZero,
    Name,
    NetworkKey,
    PathKey,
    Positive,
    Size,
    Switch,
    UrlKey,
)


class Retention(Section):
    """How long rows are kept."""

    incidents: Duration = key("Incidents, after they are resolved.", "400d")
    dead_letters: Duration = key("Records that could not be read.", "30d")
    evidence: Duration = key("Evidence behind resolved incidents, and the recorded trail.", "90d")


class Store(Section):
    """The database."""

    url: DatabaseKey = key("SQLite (default) or PostgreSQL.", "sqlite:///modelwarden.db", reload=False, repr=False)
    commit_interval: Duration = key("Longest time between commits.", "10s")
    retention: Retention = key("How long rows are kept.", {})


class Identity(Section):
    """Clients are stored as keyed hashes only."""

    key_file: PathKey | None = key(
        "File with the key. PostgreSQL requires one; beside an SQLite database one is made at first.",
        None,
        reload=False,
    )
    expire: Duration = key(
        "Identities not seen for this long are deleted; their pseudonyms stay. Those in open incidents wait.",
        "400d",
        reload=False,
    )


class Heartbeat(Section):
    """Signs of life, so that something else notices when nobody watches any more."""

    url: UrlKey | None = key(
        "Asked (GET) at each interval while the daemon is active and ready; an external service tells when it stops.",
        None, example="https://hc-ping.com/your-check", repr=False,
    )  # fmt: skip
    every: Duration = key("Interval.", "1m")
    alertmanager: Switch = key(
        "Keep the alert ModelWardenHeartbeat firing in every Alertmanager; it resolves two intervals after the last.",
        False,
    )  # fmt: skip


class Access(Section):
    """What is known of the network."""

    networks: Mapping[str, tuple[NetworkKey, ...]] = key("Named networks, each a list in CIDR notation.", {})
    trusted_proxies: tuple[NetworkKey, ...] = key(
        "Proxies whose forwarded addresses are believed: of an X-Forwarded-For in `client_from` the client is the last "
        "address that is none of these.",
        [],
    )


class Limits(Section):
    """Bounds that keep hostile or broken input from costing more than its share."""

    record_bytes: Size = key("Largest record that is parsed.", "256KiB")
    client_state: Size = key("Memory for the state of the clients of all models.", "512MiB")
    series: Positive = key("Most series that are watched.", 5000)
    record_age: Duration = key("On a live topic an event may be this much older than the broker's time.", "7d")
    skew: DurationOrZero = key("On a live topic an event may be this much newer than the broker's time.", "10m")


class Api(Section):
    """Metrics, health, API and pages."""

    listen: AddressKey = key("Address to listen on; loopback by default.", "127.0.0.1:9464", reload=False)


class Config(Section):
    """One `modelwarden.yaml`."""

    kafka: Kafka | None = key("Where the events come from; `run` needs it.", None, reload=False)
    store: Store = key("The database.", {})
    identity: Identity = key("Pseudonyms of clients.", {}, reload=False)
    budget: Budget = key("False alarms a model may cost: the default of every model.", {})
    models: Models = key("What is watched.", {})
    detectors: Mapping[Name, Mapping[str, Any]] = key(
        "Parameters by detector; `enabled: false` turns one off. A changed parameter restarts that detector only.", {}
    )
    receivers: Mapping[Name, Receiver] = key("Who is told, by name.", {})
    routes: tuple[Route, ...] = key(
        "Which incidents go where; empty: warning and above to every receiver, info nowhere.", []
    )
    access: Access = key("What is known of the network.", {})
    notify: Switch = key("off: a dry run that lists what would have been sent.", True)
    overload: Literal["lag", "sample"] = key(
        "When events come too fast: fall behind (lag), or judge a sample of the busiest models, visibly.", "lag"
    )
    heartbeat: Heartbeat = key("Signs of life.", {})
    limits: Limits = key("Bounds on input and state.", {})
    api: Api = key("HTTP server.", {}, reload=False)

    _file: Path | None = PrivateAttr(default=None)
    _digest: str = PrivateAttr(default="")

    @property
    def file(self) -> Path | None:
        """The file that this configuration was read from."""
        return self._file

    @property
    def digest(self) -> str:
        """SHA-256 of the file's bytes, in hex; empty where none was read."""
        return self._digest

    def model_settings(self, name: str, tenant: str = "") -> ModelSettings:
        """The settings of a model with every default filled in, whether the file lists it or not."""
        entry = self.models.entry(name, tenant)
        if entry is None:
            return ModelSettings(name=name, tenant=tenant, budget=self.budget)
        given = {part: getattr(entry, part) for part in type(entry).model_fields if part != "budget"}
        own = {part: value for part, value in entry.budget if value is not None}
        budget = self.budget.model_copy(update=own)
        return ModelSettings.model_construct(**given, name=name, tenant=tenant, declared=True, budget=budget)

    def need_kafka(self) -> Kafka:
        """The `kafka:` section with at least one topic, for commands that read events. Raises ConfigError."""
        file = "modelwarden.yaml" if self._file is None else str(self._file)
        if self.kafka is None:
            mend = 'Add kafka: {bootstrap_servers: ["kafka:9092"], topics: [{name: predictions}]}.'
            raise ConfigError([Problem(file, None, "kafka", "This section is missing.", mend)])
        if not self.kafka.topics:
            raise ConfigError(
                [Problem(file, None, "kafka.topics", "No topic is listed.", "Add one: [{name: predictions}].")]
            )
        return self.kafka


def config_json_schema() -> dict[str, Any]:
    """JSON Schema of the file; `x-reload` of each key says whether a reload may change it."""
    schema = Config.model_json_schema()
    for field in _fields(schema):
        if field.get("x-reload") is False:
            _fix(field, schema["$defs"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "modelwarden.yaml"}


def _fields(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for section in (schema, *schema["$defs"].values()):
        yield from section.get("properties", {}).values()


def _fix(field: dict[str, Any], definitions: Mapping[str, Any]) -> None:
    """No key below one that a reload may not change can be changed by it either."""
    for part in (field, field.get("items", {}), *field.get("anyOf", ())):
        if "$ref" in part:
            for below in definitions[part["$ref"].rpartition("/")[2]].get("properties", {}).values():
                below["x-reload"] = False
                _fix(below, definitions)
