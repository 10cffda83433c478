"""Two daemons: with PostgreSQL one stands by, takes over, and writes nothing when thawed; SQLite refuses the second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from monitor.demo.produce import messages_of, produce
from monitor.state.tables import metadata
from tests.components.kafka import KafkaBroker
from tests.components.waiting import wait_until
from tests.e2e.deployment import Deployment, traffic

TAKE_OVER_SECONDS = 15


@pytest.fixture
def topic(kafka: KafkaBroker, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"standby-{abs(hash(request.node.name)) % 10**8}"
    kafka.create_topic(name, 1)
    yield name
    kafka.delete_topic(name)


def dump(url: str) -> dict[str, list[Any]]:
    """Every row of every table but the lease, which the active daemon renews all the time."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        tables = [t for t in metadata.sorted_tables if t.name != "leases"]
        rows = {t.name: sorted(map(repr, connection.execute(sa.select(t)).all())) for t in tables}
    engine.dispose()
    return rows


def test_the_standby_takes_over_and_a_thawed_daemon_changes_no_row(
    kafka: KafkaBroker, topic: str, postgres_url: str, tmp_path: Path
) -> None:
    lines = traffic()
    place = Deployment(tmp_path, kafka.bootstrap_servers, topic, topic, postgres_url)
    first, second = place.daemon("first"), place.daemon("second")
    try:
        first.start()
        wait_until(first.active, 20, "the first daemon is active")
        second.start()
        produce(kafka.bootstrap_servers, topic, messages_of(lines[:3_000]))
        place.wait_consumed(3_000)
        assert not second.active()

        # Records are waiting in the frozen daemon's fetch buffers when it is thawed.
        first.sigstop()
        produce(kafka.bootstrap_servers, topic, messages_of(lines[3_000:]))
        frozen_at = time.monotonic()
        wait_until(second.active, TAKE_OVER_SECONDS, "the standby takes over from a frozen daemon")
        print(f"take-over from a frozen daemon: {time.monotonic() - frozen_at:.1f} s")
        place.wait_consumed(len(lines))
        time.sleep(2.5)  # the second daemon's last commit
        before = dump(postgres_url)
        first.sigcont()
        wait_until(lambda: "modelwarden_fenced_commits_total 1.0" in first.metrics(), 20, "the thawed daemon is fenced")
        time.sleep(3)
        assert dump(postgres_url) == before
        assert not first.active()

        # The thawed one stands by now, and takes over in its turn.
        second.kill()
        killed_at = time.monotonic()
        wait_until(first.active, TAKE_OVER_SECONDS, "the standby takes over from a killed daemon")
        print(f"take-over from a killed daemon: {time.monotonic() - killed_at:.1f} s")
    finally:
        first.close()
        second.close()
    status = place.json("status")
    assert sum(m["predictions"] for m in status["models"]) == len(lines)
    assert status["active"]["epoch"] == 3


def test_with_sqlite_a_second_daemon_exits_and_says_why(kafka: KafkaBroker, topic: str, tmp_path: Path) -> None:
    place = Deployment(tmp_path, kafka.bootstrap_servers, topic, topic, f"sqlite:///{tmp_path}/state.db")
    with_lock = place.daemon("first")
    with_lock.start()
    try:
        done = place.run("run")
        assert done.returncode == 1
        assert f"another daemon (pid {with_lock.pid})" in done.stderr
        assert with_lock.running
        assert place.json("status")["active"]["holder"] is not None
    finally:
        with_lock.stop()
        with_lock.close()
