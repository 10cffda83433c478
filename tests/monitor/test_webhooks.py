"""Webhooks against real local servers that fail in every way: each message at least once, one key, in order."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import standardwebhooks

from alerts.incidents import Incident, IncidentBook
from alerts.policy import Policy, Route
from alerts.sinks import webhook as sink
from alerts.sinks.webhook import Webhook
from detectors.base import SubjectRef
from monitor import failpoints, webhooks
from monitor.clock import SystemClock
from monitor.config import parse_config
from monitor.failpoints import FailPointHit
from monitor.intake.identity import Pseudonyms
from monitor.metrics import Metrics
from monitor.outgoing import Told, outbox_writer, policy_of, write_outbox
from monitor.receivers import identities, webhook_workers
from monitor.state.lease import Lease
from monitor.state.store import StateStore, open_store
from monitor.state.unit import CommitUnit, OutboxRow
from monitor.webhooks import Reveal, WebhookWorker
from tests.alerts.hook_server import SECRET, Receiver, status
from tests.alerts.test_incidents import sighting
from tests.components.waiting import wait_until


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "hook.secret"
    path.write_text(SECRET + "\n", encoding="ascii")
    return path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    opened = open_store(f"sqlite:///{tmp_path}/state.db", "g", audit_key=b"k" * 32, create=True)
    yield opened
    opened.close()


@pytest.fixture
def lease(store: StateStore) -> Lease:
    held = store.acquire_lease("d", 60.0)
    assert held
    return held


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same waits, in hundredths."""
    monkeypatch.setattr(webhooks, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(webhooks, "LONGEST_WAIT", 0.1)
    monkeypatch.setattr(webhooks, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(webhooks, "CLAIM_SECONDS", 1.0)
    monkeypatch.setattr(webhooks, "TIMEOUT", 0.5)
    monkeypatch.setattr(sink, "TIMEOUT", 0.4)
    yield
    failpoints.disarm()


def life(trigger: str) -> list[tuple[Incident | None, Incident]]:
    """An incident that opens, widens, is acknowledged and resolved; one step a commit."""
    book = IncidentBook()
    first = book.apply(sighting(trigger=trigger))
    assert first
    steps = book.take_transitions()
    book.apply(sighting(300, subjects=(SubjectRef("feature", "income"),)))
    steps += book.take_transitions()
    book.acknowledge(first.id, "ann")
    steps += book.take_transitions()
    book.resolve(first.id, 5_000.0, "recovered")
    return steps + book.take_transitions()


def put(store: StateStore, lease: Lease, incidents: int = 3) -> list[OutboxRow]:
    """The messages of several incidents, stored as the daemon would."""
    rows, told = [], Told()
    for steps in zip(*(life(f"t/0/{n}/0") for n in range(incidents)), strict=True):
        unit = CommitUnit(at=10.0)
        for old, new in steps:
            unit.outbox += write_outbox(Policy(), ["hook"], told, old, new, 10.0)
        store.commit(unit, lease)
        rows += unit.outbox
    return rows


def worker(store: StateStore, receiver: Receiver, secret: Path | None, reveal: Reveal | None = None) -> WebhookWorker:
    endpoint = Webhook(receiver.url, secret, allow_private=True)
    made = WebhookWorker("hook", endpoint, store, Metrics(), SystemClock(), reveal)
    made.hold(True)
    return made


def rounds(made: WebhookWorker, done: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end, "not delivered in time"
        time.sleep(min(made.round(), 0.05))


FAILURES: list[bytes | str] = [
    status(500), "hang", "drip", "before", "after", "cut", status(429), status(302, "Location: http://127.0.0.1:1/\r\n"),
    status(400), b"garbage\r\n\r\n", status(503),
]  # fmt: skip


@pytest.mark.parametrize("plan", [[failure] * 2 for failure in FAILURES] + [FAILURES], ids=repr)
def test_every_message_arrives_with_one_key_in_order(
    plan: list[bytes | str], receiver: Receiver, store: StateStore, lease: Lease, secret: Path
) -> None:
    receiver.plan = list(plan)
    rows = put(store, lease)
    made = worker(store, receiver, secret)
    made.start()
    wait_until(lambda: store.outbox_counts() == (0, len(rows), 0), 30, "all are delivered")
    made.ask_to_stop()
    made.join(5)
    assert sorted(receiver.keys()) == sorted(row.key for row in rows)
    for incident in {row.incident_id for row in rows}:
        assert receiver.types(incident) == ["opened", "updated", "acknowledged", "resolved"]
    by_key = {row.key: row.payload.encode() for row in rows}
    for headers, body in receiver.seen:
        assert body == by_key[headers["webhook-id"]]
        standardwebhooks.Webhook(SECRET).verify(body, headers)


@pytest.mark.parametrize(("point", "posts"), [("after_post", 2), ("after_mark", 1)])
def test_death_around_the_mark(
    point: str, posts: int, receiver: Receiver, store: StateStore, lease: Lease, secret: Path
) -> None:
    rows = put(store, lease, 1)[:1]
    failpoints.arm(f"{point}:1:raise")
    with pytest.raises(FailPointHit):
        worker(store, receiver, secret).round()
    failpoints.disarm()
    assert receiver.keys() == [rows[0].key]
    rounds(worker(store, receiver, secret), lambda: store.outbox_counts().pending == 0)
    assert receiver.keys().count(rows[0].key) == posts
    assert list(dict.fromkeys(receiver.types(rows[0].incident_id))) == ["opened", "updated", "acknowledged", "resolved"]


def test_410_gives_a_message_up(receiver: Receiver, store: StateStore, lease: Lease) -> None:
    receiver.plan = [status(410)]
    put(store, lease, 1)
    rounds(worker(store, receiver, None), lambda: store.outbox_counts().pending == 0)
    assert store.outbox_counts() == (0, 3, 1)
    assert "webhook-signature" not in receiver.seen[0][0]


def test_a_message_refused_for_a_day_is_given_up(receiver: Receiver, store: StateStore, lease: Lease) -> None:
    class Clock(SystemClock):
        later = 0.0

        def now(self) -> float:
            return 10.0 + self.later

    receiver.plan = [status(400)] * 4
    rows = put(store, lease, 1)
    metrics, clock = Metrics(), Clock()

    def start() -> WebhookWorker:
        worker = WebhookWorker("hook", Webhook(receiver.url, None, allow_private=True), store, metrics, clock)
        worker.hold(True)
        return worker

    made = start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webhooks, "LONGEST_REFUSED", 0.01)
        made.round()
        assert store.outbox_counts("hook") == (len(rows), 0, 0)
        clock.later = webhooks.GIVE_UP_AFTER - 1
        made = start()  # a restart does not begin the day anew
        wait_until(lambda: made.round() >= 0 and len(receiver.seen) == 2, 10, "tried again")
        assert store.outbox_counts("hook").failed == 0
        clock.later = webhooks.GIVE_UP_AFTER + 1
        made = start()
        wait_until(lambda: made.round() >= 0 and store.outbox_counts().failed == 1, 10, "given up")
    wait_until(lambda: made.round() >= 0 and not store.outbox_counts().pending, 10, "the rest is sent")
    assert receiver.seen[0][0]["webhook-id"] == receiver.seen[1][0]["webhook-id"] == rows[0].key
    assert metrics.registry.get_sample_value("modelwarden_notifications_given_up_total", {"receiver": "hook"}) == 1


def test_one_dead_receiver_holds_up_no_other(store: StateStore, lease: Lease, receiver: Receiver) -> None:
    dead = Receiver(plan=["hang"] * 1_000)
    metrics = Metrics()
    book = IncidentBook()
    book.apply(sighting())
    unit = CommitUnit(at=10.0)
    for old, new in book.take_transitions():
        unit.outbox += write_outbox(Policy(), ["dead", "well"], set(), old, new, 10.0)
    store.commit(unit, lease)
    made = [
        WebhookWorker(name, Webhook(server.url, None, allow_private=True), store, metrics, SystemClock())
        for name, server in (("dead", dead), ("well", receiver))
    ]
    shown = metrics.registry.get_sample_value
    for one in made:
        one.hold(True)
        one.start()
    try:
        wait_until(lambda: store.outbox_counts("well").delivered == 1 and len(dead.seen) >= 2, 20, "well has it")
        assert store.outbox_counts("dead") == (1, 0, 0)
        labels = {"receiver": "well", "status": "delivered"}
        wait_until(lambda: shown("modelwarden_outbox_messages", labels) == 1, 10, "metrics show it")
        labels = {"receiver": "dead", "status": "pending"}
        wait_until(lambda: shown("modelwarden_outbox_messages", labels) == 1, 10, "metrics show it")
        assert len({headers["webhook-id"] for headers, _ in dead.seen}) == 1
    finally:
        for one in made:
            one.ask_to_stop()
        for one in made:
            one.join(5)
        dead.close()


KILLED_AT_ITS_FIRST_POST = """
import os, signal, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print(listener.getsockname()[1], flush=True)
stream = listener.accept()[0].makefile("rb")
while line := stream.readline().strip().lower():
    if line.startswith(b"webhook-id:"):
        print(line.split(b":")[1].strip().decode(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_receiver_killed_before_it_answers_gets_the_message_again(store: StateStore, lease: Lease) -> None:
    rows = put(store, lease, 1)
    port, posted = "0", []
    made = None
    for _ in range(3):
        command = [sys.executable, "-c", KILLED_AT_ITS_FIRST_POST, port]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            if made is None:
                endpoint = Webhook(f"http://127.0.0.1:{port}/", None, allow_private=True)
                made = WebhookWorker("hook", endpoint, store, Metrics(), SystemClock())
                made.hold(True)
            rounds(made, lambda: server.poll() is not None)
            posted.append(server.stdout.readline().strip())
    assert posted == [rows[0].key] * 3
    assert store.outbox_counts() == (len(rows), 0, 0)


def test_a_failing_receiver_is_probed_with_one_message(
    receiver: Receiver, store: StateStore, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "FIRST_WAIT", 1.0)
    monkeypatch.setattr(webhooks, "LONGEST_WAIT", 1.0)
    receiver.plan = [status(500)] * 3
    put(store, lease, 3)
    made = worker(store, receiver, None)
    assert made.round() == 0.0
    assert len(receiver.seen) == 1, "the rest of the claim is given back"
    wait = made.round()
    assert 0 < wait <= webhooks.FIRST_WAIT and len(receiver.seen) == 1
    time.sleep(wait)
    made.round()
    assert len(receiver.seen) == 2
    assert receiver.seen[0][0]["webhook-id"] == receiver.seen[1][0]["webhook-id"]


def test_retry_after_is_obeyed(receiver: Receiver, store: StateStore, lease: Lease) -> None:
    receiver.plan = [status(429, "Retry-After: 7\r\n")]
    put(store, lease, 1)
    made = worker(store, receiver, None)
    made.round()
    assert 6 < made.round() <= 7


def test_a_refused_message_holds_up_only_its_own_incident(receiver: Receiver, store: StateStore, lease: Lease) -> None:
    receiver.plan = [status(422)]
    rows = put(store, lease, 2)
    made = worker(store, receiver, None)
    made.round()
    assert len(receiver.seen) == 2
    assert receiver.keys() == [rows[1].key]


def test_without_the_lease_nothing_is_sent(receiver: Receiver, store: StateStore, lease: Lease) -> None:
    put(store, lease, 1)
    made = worker(store, receiver, None)
    made.hold(False)
    assert made.round() > 0 and receiver.connections == 0


def test_identities_are_resolved_at_the_post_only(receiver: Receiver, store: StateStore, lease: Lease) -> None:
    key = os.urandom(32)
    names = Pseudonyms(key)
    hashed = names.client("acme")
    book = IncidentBook()
    book.apply(sighting(subjects=(SubjectRef("client", hashed),)))
    unit = CommitUnit(at=1.0, identities=names.take_new())
    for old, new in book.take_transitions():
        unit.outbox += write_outbox(Policy(), ["hook"], set(), old, new, 1.0)
    store.commit(unit, lease)
    assert hashed in unit.outbox[0].payload and "acme" not in unit.outbox[0].payload
    worker(store, receiver, None, identities(store, key)).round()
    assert json.loads(receiver.accepted[0][1])["data"]["subjects"][0]["id"] == "acme"


def test_an_echo_of_identities_is_not_stored(
    receiver: Receiver, store: StateStore, lease: Lease, tmp_path: Path
) -> None:
    receiver.plan = [b"HTTP/1.1 500 Some\r\nContent-Length: 8\r\n\r\nno: acme"]
    put(store, lease, 1)
    worker(store, receiver, None, lambda names: {}).round()
    assert len(receiver.seen) == 1
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        errors = [row[0] for row in database.execute("SELECT error FROM outbox WHERE error != ''")]
    assert errors == ["answered 500"]


def test_an_incident_that_becomes_severe_is_opened_for_the_receiver() -> None:
    book = IncidentBook()
    book.apply(sighting(severity="info"))
    old, new = book.take_transitions()[0]
    assert write_outbox(Policy(), ["hook"], set(), old, new, 1.0) == []
    book.apply(sighting(200, severity="warning"))
    old, new = book.take_transitions()[0]
    assert [r.event for r in write_outbox(Policy(), ["hook"], set(), old, new, 1.0)] == ["incident.opened"]
    critical = Policy([Route(("hook",), "critical")])
    assert write_outbox(critical, ["hook"], set(), old, new, 1.0) == []


def test_a_receiver_added_while_an_incident_is_open_hears_first_that_it_was_opened() -> None:
    steps = life("t/0/1/0")
    told: Told = set()
    for old, new in steps[:1]:
        write_outbox(Policy(), ["hook"], told, old, new, 1.0)
    heard: dict[str, list[str]] = {"hook": [], "added": []}
    for old, new in steps[1:]:
        for row in write_outbox(Policy(), ["hook", "added"], told, old, new, 1.0):
            heard[row.receiver].append(row.event.removeprefix("incident."))
            assert len(json.loads(row.payload)["data"]["subjects"]) == 2
    assert heard == {
        "hook": ["updated", "acknowledged", "resolved"],
        "added": ["opened", "acknowledged", "resolved"],
    }


def test_a_receiver_hears_nothing_of_what_is_resolved_before_it_was_told() -> None:
    *_, (old, new) = life("t/0/1/0")
    assert write_outbox(Policy(), ["added"], set(), old, new, 1.0) == []
    book = IncidentBook()
    book.apply(sighting())
    book.resolve(book.open()[0].id, 2.0, "recovered")
    old, new = book.take_transitions()[0]  # all in one commit: nobody could have been told before
    rows = write_outbox(Policy(), ["hook"], set(), old, new, 1.0)
    assert [row.event for row in rows] == ["incident.opened", "incident.resolved"]


def test_who_was_told_is_known_after_a_restart(store: StateStore, lease: Lease) -> None:
    told: Told = set()
    for number, (old, new) in enumerate(life("t/0/1/0")):
        unit = CommitUnit(at=1.0, incidents=[new])
        unit.outbox += write_outbox(Policy(), ["hook"], told, old, new, 1.0)
        store.commit(unit, lease)
        assert store.told() == ([("hook", new.id)] if number < 3 else [])


def test_from_the_configuration(store: StateStore, tmp_path: Path) -> None:
    text = """
receivers:
  am: {type: alertmanager, urls: ["http://127.0.0.1:9093"]}
  a: {type: webhook, url: "https://hook.example/a", identities: clear}
  b: {type: webhook, url: "https://hook.example/b"}
routes: [{receivers: [a, am], severity: info, kinds: [feature_drift]}]
"""
    config = parse_config(text, tmp_path / "c.yaml")
    book = IncidentBook()
    book.apply(sighting(severity="info"))
    old, new = book.take_transitions()[0]
    assert [row.receiver for row in outbox_writer(config)(old, new, 1.0)] == ["a"]
    assert policy_of(config).sends("am", new) and not policy_of(config).sends("b", new)
    workers = webhook_workers(config, store, Metrics(), SystemClock(), b"k" * 32)
    assert [w.name for w in workers] == ["a", "b"]
    off = parse_config(text + "notify: off\n", tmp_path / "c.yaml")
    assert outbox_writer(off)(old, new, 1.0) == []
    assert webhook_workers(off, store, Metrics(), SystemClock(), b"k" * 32) == []


def test_a_message_names_the_owner_of_the_model() -> None:
    new = IncidentBook().apply(sighting())
    assert new is not None
    (row,) = write_outbox(Policy(), ["hook"], set(), None, new, 1.0, lambda i: "risk-team")
    assert json.loads(row.payload)["data"]["owner"] == "risk-team"
