"""The demo: an embedded broker, a simulated credit model under attack and drift, and the daemon that finds it all."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from kafka.errors import KafkaError
from rich.console import Console
from rich.text import Text

from alerts.incidents import Incident
from monitor.demo.board import Board, Lines, board_for
from monitor.demo.broker import API_VERSION, CLIENT_OPTIONS, PARTITIONS, BrokerError, EmbeddedBroker
from monitor.demo.child import DaemonProcess
from monitor.demo.follow import Follower, clock
from monitor.demo.produce import Produced, produce
from monitor.demo.story import ENDS, SENTENCES, Script, Timeline
from monitor.demo.traffic import CreditTraffic
from monitor.demo.workspace import GROUP, TOPIC, Workspace, WorkspaceError, make_workspace

UNATTENDED_SECONDS: Final = 140.0
"""Longest demo without a terminal; it ends before that, when the whole story has been found."""
RATE: Final = 350.0
SEED: Final = 7
API_VERSION_VARIABLE: Final = "MODELWARDEN_KAFKA_API_VERSION"
"""Tells the daemon the protocol version, which kafka-python cannot find out from the embedded broker."""
_LINGER_MS = 100
"""Batches of so many milliseconds compress well: the broker then holds about five minutes of the busiest partition."""
_POLL_SECONDS = 0.5
_READY_SECONDS = 45.0
_CATCH_UP_SECONDS = 15.0
_PATIENCE = 12.0
"""Seconds after its beginning within which a stage of the story must be found."""


def run_demo(
    directory: Path | None = None, seconds: float | None = None, output: Console | TextIO | None = None
) -> int:
    """Play the demo; 0 when all was found and every event counted once, else 1, with the reason.

    `directory` takes its files (default: a new temporary one, which is kept). Without a terminal it ends when the
    story is told and the drift has closed, at the latest after `seconds` (default 140); on a terminal it goes on
    until Ctrl-C or `seconds`. Whatever it started is stopped when it returns.
    """
    console = output if isinstance(output, Console) else Console(file=output or sys.stdout, soft_wrap=True)
    stop = threading.Event()
    with _stop_on_signals(stop):
        try:
            return _Demo(console, seconds, stop).play(directory)
        except (BrokerError, WorkspaceError, KafkaError) as error:
            Console(stderr=True, soft_wrap=True).print(f"modelwarden demo: {error}", markup=False, highlight=False)
            return 1


@dataclass(slots=True)
class _Producer:
    """The client side: a thread that sends live events until it is told to stop."""

    bootstrap_servers: str
    script: Script
    begin: float
    done: Produced = field(default_factory=Produced)
    failure: str = ""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="demo-producer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, when all that was sent is acknowledged."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30.0)

    def _run(self) -> None:
        messages = self.script.messages(self.begin, RATE)
        try:
            produce(
                self.bootstrap_servers,
                TOPIC,
                messages,
                client_options={**CLIENT_OPTIONS, "linger_ms": _LINGER_MS},
                stop=self._stop,
                progress=self.done,
            )
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"


class _Demo:
    """One run of the demo."""

    def __init__(self, console: Console, seconds: float | None, stop: threading.Event) -> None:
        self.console = console
        self.attended = console.is_terminal
        self.stop = stop
        self.began = time.monotonic()
        limit = seconds if seconds is not None else None if self.attended else UNATTENDED_SECONDS
        self.deadline = None if limit is None else self.began + limit
        self.timeline = Timeline()
        self.ready = False
        self.first_after: float | None = None
        self.board: Board = Lines(console)

    def play(self, directory: Path | None) -> int:
        """Start everything, follow the incidents, stop everything, sum up."""
        traffic = CreditTraffic(SEED)
        with ExitStack() as running:
            bootstrap = running.enter_context(EmbeddedBroker([TOPIC]))
            place = make_workspace(directory, traffic, bootstrap)
            version = ".".join(map(str, API_VERSION))
            script = Script(traffic, self.timeline, place.training)
            daemon = DaemonProcess(place.config, place.log, place.port, {API_VERSION_VARIABLE: version})
            running.enter_context(daemon)
            producer = _Producer(bootstrap, script, time.time())
            producer.start()
            running.callback(producer.stop)
            follower = Follower(place.store_url, GROUP, self._say, place.key)
            running.callback(follower.close)
            self._introduce(place, bootstrap, daemon, traffic)
            with board_for(self.console)() as self.board:
                problem = self._watch(daemon, producer, follower)
                producer.stop()
                problem = problem or self._catch_up(daemon, producer, follower)
            self.board = Lines(self.console)
            daemon.stop()
            follower.poll()
            problem = problem or self._verdict(producer, follower)
            self._sum_up(place, producer, follower, traffic)
            return self._end(problem, daemon)

    def _watch(self, daemon: DaemonProcess, producer: _Producer, follower: Follower) -> str:
        """Tell stages and incidents until the story is over; what went wrong, or nothing."""
        number = 0
        self._line(SENTENCES["honest"])
        while not self.stop.wait(_POLL_SECONDS):
            if daemon.code is not None:
                return f"the daemon ended with exit code {daemon.code}"
            if producer.failure:
                return f"the events could not be sent: {producer.failure}"
            if not self.ready and daemon.ready():
                self.ready = True
                self._line("the daemon is ready")
            if not self.ready and time.monotonic() - self.began > _READY_SECONDS:
                return f"the daemon was not ready within {_READY_SECONDS:.0f} s"
            now = self.timeline.at(time.time() - producer.begin)
            if now != number:
                number = now
                self._line(SENTENCES[self.timeline.stage(number).name])
            follower.poll()
            found = self._found(producer, follower)
            if found and self.first_after is None:
                self.first_after = time.monotonic() - self.began
            told = SENTENCES[self.timeline.stage(number).name]
            self.board.show(follower.incidents.values(), told, _counted(follower.counts()))
            if self._is_over(number, producer, follower):
                break
        return ""

    def _is_over(self, number: int, producer: _Producer, follower: Follower) -> bool:
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return True
        if self.attended or number < len(self.timeline.stages) - 1:
            return False
        passing = [i for i in self._found(producer, follower) if i.account != "attack"]
        told = not self._missing(producer, follower)
        return told and all(i.status == "resolved" for i in passing)

    def _found(self, producer: _Producer, follower: Follower) -> list[Incident]:
        """Incidents about the model that opened since the story began."""
        since = producer.begin + self.timeline.stages[0].seconds
        return [i for i in follower.incidents.values() if i.opened_at >= since and i.kind != "monitor_health"]

    def _missing(self, producer: _Producer, follower: Follower) -> list[str]:
        """Stages that have begun and opened no incident of their kind, naming whom they should."""
        now = time.time() - producer.begin
        found = {(i.kind, s.id) for i in self._found(producer, follower) for s in i.subjects}
        kinds = {kind for kind, _ in found}
        missing: list[str] = []
        for name in dict.fromkeys(self.timeline.events()):
            kind, client = ENDS[name]
            seen = kind in kinds if client is None else (kind, client) in found
            if not seen and self.timeline.begins(name) + _PATIENCE < now:
                missing.append(name)
        return missing

    def _catch_up(self, daemon: DaemonProcess, producer: _Producer, follower: Follower) -> str:
        """Wait until the daemon has stored everything that was sent."""
        deadline = time.monotonic() + (_CATCH_UP_SECONDS if self.ready else 0.0)
        while time.monotonic() < deadline:
            follower.poll()
            if daemon.code is not None:
                return f"the daemon ended with exit code {daemon.code}"
            if _counted(follower.counts()) >= producer.done.acknowledged:
                break
            time.sleep(_POLL_SECONDS / 2)
        return ""

    def _verdict(self, producer: _Producer, follower: Follower) -> str:
        """What the end result lacks; nothing of a demo that was stopped before it began."""
        if self.stop.is_set() and not self.ready:
            return ""
        sent, acknowledged, counted = producer.done.sent, producer.done.acknowledged, _counted(follower.counts())
        if acknowledged != sent:
            return f"the broker took {acknowledged:,} of {sent:,} events: {producer.done.error or 'no answer'}"
        if counted != sent:
            return f"the daemon counted {counted:,} of {sent:,} events"
        missing = self._missing(producer, follower)
        if missing and not self.stop.is_set():
            return f"the {' and the '.join(missing)} opened no incident"
        return ""

    def _introduce(self, place: Workspace, bootstrap: str, daemon: DaemonProcess, traffic: CreditTraffic) -> None:
        self._plain(f"ModelWarden demo in {place.directory}")
        self._plain(f"  broker   {bootstrap} (embedded), topic {TOPIC}, {PARTITIONS} partitions")
        self._plain(f"  traffic  model {traffic.model}, {len(traffic.clients)} honest clients, {RATE:.0f} events/s")
        self._plain(f"  daemon   process {daemon.pid}, {place.metrics_url}, log {place.log.name}")
        if self.attended and self.deadline is None:
            self._plain("  Ctrl-C ends it.")

    def _sum_up(self, place: Workspace, producer: _Producer, follower: Follower, traffic: CreditTraffic) -> None:
        counts = follower.counts()
        clients = sum(model["clients"] for model in counts.get("models", ()))
        rejected = sum(topic["rejected"] for topic in counts.get("topics", ()))
        found = list(follower.incidents.values())
        still_open = sum(i.status != "resolved" for i in found)
        self._plain("")
        self._plain(f"events     {producer.done.sent:,} produced, {_counted(counts):,} counted, {rejected:,} rejected")
        labels = sum(model["labels"] for model in counts.get("models", ()))
        matched = sum(model["labels_matched"] for model in counts.get("models", ()))
        self._plain(f"labels     {labels:,} came late, {matched:,} of them found their prediction")
        self._plain(f"clients    {clients} seen, {len(traffic.clients)} honest ones simulated")
        self._plain(f"incidents  {len(found)} opened, {still_open} of them still open")
        if self.first_after is not None:
            self._plain(f"first      {self.first_after:.1f} s after the start")
        for attack in producer.script.campaigns.values():
            self._plain(f"{attack.client}: {attack.asked} queries ({attack.attack})")
        self._plain(f"look next  {_command()} incidents list --config {place.config}")
        self._plain(f"           database {place.database}")
        self._plain(f"           metrics  {place.metrics_url} (while a daemon runs)")

    def _end(self, problem: str, daemon: DaemonProcess) -> int:
        if not problem:
            return 0
        self._plain(f"FAILED: {problem}")
        self._plain("The last lines of the daemon's log:")
        self._plain(daemon.tail())
        return 1

    def _line(self, text: str) -> None:
        self._plain(f"{clock(time.time())}  {text}")

    def _plain(self, text: str) -> None:
        self._say(Text(text))

    def _say(self, text: Text) -> None:
        self.board.say(text)


def _counted(status: dict[str, Any]) -> int:
    return sum(model["predictions"] + model["labels"] for model in status.get("models", ()))


@contextmanager
def _stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set `stop` meanwhile; only the main thread can be told so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _command() -> str:
    """The command as it can be typed here: by name if it is on the PATH, else beside this interpreter."""
    if shutil.which("modelwarden"):
        return "modelwarden"
    return os.path.relpath(Path(sys.executable).with_name("modelwarden"))
