from __future__ import annotations

from collections.abc import Iterator

import pytest

from monitor.demo.broker import EmbeddedBroker


@pytest.fixture(scope="session")
def embedded() -> Iterator[str]:
    """Address of an embedded broker."""
    with EmbeddedBroker() as bootstrap_servers:
        yield bootstrap_servers
