"""What one commit holds. `StateStore.commit(unit)` writes all of it in one SQL transaction, or nothing."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from alerts.incidents import Incident
from detectors.base import Page
from monitor.intake.events import DeadLetter


class Slice(NamedTuple):
    """Consumed records of one partition: offsets from `start` up to, not including, `stop`."""

    topic: str
    partition: int
    start: int
    stop: int


class Tick(NamedTuple):
    """A tick between slices: the loop's clock in epoch seconds. Ticks are committed input: time acts on detectors.

    `listening`: the source could be read since the last tick; where it could not, that nothing came is no silence.
    """

    at: float
    listening: bool = True


class Sampled(NamedTuple):
    """From here on one prediction in `one_in` of this subject is judged by statistical detectors."""

    subject: str
    one_in: int


class PartitionCounts(NamedTuple):
    """Counts of a partition since the first start. received = accepted + rejected."""

    received: int = 0
    accepted: int = 0
    rejected: int = 0
    rows_rejected: int = 0
    time_corrected: int = 0
    gap: int = 0
    unknown_fields: int = 0


class Position(NamedTuple):
    """Where a partition stands: `expected` is the next offset in SQL before this commit, `next` the one after."""

    topic: str
    partition: int
    expected: int
    next: int
    counts: PartitionCounts


class StatePage(NamedTuple):
    """One page of detector state. `version` is the detector's state_version; params_hash names its parameters."""

    subject: str
    detector: str
    params_hash: str
    page: str
    version: int
    arrays: Page


class ObsoletePages(NamedTuple):
    """Stored pages that nobody reads any more: of a detector with other parameters or another reference."""

    subject: str
    detector: str
    params_hash: str


class SubjectRow(NamedTuple):
    """Counts and condition of one watched subject since the first start, as `status` shows them."""

    subject: str
    model: str | None
    tenant: str
    predictions: int
    labels: int
    labels_matched: int
    events: int
    clients: int
    clients_exact: bool
    state: str
    attack_state: str
    unwatched: bool
    watermark: float
    sample_rate: float = 1.0
    """Share of predictions that statistical detectors are given now."""
    unjudged: int = 0
    """Predictions that they were not given."""
    note: str = ""
    """What is told of the model beside its condition, such as that its traffic varies too much; empty: nothing."""


class IdentityRow(NamedTuple):
    """A pseudonym and its identifier, encrypted: the only place that can resolve it."""

    pseudonym: str
    domain: str
    ciphertext: bytes
    first_seen: float


class OutboxRow(NamedTuple):
    """One message to one receiver. `key` is the idempotency key: the same key is never written twice."""

    key: str
    receiver: str
    incident_id: str
    event: str
    payload: str
    created_at: float


class CommandResult(NamedTuple):
    """The outcome of a command row that this commit applied."""

    id: int
    ok: bool
    message: str


class AuditRow(NamedTuple):
    """An act worth proving later: who did what to what. The store adds the hash chain."""

    at: float
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


class ReferenceRow(NamedTuple):
    """A version of a reference: its columns as codec bytes, a content hash, and who approved it when."""

    subject: str
    role: str
    """target, noise or training."""
    content_hash: str
    origin: str
    """file path, or "live" for a provisional one."""
    arrays: bytes
    meta: dict[str, Any]
    created_at: float
    approved_at: float | None
    approved_by: str | None


@dataclass(slots=True)
class CommitUnit:
    """Everything that happened since the last commit, in one piece."""

    at: float
    trail: list[Slice | Tick | Sampled] = field(default_factory=list)
    positions: list[Position] = field(default_factory=list)
    pages: list[StatePage] = field(default_factory=list)
    obsolete: list[ObsoletePages] = field(default_factory=list)
    subjects: list[SubjectRow] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    """Whole incidents, changed since the last commit (their evidence and subjects included)."""
    outbox: list[OutboxRow] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    identities: list[IdentityRow] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    """Pseudonyms whose identities are erased, and never stored again."""
    references: list[ReferenceRow] = field(default_factory=list)
    commands: list[CommandResult] = field(default_factory=list)
    audit: list[AuditRow] = field(default_factory=list)
    access_events: dict[str, int] = field(default_factory=dict)
    """Access events per topic since the last commit (added to the stored count)."""
    cluster_id: str = ""
    """The Kafka cluster of the positions and dead letters; empty for files and memory."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex, compare=False)
    """Names this unit in SQL, so that committing it again after a lost connection writes it at most once."""
