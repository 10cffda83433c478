"""Silent topics and growing lag, with a clock of the test: what is told, what is not, and what closes it."""

from __future__ import annotations

from alerts.incidents import Incident, IncidentBook
from monitor.flow import CAUGHT_UP, GROWS, MUCH, Flow
from monitor.own_health import OwnHealth
from monitor.state.codec import decode, encode

DAY = 86_400.0
START = 1_763_596_800.0  # midnight


class World:
    """A flow over one topic, its incident book, and the records that came so far."""

    def __init__(self, start: float = START, book: IncidentBook | None = None) -> None:
        self.book = book or IncidentBook(())
        self.now, self.received = start, 0
        self.flow = Flow(OwnHealth(self.book.apply, self.book.open()), ["t"], start)

    def live(self, seconds: float, gap: float, step: float = 10.0) -> None:
        """Let time pass, with a record every `gap` seconds."""
        end, due = self.now + seconds, self.now + gap
        while self.now < end:
            self.now += step
            if self.now >= due:
                self.received, due = self.received + 1, self.now + gap
            self.flow.tick(self.now, {"t": self.received})

    def silence(self, seconds: float) -> None:
        self.live(seconds, float("inf"))

    def behind(self, *records: int, every: float = 15.0) -> None:
        for number in records:
            self.now += every
            self.flow.lag(self.now, {"t": number})

    def open(self) -> list[Incident]:
        return self.book.open()


def test_a_silent_topic_is_told_once_and_closes_when_data_returns() -> None:
    w = World()
    w.live(DAY + 60, 20)
    w.silence(890)
    assert w.open() == []
    w.silence(120)
    (incident,) = w.open()
    assert (incident.kind, incident.severity) == ("monitor_health", "warning")
    assert incident.why.startswith("no data on topic t for 15")
    w.silence(7_200)
    assert [i.id for i in w.open()] == [incident.id] and w.open()[0].alarms == 1
    w.live(60, 20)
    assert w.open() == []


def test_quiet_nights_are_not_told_and_a_dead_producer_is() -> None:
    w = World()
    for _ in range(4):
        w.live(8 * 3_600, 30)
        w.silence(16 * 3_600)
        assert w.open() == []
    w.live(8 * 3_600, 30)
    w.silence(47 * 3_600)
    assert w.open() == []
    w.silence(2 * 3_600)
    assert len(w.open()) == 1


def test_gaps_survive_a_restart_and_a_backlog_is_no_gap() -> None:
    w = World()
    w.live(DAY + 60, 2_000)
    (page,) = w.flow.dirty(w.now)
    assert w.flow.dirty(w.now) == []
    again = World(w.now + 3 * DAY)
    again.flow.restore([page._replace(arrays=decode(encode(page.arrays, 1), 1))])
    again.live(600, 60)
    again.silence(2_000 * 3 - 60)
    assert again.open() == []  # the longest gap is still 2,000 s: neither forgotten nor three days
    again.silence(120)
    assert len(again.open()) == 1


def test_a_topic_that_gives_nothing_after_a_restart_is_told_and_the_incident_is_taken_over() -> None:
    w = World()
    w.live(DAY + 60, 20)
    (page,) = w.flow.dirty(w.now)
    w.silence(1_000)
    (incident,) = w.open()
    again = World(w.now + 60, w.book)
    again.flow.restore([page])
    again.silence(3_600)
    assert [i.id for i in again.open()] == [incident.id]
    again.live(60, 20)
    assert again.open() == []


def test_the_incident_of_a_topic_that_is_no_longer_read_closes() -> None:
    w = World()
    w.live(DAY + 60, 20)
    w.silence(1_000)
    assert len(w.open()) == 1
    Flow(OwnHealth(w.book.apply, w.book.open()), ["other"], w.now)
    assert w.open() == []


def test_lag_that_grows_is_told_with_its_rate_and_closes_when_caught_up() -> None:
    w = World()
    w.behind(*range(0, 100 * MUCH, MUCH // 10), every=15.0)
    (incident,) = w.open()
    assert "topic t is" in incident.why and "records behind" in incident.why
    (rate,) = (m.observed for m in incident.measures if m.statistic == "growth")
    assert abs(rate - MUCH / 10 / 15) < 1.0
    w.behind(5 * MUCH, MUCH, 2 * CAUGHT_UP)
    assert len(w.open()) == 1
    w.behind(CAUGHT_UP - 1)
    assert w.open() == []


def test_catching_up_and_a_steady_lag_are_not_told() -> None:
    w = World()
    w.behind(*range(100 * MUCH, 0, -MUCH))
    w.behind(*([5 * MUCH] * 100))
    assert w.open() == []
    minutes = int(GROWS / 60)
    for _ in range(20):  # a burst every few minutes
        w.behind(*range(0, minutes * MUCH - MUCH, MUCH), every=60.0)
    assert w.open() == []
