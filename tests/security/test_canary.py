"""Raw identifiers are planted in every place a record has; nothing that is stored, logged or sent may hold them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from monitor.demo.traffic import CreditTraffic, write_events
from monitor.intake.sources.memory import MemoryBroker
from monitor.state.store import open_store
from tests.crash.runner import TOPIC, configuration

CLIENT, PRINCIPAL, ADDRESS = "canary-client-4711", "canary-principal-4711", "203.0.113.47"
RAW = [CLIENT.encode(), PRINCIPAL.encode(), ADDRESS.encode()]
START = 1_763_625_600.0


def lines() -> list[bytes]:
    """Good and bad records of every type, each naming the canary somewhere."""
    credit = CreditTraffic(4)
    events = credit.events(1_500, START, 100.0)
    for event in events:
        event["client"] = CLIENT
        event["source_ip"] = ADDRESS
    for event in events[1_000:1_100]:
        del event["features"]["income"]
    access = {
        "type": "access", "ts": START, "resource": "/v1/models/m", "principal": PRINCIPAL, "source_ip": ADDRESS,
        "status": 200,
    }  # fmt: skip
    who = {"client": CLIENT, "principal": PRINCIPAL, "source_ip": ADDRESS}
    bad = [
        {"type": "prediction", "ts": "never", "model": "m", **who},
        {"type": "prediction", "ts": START, **who},
        {"type": "surprise", "ts": START, **who},
        {"type": "access", "ts": START, **who},
        {"type": "prediction", "ts": START, "model": "m", "features": CLIENT, **who},
    ]
    broken = [
        f'{{"client": "{CLIENT}", "principal": "{PRINCIPAL}", '.encode(),
        f'{{"client": "{CLIENT}", "client": "{ADDRESS}"}}'.encode(),
        f'["{CLIENT}", "{PRINCIPAL}", "{ADDRESS}"]'.encode(),
    ]
    return [msgspec.json.encode(e) for e in [*events, access, *bad]] + broken


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which a daemon has read the canaries, with its log at debug level."""
    directory = tmp_path_factory.mktemp("canary")
    write_events(directory / "reference.jsonl", CreditTraffic(4).reference(500))
    with (directory / "daemon.log").open("wb") as log:
        command = [sys.executable, "-m", "tests.security.test_canary", str(directory)]
        subprocess.run(command, stdout=log, stderr=log, check=True, timeout=60)
    return directory


def read_canaries(directory: Path) -> None:
    """Runs in a process of its own, so that all it writes anywhere lands in the log."""
    import logging

    from monitor.daemon import Daemon
    from monitor.intake.sources.base import SourceTopic
    from tests.crash.runner import EndingSource, FastClock

    logging.basicConfig(level=logging.DEBUG)
    broker = MemoryBroker()
    broker.create_topic(TOPIC)
    for line in lines():
        broker.produce(TOPIC, 0, line, key=CLIENT.encode(), headers=[("x-client-id", CLIENT.encode())])
    source = EndingSource(broker, [SourceTopic(TOPIC, "earliest")])
    daemon = Daemon(configuration(directory), FastClock(), lambda _: source)
    source.daemon = daemon
    assert daemon.run() == 0


def test_the_canaries_were_read(place: Path) -> None:
    store = open_store(f"sqlite:///{place}/state.db", "crash")
    status = store.status()
    assert status["topics"][0]["rejected"] == 8 and len(store.dead_letters()) == 8
    assert [m["clients"] for m in status["models"] if m["model"] == "credit-risk"] == [1]
    assert status["access"]["events"] == 1
    assert store.incidents()
    store.close()


def test_no_file_holds_a_raw_identifier(place: Path) -> None:
    files = [p for p in place.rglob("*") if p.is_file()]
    assert {"state.db", "daemon.log"} <= {p.name for p in files}
    for path in files:
        held = [raw for raw in RAW if raw in path.read_bytes()]
        assert not held, f"{path.name} holds {held}"


def test_dead_letters_hold_structure_only(place: Path) -> None:
    store = open_store(f"sqlite:///{place}/state.db", "crash")
    letters = store.dead_letters()
    store.close()
    by_reason = {letter.reason.value: letter for letter in letters}
    assert by_reason["bad_time"].structure["client"] == f"string:{len(CLIENT)}"
    assert by_reason["not_json"].structure == {} and by_reason["not_json"].length > 0
    assert "canary" not in json.dumps([letter._asdict() for letter in letters])


def test_the_identity_resolves_with_the_key(place: Path) -> None:
    from monitor.clients import ClientLedger
    from monitor.intake.identity import Pseudonyms, load_or_create_key
    from monitor.watch import CLIENTS

    store = open_store(f"sqlite:///{place}/state.db", "crash")
    ledger = ClientLedger()
    ledger.restore({p.page: p.arrays for p in store.load_pages("model:/credit-risk") if p.detector == CLIENTS})
    (count,) = ledger.counts()
    rows = store.identities([count.client])
    store.close()
    names = Pseudonyms(load_or_create_key(place / "identity.key", create=False))
    assert names.resolve(count.client, rows[count.client].ciphertext) == CLIENT


if __name__ == "__main__":
    read_canaries(Path(sys.argv[1]))
