"""What happens before the first record: references come into force, stored state is taken, partitions are claimed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from monitor import flow
from monitor.assembly import reference_file, reference_rules
from monitor.clock import Clock
from monitor.config import Config
from monitor.failpoints import failpoint
from monitor.intake.events import Event
from monitor.intake.formats.base import formats
from monitor.intake.sources.base import Source, TopicPartition
from monitor.pipeline import Pipeline
from monitor.references import (
    FOR_NEW_VERSION,
    TARGET,
    TRAINING,
    ReferenceFileError,
    file_digest,
    in_force,
    origin_of,
    read_reference,
    reference_row,
    rows_of,
    training_row,
)
from monitor.state.lease import Lease
from monitor.state.reader import DamagedPage
from monitor.state.store import StateStore
from monitor.state.unit import PartitionCounts, Position, ReferenceRow
from monitor.traffic_watch import is_traffic
from monitor.watch import Watch

log = structlog.get_logger(__name__)


def load_state(
    config: Config, store: StateStore, pipeline: Pipeline, clock: Clock, keep_alive: Callable[[], None]
) -> None:
    """Give every model its reference (configured or stored), then its stored state.

    `keep_alive` is called between models: a file of 50,000 rows takes a second. A model whose reference cannot be
    used goes on with the stored one, or is off; the others are not held up.
    """
    pipeline.begin(clock.now())
    for name in config.models.listed:
        tenant, _, model = name.rpartition("/")
        watch = pipeline.listed_watch(model, tenant)
        try:
            watch.training = _training(config, store, pipeline, watch, clock.now())
            _adopt_file(config, store, pipeline, watch, clock.now())
        except ValueError as error:
            log.error("reference not used", model=name, reason=str(error))
            pipeline.reference_unusable(watch, str(error), clock.now())
        keep_alive()
    damaged: list[DamagedPage] = []
    stored = [page for page in store.load_pages(damaged=damaged) if page.subject != flow.SUBJECT]
    pages = pipeline.restore_pairings(stored, {d.subject: d.error for d in damaged})
    rows = store.load_subjects()
    counted = {row.subject: row for row in rows if not row.unwatched}
    for row in rows:
        if row.unwatched:
            pipeline.unwatched.remember(row)
    broken = {d.subject: d.error for d in damaged if is_traffic(d.subject)}
    for subject in sorted({p.subject for p in pages} | counted.keys() | pipeline.watches.keys() | broken.keys()):
        if is_traffic(subject):
            own = [p for p in pages if p.subject == subject]
            pipeline.restore_traffic(subject, own, None, broken.get(subject))
            continue
        watch = pipeline.watch_of(subject)
        _adopt_stored(store, pipeline, watch, clock.now())
        lost = {d.detector: d.error for d in damaged if d.subject == subject}
        pipeline.restore(watch, [p for p in pages if p.subject == subject], counted.get(subject), lost)
        keep_alive()
    pipeline.mended()


def _adopt_file(config: Config, store: StateStore, pipeline: Pipeline, watch: Watch, at: float) -> None:
    """Register the file under `reference:` of a model.

    The first content is approved at sight, by the configuration. A changed content becomes a version that waits for
    approval; the approved one stays in force, and an incident (info) says so.
    """
    settings = config.model_settings(watch.model, watch.tenant)
    path = reference_file(settings)
    if path is None:
        return
    rows = read_reference(path, formats()["native"], reference_rules(config))
    origin = settings.reference_is
    prepared = watch.prepare(rows, origin)
    version = prepared.reference.version
    approved = _in_force(store, watch.subject)
    if approved is not None and approved.approved_at is not None and approved.content_hash != version:
        stored = [r.reference for r in store.references(watch.subject) if r.reference.role == TARGET]
        known = next((row for row in stored if row.content_hash == version), None)
        if known is None:
            pipeline.add_reference(reference_row(watch.subject, rows, version, origin, at, None))
        waits = known is None or known.approved_at is None  # one that was approved once was replaced on purpose
        if waits and (known is None or approved.approved_by != FOR_NEW_VERSION):
            pipeline.reference_waits(watch, str(path), at)
        return
    if approved is None or approved.content_hash != version or approved.approved_at is None:
        pipeline.add_reference(reference_row(watch.subject, rows, version, origin, at, "configuration"))
    watch.use(prepared)


def _training(config: Config, store: StateStore, pipeline: Pipeline, watch: Watch, at: float) -> Sequence[Event]:
    """The rows under `training_rows:` of a model: as they are stored, unless the file has changed since.

    A file that is gone is no fault: what was read of it is in the database.
    """
    place = config.model_settings(watch.model, watch.tenant).training_rows
    if place is None:
        return ()
    stored = [r.reference for r in store.references(watch.subject) if r.reference.role == TRAINING]
    try:
        digest = file_digest(place.path)
    except OSError as error:
        if not stored:
            raise ReferenceFileError(f"{place.path} cannot be read: {error}") from error
        log.warning("training rows as stored: their file cannot be read", model=watch.model, reason=str(error))
        return rows_of(stored[-1])
    if stored and stored[-1].meta.get("file") == digest:
        return rows_of(stored[-1])
    rows = read_reference(place.path, formats()["native"], reference_rules(config))
    pipeline.add_reference(training_row(watch.subject, rows, digest, at))
    return rows


def _adopt_stored(store: StateStore, pipeline: Pipeline, watch: Watch, at: float) -> None:
    """Where no file gave a reference, the stored one in force is used."""
    stored = None if watch.panel is not None else _in_force(store, watch.subject)
    if stored is None:
        return
    try:
        watch.use(watch.prepare(rows_of(stored), origin_of(stored)), stored.content_hash)
    except ValueError as error:
        log.error("stored reference not used", model=watch.model, reason=str(error))
        pipeline.reference_unusable(watch, f"the stored reference: {error}", at)
    else:
        watch.off = None


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
