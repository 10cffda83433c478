"""The configuration: one YAML file, read and checked as a whole, with file, line and key in every message."""

from __future__ import annotations

from monitor.config.errors import ConfigError, Key, KeyProblem, Problem, key_text
from monitor.config.kafka import Kafka, KafkaSecurity, Topic, read_secret
from monitor.config.load import Check, find_config, load_config, parse_config
from monitor.config.models import AutoModels, Budget, Calibration, Labels, ModelEntry, Models, ModelSettings
from monitor.config.receivers import AlertmanagerReceiver, Receiver, Route, WebhookReceiver
from monitor.config.schema import Access, Api, Config, Identity, Limits, Retention, Store, config_json_schema
from monitor.config.units import format_duration, format_size, parse_duration, parse_size
from monitor.config.values import Address, ClientSource, ConfigPath, DatabaseUrl

__all__ = [
    "Access",
    "Address",
    "AlertmanagerReceiver",
    "Api",
    "AutoModels",
    "Budget",
    "Calibration",
    "Check",
    "ClientSource",
    "Config",
    "ConfigError",
    "ConfigPath",
    "DatabaseUrl",
    "Identity",
    "Kafka",
    "KafkaSecurity",
    "Key",
    "KeyProblem",
    "Labels",
    "Limits",
    "ModelEntry",
    "ModelSettings",
    "Models",
    "Problem",
    "Receiver",
    "Retention",
    "Route",
    "Store",
    "Topic",
    "WebhookReceiver",
    "config_json_schema",
    "find_config",
    "format_duration",
    "format_size",
    "key_text",
    "load_config",
    "parse_config",
    "parse_duration",
    "parse_size",
    "read_secret",
]
