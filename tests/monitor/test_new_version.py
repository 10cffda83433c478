"""What a new version of a model does to its watch: `on_new_version` inherit, fresh and hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import msgspec
import pytest

from alerts.incidents import Incident
from detectors.base import registry
from monitor.commands import RESOLVE
from monitor.demo.traffic import CreditTraffic
from monitor.intake.events import Record
from monitor.intake.formats.base import TopicRules, formats
from monitor.intake.identity import Pseudonyms
from monitor.intake.reader import Intake
from monitor.lineup import PanelSettings
from monitor.metrics import Metrics
from monitor.pipeline import Pipeline, PipelineSettings
from monitor.references import FOR_NEW_VERSION, origin_of, rows_of
from monitor.rollout import RECENT, Rollout
from monitor.state.codec import decode, encode
from monitor.state.commands import Command
from monitor.state.unit import ReferenceRow, StatePage
from monitor.troubles import HELD
from monitor.watch import PROVISIONAL_ROWS, OnNewVersion, WatchSettings
from tests.monitor.test_pipeline import START, TOPIC, settings

SUBJECT = "model:/credit-risk"


def lines(
    n: int, version: str, seed: int, begin: float, change: Literal["income", "text"] | None = None
) -> list[bytes]:
    made = CreditTraffic(seed).events(n, begin, 100.0, change)
    return [msgspec.json.encode({**e, "model_version": version}) for e in made]


class Fed:
    """A pipeline with one model, and what it has stored."""

    def __init__(self, mode: OnNewVersion, before: Fed | None = None) -> None:
        self.mode = mode
        self.next: int = 0 if before is None else before.next
        self.pages: dict[tuple[str, str, str], StatePage] = {} if before is None else before.pages
        self.references: list[ReferenceRow] = [] if before is None else before.references
        open_now: list[Incident] = [] if before is None else before.pipeline.book.open()
        others = {name: {"enabled": False} for name in registry() if name != "predictive_drift"}
        watched = WatchSettings(PanelSettings(detectors=others), traffic=None, on_new_version=mode)
        rules = TopicRules(TOPIC, Pseudonyms(b"", plain=True))
        plain = PipelineSettings({TOPIC: Intake(formats()["native"], rules)}, lambda model, tenant: watched)
        self.pipeline: Pipeline = Pipeline(replace(settings(), watch=plain.watch), Metrics(), open_now)
        self.pipeline.own(TOPIC, 0, self.next)
        self.audit: list[str] = []
        if before is not None:
            self.pipeline.begin(START)
            watch = self.pipeline.watch_of(SUBJECT)
            stored = self.references[-1]
            watch.use(watch.prepare(rows_of(stored), origin_of(stored)))
            self.pipeline.restore(watch, list(self.pages.values()), None, {})

    def feed(self, made: Sequence[bytes]) -> Fed:
        records = [Record(TOPIC, 0, self.next + i, None, None, line) for i, line in enumerate(made)]
        for begin in range(0, len(records), 250):
            part = records[begin : begin + 250]
            self.next = part[-1].offset + 1
            self.pipeline.feed(TOPIC, 0, part)
            self.pipeline.tick(START)
            unit = self.pipeline.take_unit(START)
            for page in unit.pages:
                self.pages[page.subject, page.detector, page.page] = page._replace(
                    arrays=decode(encode(page.arrays, 1), 1)
                )
            self.references += unit.references
            self.audit += [row.action for row in unit.audit]
        return self

    @property
    def state(self) -> str:
        return self.pipeline.watches[SUBJECT].state

    def open(self) -> list[str]:
        return [i.cause or i.kind for i in self.pipeline.book.open()]


def test_most_of_the_last_predictions_make_a_version_the_one_that_answers() -> None:
    from monitor.intake.events import Event, EventType

    def events(*versions: str | None) -> list[Event]:
        return [Event(EventType.PREDICTION, 0.0, model_version=v) for v in versions]

    rollout = Rollout()
    assert rollout.add(events(*["1"] * RECENT)) is None and rollout.current == "1"
    assert rollout.add(events(*["1", "1", "1", "2"] * 200)) is None, "a canary is no new version"
    assert rollout.add(events(*[None] * 500)) is None, "nor are events that name none"
    assert rollout.add(events(*["2"] * (RECENT // 2))) is None, "half of them is not yet most of them"
    assert rollout.add(events("2")) == "2"
    again = Rollout()
    again.restore(rollout.dirty()["versions"])
    assert again.current == "2" and again.add(events(*["1"] * RECENT)) == "1"


def test_inherit_goes_on_with_what_was_learnt() -> None:
    fed = Fed("inherit").feed(lines(2_000, "1", 1, START)).feed(lines(1_000, "2", 2, START + 20))
    assert fed.state == "watching" and len(fed.references) == 1 and fed.audit == []


def test_fresh_learns_from_the_new_version_only_and_watches_it() -> None:
    fed = Fed("fresh").feed(lines(2_000, "1", 1, START)).feed(lines(300, "2", 2, START + 20))
    assert fed.state == "calibrating" and fed.audit == ["version.fresh"]
    old, new = lines(500, "1", 3, START + 23), lines(500, "2", 4, START + 23)
    fed.feed([line for pair in zip(old, new, strict=True) for line in pair])
    assert fed.state == "watching"
    assert fed.references[-1].approved_by == FOR_NEW_VERSION
    learnt = rows_of(fed.references[-1])
    assert len(learnt) == PROVISIONAL_ROWS and {e.model_version for e in learnt} == {"2"}
    fed.feed(lines(3_000, "2", 5, START + 30)).feed(lines(1_500, "2", 6, START + 60, "income"))
    assert "feature_drift" in [i.kind for i in fed.pipeline.book.open()]


def test_what_was_open_is_closed_by_a_fresh_start() -> None:
    fed = Fed("fresh").feed(lines(3_000, "1", 1, START)).feed(lines(1_500, "1", 2, START + 30, "income"))
    assert "feature_drift" in [i.kind for i in fed.pipeline.book.open()]
    fed.feed(lines(300, "2", 3, START + 45))
    assert [i.kind for i in fed.pipeline.book.open()] == ["monitor_health"]


@pytest.mark.parametrize("at", [250, 750, 1_000])
def test_a_restart_goes_on_learning(at: int) -> None:
    first, rest = lines(2_000, "1", 1, START), lines(2_000, "2", 2, START + 20)
    whole = Fed("fresh").feed(first).feed(rest)
    again = Fed("fresh", Fed("fresh").feed(first).feed(rest[:at])).feed(rest[at:])
    assert again.state == "watching"
    assert again.references[-1].content_hash == whole.references[-1].content_hash


def test_hold_judges_nothing_until_somebody_says_so() -> None:
    fed = Fed("hold").feed(lines(3_000, "1", 1, START)).feed(lines(500, "2", 2, START + 30))
    fed.feed(lines(1_500, "2", 2, START + 35, "income"))
    assert fed.state == "held" and fed.audit == ["version.held"]
    assert fed.open() == [HELD + SUBJECT]
    assert fed.pipeline.watches[SUBJECT].predictions == 5_000
    again = Fed("hold", fed)
    assert again.state == "held" and again.open() == [HELD + SUBJECT]
    (incident,) = again.pipeline.book.open()
    again.pipeline.apply_command(Command(1, "ann", RESOLVE, {"incident": incident.id}, START), lambda subject: [])
    assert again.state == "watching"
    again.feed(lines(1_500, "2", 3, START + 60, "income"))
    assert "feature_drift" in [i.kind for i in again.pipeline.book.open()]


def test_another_reference_releases_a_held_version() -> None:
    fed = Fed("hold").feed(lines(3_000, "1", 1, START)).feed(lines(500, "2", 2, START + 30))
    other = Fed("inherit").feed(lines(2_000, "2", 9, START)).references[-1]
    fed.references.append(other)
    again = Fed("hold", fed)
    assert again.state == "watching" and HELD + SUBJECT not in again.open()
