"""Reading the configuration again while the daemon runs: what may change does, the rest needs a restart.

Which keys may change is declared where the key is (`reload=` in monitor/config) and published as `x-reload` in the
schema. A file that is not valid changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitor.assembly import registry_checks
from monitor.config import Config, ConfigError, load_config
from monitor.config.checks import cross_checks
from monitor.config.errors import key_text
from monitor.config.section import Section


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload came to. `config` is in force from now on; None: the file is refused as a whole (`errors`)."""

    config: Config | None
    digest: str = ""
    """SHA-256 of the file, as `sha256sum` prints it."""
    changed: tuple[str, ...] = ()
    """Keys that have another value now."""
    refused: tuple[str, ...] = ()
    """Keys that keep their old value until a restart."""
    errors: tuple[str, ...] = ()


def reload_config(old: Config, path: Path) -> Reloaded:
    """Read and check `path` as `run` does, and keep the old values of what only a restart can change."""
    try:
        new = load_config(path, checks=(registry_checks,))
        new.need_kafka()
    except ConfigError as error:
        return Reloaded(None, errors=tuple(str(problem) for problem in error.problems))
    found = list(differences(old, new))
    kept = _kept(old, new)
    merged = new if kept is new else Config.model_validate(kept)
    # What a file says as a whole need not hold for a mixture of two.
    problems = [f"{key_text(p.key)}: {p.sentence} {p.mend}" for p in cross_checks(merged)] if kept is not new else []
    if problems:
        restart = ", ".join(key for key, may in found if not may)
        return Reloaded(None, errors=(*problems, f"{restart}: needs a restart, and the rest does not fit without it."))
    changed = tuple(key for key, may in found if may)
    refused = tuple(key for key, may in found if not may)
    return Reloaded(merged, new.digest, changed, refused)


def differences(old: Section, new: Section, path: str = "", may: bool = True) -> Iterator[tuple[str, bool]]:
    """(key, whether a reload may change it) of every key whose value differs, as deep as both have the key."""
    for name, field in type(old).model_fields.items():
        extra = field.json_schema_extra
        own = may and not (isinstance(extra, dict) and extra.get("x-reload") is False)
        yield from _differ(getattr(old, name), getattr(new, name), f"{path}{field.alias or name}", own)
    yield from _differ(old.__pydantic_extra__ or {}, new.__pydantic_extra__ or {}, path.rstrip("."), may)


def _differ(old: Any, new: Any, path: str, may: bool) -> Iterator[tuple[str, bool]]:
    if isinstance(old, Section) and type(old) is type(new):
        yield from differences(old, new, f"{path}.", may)
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(k for k in new if k not in old)]:
            if key in old and key in new:
                yield from _differ(old[key], new[key], f"{path}.{key}", may)
            else:
                yield f"{path}.{key}", may
    elif old != new:
        yield path, may


def _kept(old: Section, new: Section) -> Section:
    """`new` with the old values of what a reload may not change; `new` itself where nothing of that differs."""
    update: dict[str, Any] = {}
    for name, field in type(old).model_fields.items():
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("x-reload") is False:
            if any(True for _ in _differ(before, after, name, False)):
                update[name] = before
        elif isinstance(before, Section) and type(before) is type(after):
            inner = _kept(before, after)
            if inner is not after:
                update[name] = inner
    return new.model_copy(update=update) if update else new
