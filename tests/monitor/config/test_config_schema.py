"""Units, and the published JSON Schema."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.config import config_json_schema, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10s", timedelta(seconds=10)), ("400d", timedelta(days=400)), ("12h", timedelta(hours=12)),
        ("1m", timedelta(minutes=1)), ("1h30m", timedelta(minutes=90)), ("250ms", timedelta(milliseconds=250)),
        ("0.1s", timedelta(milliseconds=100)), ("2w", timedelta(days=14)), ("0s", timedelta(0)),
    ],
)  # fmt: skip
def test_durations(text: str, value: timedelta) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("256KiB", 2**18), ("512MiB", 2**29), ("1.5kB", 1500), ("7B", 7), ("1 GB", 10**9)]
)
def test_sizes(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize(
    "text", ["", "10", "s", "-1s", "1e3s", "10 s", "10S", "1y", "٣s", "10s ", "100000d", "9" * 70 + "s"]
)
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="Write"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "10", "KiB", "-1B", "1e3B", "1kb", "1 PiB", "٣B", "2000000TiB", "1KiB\n"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="Write"):
        parse_size(text)


@given(st.integers(0, 10**13))
def test_units_survive_the_round_trip(number: int) -> None:
    assert parse_size(format_size(number)) == number
    duration = timedelta(microseconds=number)
    assert parse_duration(format_duration(duration)) == duration


def keys() -> dict[str, dict[str, Any]]:
    """Every key of the file by its path: `*` for a name, `[]` for an item."""
    schema = config_json_schema()
    found: dict[str, dict[str, Any]] = {}

    def walk(node: dict[str, Any], path: str) -> None:
        if "$ref" in node:
            walk(schema["$defs"][node["$ref"].rpartition("/")[2]], path)
        for name, below in node.get("properties", {}).items():
            found[f"{path}.{name}".lstrip(".")] = below
            walk(below, f"{path}.{name}")
        for option in [*node.get("anyOf", []), *node.get("oneOf", [])]:
            walk(option, path)
        for inner, mark in (("items", "[]"), ("additionalProperties", ".*")):
            if isinstance(node.get(inner), dict):
                walk(node[inner], path + mark)

    walk(schema, "")
    return found


def test_every_key_says_what_it_is_and_whether_a_reload_may_change_it() -> None:
    found, schema = keys(), config_json_schema()
    assert len(found) > 80
    for path, node in found.items():
        below = schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
        assert node.get("description") or below.get("description"), path
        assert isinstance(node.get("x-reload"), bool), path


def test_what_a_reload_may_change() -> None:
    found = {path: node["x-reload"] for path, node in keys().items()}
    for path in ("budget.drift", "models.auto.max", "models.*.reference", "models.*.budget.drift", "detectors",
                 "routes", "receivers.*.url", "notify", "overload", "access.networks", "limits.skew"):  # fmt: skip
        assert found[path] is True, path
    for path in ("kafka.bootstrap_servers", "kafka.group", "kafka.client", "kafka.security.ssl_cafile", "store.url",
                 "identity.key_file", "api.listen"):  # fmt: skip
        assert found[path] is False, path


def test_the_schema_shows_values_as_they_are_written() -> None:
    found = keys()
    assert found["store.commit_interval"]["default"] == "10s"
    assert found["limits.record_bytes"]["default"] == "256KiB"
    assert found["store.url"]["default"] == "sqlite:///modelwarden.db"
    assert found["models.*.calibration.for"]["default"] == "12h"
    assert found["limits.series"]["exclusiveMinimum"] == 0
    assert found["api.listen"]["default"] == "127.0.0.1:9464"
