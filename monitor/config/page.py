"""The reference page of the configuration, written from the same declarations that check it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from monitor.config.schema import config_json_schema

_HEAD = """# Configuration

One file, `modelwarden.yaml`: `--config FILE`, `$MODELWARDEN_CONFIG`, `./modelwarden.yaml` or
`/etc/modelwarden/modelwarden.yaml`, the first that is there. Unknown keys are errors. `${env:NAME}` and
`${env:NAME:-default}` stand for environment variables. Durations are written `10s`, `12h`, `30d`; sizes `256KiB`,
`512MiB`. Relative paths start from the directory of the file. `modelwarden check-config` checks it, and says which
keys have no effect in this version.

SIGHUP makes `run` read the file again. A file that is not valid changes nothing. Keys with "no" under reload need a
restart: they keep their old value, the others take the new one, and an incident (`monitor_health`, info) names them.
`modelwarden_config_reload_success` is 1 while the file as last read is in force whole.
"""
_ROWS = "| key | meaning | default | reload |\n|---|---|---|---|"


def markdown() -> str:
    """The page: one table a section, in the order of the file."""
    schema = config_json_schema()
    definitions: Mapping[str, Any] = schema["$defs"]
    parts = [_HEAD]
    for name, field in schema["properties"].items():
        rows = "\n".join(_rows(name, field, definitions))
        parts.append(f"## {name}\n{_ROWS}\n{rows}\n")
    return "\n".join(parts)


def _rows(path: str, field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    default = "" if field.get("default") in (None, {}) else f"`{json.dumps(field['default'])}`"
    reload = "no" if field.get("x-reload") is False else "yes"
    yield f"| `{path}` | {field.get('description', '')} | {default} | {reload} |"
    for inner, model in _inner(path, field, definitions):
        for name, below in model.get("properties", {}).items():
            yield from _rows(f"{inner}.{name}", below, definitions)
        more = model.get("additionalProperties")
        if isinstance(more, dict) and "$ref" in more:
            yield from _rows(
                f"{inner}.NAME", {"description": _target(more, definitions)["description"], **more}, definitions
            )


def _inner(
    path: str, field: Mapping[str, Any], definitions: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The sections below a key: itself one, a list of them, or a mapping of names to them."""
    below = field.get("additionalProperties")
    places = [
        (path, field),
        (f"{path}[]", field.get("items", {})),
        (f"{path}.NAME", below if isinstance(below, dict) else {}),
    ]
    for place, part in places:
        for choice in part.get("oneOf", part.get("anyOf", [part])):
            if "$ref" in choice:
                yield place, _target(choice, definitions)


def _target(part: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = definitions[part["$ref"].rpartition("/")[2]]
    return found


if __name__ == "__main__":
    print(markdown(), end="")
