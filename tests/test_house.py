"""Rules of the house that no other tool checks."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

import monitor

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {"time", "os", "io", "socket", "sqlalchemy", "pickle", "random"}
DETECTORS = sorted((ROOT / "detectors").rglob("*.py"))


def imported(source: str) -> set[str]:
    """Top-level names of all that a module imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import os.path as p\ndef f():\n    from time import sleep\nfrom . import random\n"
    assert imported(source) == {"os", "time"}


def test_there_are_detectors_to_check() -> None:
    assert ROOT / "detectors" / "base.py" in DETECTORS


@pytest.mark.parametrize("path", DETECTORS, ids=lambda path: str(path.relative_to(ROOT)))
def test_detectors_have_no_clock_no_input_no_chance(path: Path) -> None:
    assert not imported(path.read_text(encoding="utf-8")) & FORBIDDEN


def test_the_version_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert monitor.__version__ == project["version"]
