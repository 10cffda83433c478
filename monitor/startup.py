"""What happens before the first record: references come into force, stored state is taken, partitions are claimed."""

from __future__ import annotations

import structlog

from monitor.assembly import reference_file, reference_rules
from monitor.clock import Clock
from monitor.config import Config
from monitor.failpoints import failpoint
from monitor.intake.formats.base import formats
from monitor.intake.sources.base import Source, TopicPartition
from monitor.pipeline import Pipeline
from monitor.references import in_force, read_reference, reference_row
from monitor.state.lease import Lease
from monitor.state.reader import DamagedPage
from monitor.state.store import StateStore
from monitor.state.unit import PartitionCounts, Position, ReferenceRow

log = structlog.get_logger(__name__)


def load_state(config: Config, store: StateStore, pipeline: Pipeline, clock: Clock) -> None:
    """Give every model its reference (configured or stored), then its stored state."""
    adopt_references(config, store, pipeline, clock)
    damaged: list[DamagedPage] = []
    pages = store.load_pages(damaged=damaged)
    for page in damaged:
        log.error("stored page cannot be read: that detector starts anew", page=page._asdict())
    subjects = {p.subject for p in pages} | {row.subject for row in store.load_subjects()}
    stored = {s: r for s in sorted(subjects) if (r := _in_force(store, s)) is not None}
    pipeline.restore(pages, stored)


def adopt_references(config: Config, store: StateStore, pipeline: Pipeline, clock: Clock) -> None:
    """Register the file under `reference:` of each listed model.

    The first content is approved at sight, by the configuration. A changed content becomes a version that waits for
    approval; the approved one stays in force, and an incident (info) says so.
    """
    for name in config.models.listed:
        tenant, _, model = name.rpartition("/")
        settings = config.model_settings(model, tenant)
        path = reference_file(settings)
        if path is None:
            continue
        rules = reference_rules(config)
        watch = pipeline.listed_watch(model, tenant)
        rows = read_reference(path, formats()["native"], rules)
        origin = settings.reference_is
        prepared = watch.prepare(rows, origin)
        version = prepared.reference.version
        approved = _in_force(store, watch.subject)
        if approved is not None and approved.approved_at is not None and approved.content_hash != version:
            pipeline.add_reference(reference_row(watch.subject, rows, version, origin, clock.now(), None))
            pipeline.reference_waits(watch, str(path), version, clock.now())
            continue
        if approved is None or approved.content_hash != version:
            row = reference_row(watch.subject, rows, version, origin, clock.now(), "configuration")
            pipeline.add_reference(row)
        watch.use(prepared)


def claim_partitions(store: StateStore, lease: Lease, source: Source, pipeline: Pipeline, at: float) -> None:
    """Own every partition there is. Where a new one begins is stored before its first record is decoded."""
    cluster = source.cluster_id()
    pipeline.cluster_id = cluster
    stored = store.load_offsets(cluster)
    known_topics = {topic for topic, _ in stored}
    found = source.discover()
    new = [tp for tp in found if tp not in stored]
    starts = [
        Position(tp.topic, tp.partition, begin, begin, PartitionCounts())
        for tp in new
        for begin in (source.resolve_start(tp, tp.topic not in known_topics),)
    ]
    if starts:
        store.claim_start(cluster, starts, lease, at)
        failpoint("after_claim")
        stored |= store.load_offsets(cluster)
    for tp in found:
        key = (tp.topic, tp.partition)
        if key not in pipeline.partitions:
            position = stored[key]
            pipeline.own(tp.topic, tp.partition, position.next, position.counts)
    if found:
        source.own({TopicPartition(t, p): offset for (t, p), offset in pipeline.positions().items()})


def _in_force(store: StateStore, subject: str) -> ReferenceRow | None:
    return in_force([stored.reference for stored in store.references(subject)])
