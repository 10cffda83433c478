"""What other programs are given: dashboard, rules, unit. In a checkout they lie in deploy/, in a wheel beside us."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable


def deploy_file(*parts: str) -> str:
    """The text of a file of deploy/. FileNotFoundError when this installation has none."""
    installed: Traversable = files("monitor").joinpath("_deploy")
    place = installed if installed.is_dir() else files("monitor").joinpath("..", "deploy")
    return place.joinpath(*parts).read_text(encoding="utf-8")
