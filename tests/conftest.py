"""Fixtures for the real servers: one that is not installed skips its tests, or fails them where it is required."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from tests.components.alertmanager import Alertmanager
from tests.components.kafka import KafkaBroker
from tests.components.mlserver import MLServer
from tests.components.need import MissingComponent, give_up
from tests.components.postgres import Postgres
from tests.components.process import Component
from tests.components.prometheus import Prometheus, Promtool

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("modelwarden", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("modelwarden")

C = TypeVar("C")


def obtain(name: str, make: Callable[[], C]) -> C:
    """What `make` makes; a skip or a failure if component `name` is missing."""
    try:
        return make()
    except MissingComponent as missing:
        give_up(name, str(missing))


@pytest.fixture(scope="session")
def shared_components() -> list[Component]:
    """The servers that live as long as the session."""
    return []


@pytest.fixture(autouse=True)
def heal_components(shared_components: list[Component]) -> Iterator[None]:
    """A shared server that a test killed or froze runs again in the next test."""
    yield
    for component in shared_components:
        component.heal()


@pytest.fixture(scope="session")
def kafka(shared_components: list[Component]) -> Iterator[KafkaBroker]:
    """One broker for the session: name topics and groups so that no other test has them."""
    with ExitStack() as stack:
        broker = obtain("kafka", KafkaBroker)
        stack.callback(broker.close)
        broker.start()
        shared_components.append(broker)
        yield broker


@pytest.fixture(scope="session")
def postgres(shared_components: list[Component]) -> Iterator[Postgres]:
    """One server for the session."""
    with ExitStack() as stack:
        server = obtain("postgres", Postgres)
        stack.callback(server.close)
        server.start()
        shared_components.append(server)
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """SQLAlchemy URL of a new, empty database."""
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def start_alertmanager() -> Iterator[Callable[..., Alertmanager]]:
    """Starts Alertmanagers; `webhook_url=` makes one post there. All end with the test."""
    with ExitStack() as stack:

        def start(webhook_url: str | None = None) -> Alertmanager:
            server = obtain("alertmanager", lambda: Alertmanager(webhook_url))
            stack.callback(server.close)
            return server.start()

        yield start


@pytest.fixture
def alertmanager(start_alertmanager: Callable[..., Alertmanager]) -> Alertmanager:
    """A new Alertmanager that notifies nobody."""
    return start_alertmanager()


@pytest.fixture
def start_mlserver() -> Iterator[Callable[..., MLServer]]:
    """Starts MLServers: `start(bootstrap_servers, model, width)`. All end with the test."""
    with ExitStack() as stack:

        def start(*arguments: Any) -> MLServer:
            server = obtain("mlserver", lambda: MLServer(*arguments))
            stack.callback(server.close)
            return server.start()

        yield start


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    """A new Prometheus that scrapes nothing yet (`set_targets`)."""
    with ExitStack() as stack:
        server = obtain("prometheus", Prometheus)
        stack.callback(server.close)
        yield server.start()


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    return obtain("prometheus", Promtool)
