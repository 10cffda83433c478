"""From the configuration to the parts of the daemon: one place that knows both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from math import prod
from pathlib import Path

from alerts.attribution import SECOND_STAGE
from detectors.base import registry
from detectors.traffic.subject import NAME as TRAFFIC
from detectors.traffic.subject import TrafficSettings
from monitor.config import Budget, Config, KeyProblem, ModelSettings, Topic
from monitor.intake.formats.base import TopicRules, formats, read_types, reads
from monitor.intake.identity import Pseudonyms, derive_key, load_or_create_key
from monitor.intake.joins import JoinSettings
from monitor.intake.reader import Intake
from monitor.intake.sources.base import SourceTopic
from monitor.lineup import PanelSettings, ParamsError, make_params
from monitor.pairs import pairing_problems, pairings
from monitor.pipeline import PipelineSettings
from monitor.watch import WatchSettings


def pipeline_settings(config: Config, pseudonyms: Pseudonyms, digest_key: bytes) -> PipelineSettings:
    """How records are read and models are watched, as the configuration says."""
    topics = config.need_kafka().topics
    joined = pairings(topics)

    id_key = derive_key(digest_key, "event ids")

    def watch(model: str, tenant: str) -> WatchSettings:
        made = watch_settings(config.model_settings(model, tenant), config.detectors, pseudonyms)
        return replace(made, labels=replace(made.labels, id_key=id_key))

    return PipelineSettings(
        intakes={
            t.name: Intake(formats()[t.format], topic_rules(t, config, pseudonyms), joined.get(t.name)) for t in topics
        },
        watch=watch,
        listed=frozenset(config.models.listed),
        max_models=config.models.auto.max,
        digest_key=digest_key,
        traffic=traffic_settings(config.budget, config.detectors),
        max_series=config.limits.series,
        client_state=config.limits.client_state,
        keyed=frozenset(t.name for t in topics if _is_keyed(t)),
    )


def topic_rules(topic: Topic, config: Config, pseudonyms: Pseudonyms) -> TopicRules:
    """The rules by which records of one topic become events."""
    return TopicRules(
        topic=topic.name,
        pseudonyms=pseudonyms,
        type=topic.type,
        time=topic.time,
        live=topic.live,
        model=topic.model,
        tenant=topic.tenant,
        client_from=tuple(f"{c.kind}:{c.name}" if c.name else c.kind for c in topic.client_from),
        record_bytes=config.limits.record_bytes,
        record_age=config.limits.record_age.total_seconds(),
        skew=config.limits.skew.total_seconds(),
        trusted_proxies=config.access.trusted_proxies,
    )


def reference_rules(config: Config) -> TopicRules:
    """The rules by which rows of a reference file are read. Identifiers in them are dropped, not kept."""
    return TopicRules(
        topic="reference",
        pseudonyms=Pseudonyms(b"", plain=True),
        model="reference",
        client_from=(),
        record_bytes=config.limits.record_bytes,
    )


def watch_settings(
    settings: ModelSettings, detectors: Mapping[str, Mapping[str, object]], pseudonyms: Pseudonyms | None = None
) -> WatchSettings:
    """What a model's detectors need of its settings. Without `pseudonyms` clients stand in clear in events."""
    per = settings.budget.per
    assert isinstance(per, timedelta)
    named = settings.services.items()
    panel = PanelSettings(
        drift_budget=settings.budget.drift,
        per=per.total_seconds(),
        attack_budget=settings.budget.attack,
        calibration=None if settings.calibration is None else settings.calibration.duration.total_seconds(),
        services={id if pseudonyms is None else pseudonyms.client(id): name for id, name in named},
        segments=settings.segments,
        importances=dict(settings.importances),
        detectors=detectors if settings.season == "auto" else _without_season(detectors),
    )
    labels = JoinSettings(settings.labels.max_delay.total_seconds(), settings.labels.max_bytes)
    traffic = traffic_settings(settings.budget, detectors)
    # the cells of a nested input have names of their own, in row-major order
    features = settings.features or tuple(f"x{i}" for i in range(prod(settings.shape) if settings.shape else 0))
    return WatchSettings(
        panel, features, settings.classes, labels, traffic, settings.on_new_version, settings.threshold
    )


