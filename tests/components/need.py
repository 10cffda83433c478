"""What happens when a component is not installed: a skip with a hint, or a failure where it is required."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

REQUIRE = "MODELWARDEN_REQUIRE"


class MissingComponent(Exception):
    """A component cannot be run here; the text says how to get it."""


def give_up(name: str, hint: str) -> NoReturn:
    """Skip the test that needs component `name`, or fail it if the variable MODELWARDEN_REQUIRE lists the name."""
    required = {part.strip() for part in os.environ.get(REQUIRE, "").split(",")}
    if name in required:
        pytest.fail(f"{name} is missing, and {REQUIRE} requires it: {hint}", pytrace=False)
    pytest.skip(f"{name} is missing: {hint}")
