"""Ids of public taxonomies (MITRE ATLAS, OWASP ML, NIST AI 100-2) by kind of incident, from taxonomy.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

SCHEMES = ("mitre_atlas", "owasp_ml", "nist_aml")


@cache
def _table() -> dict[str, dict[str, list[str]]]:
    data: dict[str, Any] = yaml.safe_load(files("alerts").joinpath("taxonomy.yaml").read_text(encoding="utf-8"))
    return {kind: dict(ids or {}) for kind, ids in data["kinds"].items()}


def kinds() -> tuple[str, ...]:
    """Every kind of incident there is."""
    return tuple(_table())


def taxonomy_of(kind: str, atlas: Sequence[str] = ()) -> dict[str, list[str]]:
    """The ids of a kind; `atlas` ids that the finding itself brings come first. KeyError for an unknown kind."""
    row = _table()[kind]
    ids = {scheme: list(row.get(scheme, [])) for scheme in SCHEMES}
    ids["mitre_atlas"] = list(dict.fromkeys((*atlas, *ids["mitre_atlas"])))
    return ids