def _without_season(detectors: Mapping[str, Mapping[str, object]]) -> dict[str, Mapping[str, object]]:
    """The parameters of detectors where no daily swing is to be expected; what is given by name stays."""
    seasonal = [name for name, cls in registry().items() if "season_swing" in cls.Params.__dataclass_fields__]
    return {**detectors, **{name: {"season_swing": 0.0, **detectors.get(name, {})} for name in seasonal}}


def traffic_settings(budget: Budget, detectors: Mapping[str, Mapping[str, object]]) -> TrafficSettings | None:
    """How the traffic of a subject is watched; None where `detectors.traffic` is switched off."""
    if not detectors.get(TRAFFIC, {}).get("enabled", True):
        return None
    assert isinstance(budget.per, timedelta)
    return TrafficSettings(budget.traffic, budget.per.total_seconds())


def source_topics(config: Config) -> list[SourceTopic]:
    """The topics to read, with where to begin."""
    return [SourceTopic(t.name, start_of(t), t.on_data_loss) for t in config.need_kafka().topics]


def start_of(topic: Topic) -> str | float:
    """`latest`, `earliest` or epoch seconds."""
    return topic.start if isinstance(topic.start, str) else topic.start.timestamp()


def key_path(config: Config) -> Path | None:
    """Where the identity key lies: as configured, or beside an SQLite database."""
    if config.identity.key_file is not None:
        return config.identity.key_file.path
    database = config.store.url.path
    return None if database is None else database.with_name(database.name + ".key")


def identity_key(config: Config) -> bytes:
    """The key of the pseudonyms. Beside an SQLite database one is made at the first start."""
    path = key_path(config)
    if path is None:
        raise ValueError("identity.key_file is missing: this database needs one")
    return load_or_create_key(path, create=config.identity.key_file is None)


def registry_checks(config: Config) -> Iterable[KeyProblem]:
    """What only the registries know: names of detectors and their parameters, names of formats."""
    known = registry()
    for name, params in config.detectors.items():
        if name in (TRAFFIC, SECOND_STAGE):
            for unknown in sorted(params.keys() - {"enabled"}):
                yield KeyProblem(("detectors", name, unknown), "It has no such parameter.", "Only `enabled` is known.")
            continue
        if name not in known:
            yield KeyProblem(("detectors", name), "There is no such detector.", f"Known: {', '.join(known)}.")
            continue
        try:
            make_params(known[name], {k: v for k, v in params.items() if k != "enabled"})
        except ParamsError as error:
            yield KeyProblem(("detectors", name), f"{error}.", "Remove or rename the parameter.")
    topics = config.kafka.topics if config.kafka is not None else ()
    for i, topic in enumerate(topics):
        for j, place in enumerate(topic.client_from):
            if place.kind == "field" and place.name in ("model", "tenant", "resource", "series"):
                at = ("kafka", "topics", i, "client_from", j)
                yield KeyProblem(at, f"{place.name} is kept in clear, so it cannot name the client.", "Name another.")
        if topic.format not in formats():
            yield KeyProblem(
                ("kafka", "topics", i, "format"),
                f"There is no format {topic.format!r}.",
                f"Known: {', '.join(formats())}.",
            )
        elif not reads(formats()[topic.format], topic.type):
            key = ("kafka", "topics", i, "type")
            others = " or ".join(name for name, form in formats().items() if reads(form, topic.type))
            mend = (
                f"It reads type: {' or '.join(read_types(formats()[topic.format]))}; {topic.type} is read by format: "
            )
            said = f"Format {topic.format} does not read topics of type {topic.type}."
            yield KeyProblem(key, said, f"{mend}{others}.")
    yield from pairing_problems(topics)


def reference_file(settings: ModelSettings) -> Path | None:
    """The file under `reference:` of a model."""
    return None if settings.reference is None else settings.reference.path


def without_effect(config: Config) -> Iterator[str]:
    """What is configured and does nothing in this version, one sentence each."""
    for topic in config.kafka.topics if config.kafka is not None else ():
        if topic.keyed_by == "model" and not _is_keyed(topic):
            yield f"topic {topic.name}, keyed_by: has no effect, because events of type {topic.type} name no model"


def _is_keyed(topic: Topic) -> bool:
    """Whether the partitions of a topic share no model, as far as the configuration knows."""
    return topic.keyed_by == "model" and topic.type not in ("access", "metric")
