"""What would have been found in files of events: the daemon's own pipeline, with no broker, database or clock.

Identifiers stay in clear. Time is that of the events, so the same files give the same incidents.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from alerts.incidents import Incident
from detectors.reference import Origin
from monitor.assembly import traffic_settings, watch_settings
from monitor.config import Config
from monitor.config.values import PathKey
from monitor.intake.events import Event
from monitor.intake.formats.base import TopicRules, formats
from monitor.intake.identity import Pseudonyms
from monitor.intake.reader import Intake
from monitor.intake.sources.file import FileSource
from monitor.intake.sources.tail import TailSource
from monitor.metrics import Metrics
from monitor.pipeline import Pipeline, PipelineSettings
from monitor.references import ReferenceFileError, read_reference
from monitor.watch import Watch, WatchSettings

TypeName = Literal["auto", "prediction", "label", "access", "metric"]
Progress = Callable[[int, int], None]
"""Told bytes read and bytes in all (0: not known) as it goes."""
TOPIC: Final = "events"
TICK_RECORDS: Final = 1_024
_FOLLOW_SECONDS: Final = 0.5
"""A poll of files that are followed waits so long for a line."""
_TICKS_KEPT: Final = 64
"""Ticks between two clearings of what a daemon would have stored."""


@dataclass(slots=True)
class Backtest:
    """What came out: every incident in its last state, ordered by `opened_at`, and what happened to the lines."""

    incidents: list[Incident] = field(default_factory=list)
    records: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Lines and rows rejected, by reason."""
    accesses: int = 0
    """Access events read."""
    models: dict[str, str] = field(default_factory=dict)
    """Condition of each model, by subject: watching, calibrating, or why it is off."""


def run_backtest(
    paths: Sequence[Path],
    reference: Path | None = None,
    type: TypeName = "auto",
    *,
    model: str | None = None,
    training: Path | None = None,
    calibrate: float | None = None,
    services: Mapping[str, str] | None = None,
    config: Config | None = None,
    progress: Progress | None = None,
    follow: Callable[[], bool] | None = None,
) -> Backtest:
    """Run the pipeline over files of native events (JSON lines, plain or .gz), one after the other.

    `reference` is the target of every model in the events; without it a model has the one of `config`, or learns a
    provisional one from its first events. `training` has the rows models were trained on, where the reference is not
    made of them; the first `calibrate` seconds are declared honest; `services` are declared accounts by id.
    `model` is the model of events that name none. With `follow` plain files are read on as they grow, rotated or not,
    for as long as it answers true. SourceError or ReferenceFileError, naming file and line, when a
    file cannot be read.
    """
    settings = Config() if config is None else config
    rules = _rules(settings, type, model)
    read = FileSource if follow is None else TailSource
    source = read(paths, TOPIC, rules.record_bytes)
    given = _Given(reference, training, calibrate, services or {})
    pipeline = _pipeline(settings, rules, given)
    outcome = _Outcome(pipeline)
    partitions = source.discover()
    for tp in partitions:
        pipeline.own(tp.topic, tp.partition, 0)
    source.own(dict.fromkeys(partitions, 0))
    finished, ticks = not partitions, 0
    while not finished:
        polled = source.poll(0.0 if follow is None else _FOLLOW_SECONDS, TICK_RECORDS)
        for tp, records in polled.records:
            pipeline.feed(tp.topic, tp.partition, records)
        pipeline.tick(_latest(pipeline))
        ticks += 1
        finished = polled.finished if follow is None else not follow()
        if finished or ticks % _TICKS_KEPT == 0:
            outcome.take()
        if progress is not None:
            progress(*source.progress)
    source.close()
    return outcome.complete()


@dataclass(frozen=True, slots=True)
class _Given:
    """What the caller says of every model, whatever the configuration has."""

    reference: Path | None
    training: Path | None
    calibrate: float | None
    services: Mapping[str, str]

    def of(self, settings: WatchSettings) -> WatchSettings:
        panel = settings.panel
        calibration = panel.calibration if self.calibrate is None else self.calibrate
        services = {**panel.services, **self.services}
        return replace(settings, panel=replace(panel, calibration=calibration, services=services))


def _pipeline(config: Config, rules: TopicRules, given: _Given) -> Pipeline:
    """The daemon's pipeline, reading one topic of files."""
    settings = PipelineSettings(
        intakes={TOPIC: Intake(formats()["native"], rules)},
        watch=lambda model, tenant: given.of(watch_settings(config.model_settings(model, tenant), config.detectors)),
        listed=frozenset(config.models.listed),
        max_models=config.models.auto.max,
        max_dead_letters=sys.maxsize,
        traffic=traffic_settings(config.budget, config.detectors),
        max_series=config.limits.series,
        introduce=_References(config, rules, given).introduce,
    )
    return Pipeline(settings, Metrics())


def _latest(pipeline: Pipeline) -> float:
    """The newest event time that any model, topic or series has seen, in epoch seconds."""
    return max((*(w.watermark for w in pipeline.watches.values()), pipeline.traffic.watermark))


class _References:
    """The rows that models are compared with; each file is read once."""

    def __init__(self, config: Config, rules: TopicRules, given: _Given) -> None:
        self._config = config
        self._rules = TopicRules(
            topic="reference", pseudonyms=rules.pseudonyms, model="reference", client_from=(),
            record_bytes=rules.record_bytes,
        )  # fmt: skip
        self._given = given
        self._read: dict[Path, list[Event]] = {}
        for path in (given.reference, given.training):
            if path is not None:
                self._rows(path)  # a file that cannot be used is told before the long work

    def introduce(self, watch: Watch) -> None:
        """Give a new model its reference, if there is one."""
        settings = self._config.model_settings(watch.model, watch.tenant)
        path = self._given.reference or _path(settings.reference)
        training = self._given.training or _path(settings.training_rows)
        if training is not None:
            watch.training = self._rows(training)
        if path is None:
            return
        origin: Origin = settings.reference_is
        try:
            watch.use(watch.prepare(self._rows(path), origin))
        except ReferenceFileError:
            raise
        except ValueError as error:
            raise ReferenceFileError(f"{path}: no reference for {watch.model}: {error}") from error

    def _rows(self, path: Path) -> list[Event]:
        if path not in self._read:
            self._read[path] = read_reference(path, formats()["native"], self._rules)
        return self._read[path]


class _Outcome:
    """Collects what a daemon would have stored, as far as it is shown."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._incidents: dict[str, Incident] = {}
        self._rejected: Counter[str] = Counter()
        self._accesses = 0

    def take(self) -> None:
        unit = self._pipeline.take_unit(0.0)
        self._incidents.update((incident.id, incident) for incident in unit.incidents)
        self._rejected.update(letter.reason.value for letter in unit.dead_letters)
        self._accesses += sum(unit.access_events.values())

    def complete(self) -> Backtest:
        return Backtest(
            incidents=sorted(self._incidents.values(), key=lambda i: (i.opened_at, i.id)),
            records=sum(place.counts.received for place in self._pipeline.partitions.values()),
            rejected=self._rejected,
            accesses=self._accesses,
            models={subject: watch.off or watch.row().state for subject, watch in self._pipeline.watches.items()},
        )


def _rules(config: Config, type: TypeName, model: str | None) -> TopicRules:
    networks = {name: [str(n) for n in nets] for name, nets in config.access.networks.items()}
    return TopicRules(
        topic=TOPIC,
        pseudonyms=Pseudonyms(b"", networks, plain=True),
        type=type,
        model=model,
        record_bytes=config.limits.record_bytes,
    )


def _path(key: PathKey | None) -> Path | None:
    return None if key is None else key.path
