"""The suite is worth nothing on PostgreSQL if it quietly runs on SQLite only."""

from __future__ import annotations

from collections import Counter

import pytest


def test_as_many_cases_ran_on_postgresql(cases: Counter[str], postgres_url: str) -> None:
    if not cases:
        pytest.skip("no test of the store ran in this session")
    assert cases["postgresql"] >= cases["sqlite"], dict(cases)
