"""The tables, the same on SQLite and PostgreSQL. Every key begins with the group: groups share nothing.

Times are float64 epoch seconds. A change here needs a migration; a test compares the two on both databases.
Keys are bounded so that no index entry passes PostgreSQL's limit of 2,704 bytes.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, Index, LargeBinary, MetaData, Table

from monitor.state.columns import Json, Key, LongText, Real, Whole, Words

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _key(name: str, limit: int) -> Column[str]:
    return Column(name, Key(limit), primary_key=True)


def _group() -> Column[str]:
    return _key("group_id", 128)


def _number(name: str) -> Column[int]:
    """A number that the database hands out in order of insertion."""
    kind = Whole().with_variant(sa.Integer(), "sqlite")
    return Column(name, kind, sa.Identity(), primary_key=True, autoincrement=True)


def _required(name: str, kind: sa.types.TypeEngine[Any]) -> Column[Any]:
    return Column(name, kind, nullable=False)


leases = Table(
    "leases",
    metadata,
    _group(),
    _required("holder", Words(200)),  # empty: free
    _required("epoch", Whole()),
    _required("ttl", Real()),
    _required("acquired_at", Real()),
    _required("expires_at", Real()),
)

offsets = Table(
    "offsets",
    metadata,
    _group(),
    _key("cluster_id", 128),
    _key("topic", 249),
    Column("partition", Whole(), primary_key=True, autoincrement=False),
    _required("next_offset", Whole()),
    _required("received", Whole()),
    _required("accepted", Whole()),
    _required("rejected", Whole()),
    _required("rows_rejected", Whole()),
    _required("time_corrected", Whole()),
    _required("gap", Whole()),
    _required("unknown_fields", Whole()),
    _required("epoch", Whole()),
    _required("updated_at", Real()),
    CheckConstraint("received = accepted + rejected", name="conserved"),
)

state_pages = Table(
    "state_pages",
    metadata,
    _group(),
    _key("subject", 512),
    _key("detector", 64),
    _key("params_hash", 64),
    _key("page", 256),
    _required("state_version", Whole()),
    _required("data", LargeBinary()),
    _required("epoch", Whole()),
    _required("updated_at", Real()),
)

commits = Table(
    "commits",
    metadata,
    _number("number"),
    _required("group_id", Key(128)),
    _required("token", Key(64)),
    _required("epoch", Whole()),
    _required("at", Real()),
    _required("cluster_id", Key(128)),
    _required("trail", Json()),
    Index("ix_commits_group_id_number", "group_id", "number"),
    Index("uq_commits_group_id_token", "group_id", "token", unique=True),
    sqlite_autoincrement=True,  # numbers are never used again
)

subjects = Table(
    "subjects",
    metadata,
    _group(),
    _key("subject", 512),
    Column("model", Words(400)),
    _required("tenant", Words(200)),
    _required("predictions", Whole()),
    _required("labels", Whole()),
    _required("labels_matched", Whole()),
    _required("events", Whole()),
    _required("clients", Whole()),
    _required("clients_exact", sa.Boolean()),
    _required("state", Words(64)),
    _required("attack_state", Words(64)),
    _required("unwatched", sa.Boolean()),
    Column("watermark", Real()),
    Column("sample_rate", Real(), nullable=False, server_default="1"),
    Column("unjudged", Whole(), nullable=False, server_default="0"),
    Column("note", Words(1_000), nullable=False, server_default=""),
    _required("updated_at", Real()),
)

incidents = Table(
    "incidents",
    metadata,
    _group(),
    _key("incident_id", 64),
    _required("subject", Key(512)),
    Column("model", Words(400)),
    _required("tenant", Words(200)),
    _required("kind", Words(64)),
    _required("account", Words(32)),
    _required("cause", Key(512)),
    _required("severity", Words(16)),
    _required("severity_max", Words(16)),
    _required("status", Words(16)),
    Column("model_version", Words(200)),
    _required("opened_at", Real()),
    Column("resolved_at", Real()),
    Column("onset", Real()),
    _required("why", Words(4_000)),
    _required("detectors", Json()),
    _required("atlas", Json()),
    _required("taxonomy", Json()),
    _required("last_position", Whole()),
    _required("alarms", Whole()),
    _required("resolution", Words(400)),
    Column("acknowledged_by", Words(200)),
    _required("held_by", Json()),
    Column("silenced_until", Real()),
    _required("updated_at", Real()),
    Index("ix_incidents_group_id_status_opened_at", "group_id", "status", "opened_at"),
    Index("ix_incidents_group_id_opened_at", "group_id", "opened_at"),
)


def _of_incident() -> ForeignKeyConstraint:
    columns = ["group_id", "incident_id"]
    return ForeignKeyConstraint(columns, [f"incidents.{name}" for name in columns], ondelete="CASCADE")


incident_subjects = Table(
    "incident_subjects",
    metadata,
    _group(),
    _key("incident_id", 64),
    Column("ordinal", Whole(), primary_key=True, autoincrement=False),
    _required("type", Words(32)),
    _required("subject_id", Key(512)),
    Column("since", Real()),
    Column("trigger_event_id", Words(512)),
    _of_incident(),
    Index("ix_incident_subjects_group_id_type_subject_id", "group_id", "type", "subject_id"),
)

evidence = Table(
    "evidence",
    metadata,
    _group(),
    _key("incident_id", 64),
    Column("ordinal", Whole(), primary_key=True, autoincrement=False),
    _required("detector", Words(64)),
    _required("stream", Words(512)),
    Column("observed", Real()),
    Column("expected", Real()),
    _required("unit", Words(64)),
    _required("n", Whole()),
    Column("since", Real()),
    Column("until", Real()),
    _required("field", Words(512)),
    _required("statistic", Words(64)),
    Column("distribution", Json()),
    _of_incident(),
)

outbox = Table(
    "outbox",
    metadata,
    _number("number"),
    _required("group_id", Key(128)),
    _required("key", Key(200)),
    _required("receiver", Key(200)),
    _required("incident_id", Key(64)),
    _required("event", Words(64)),
    _required("payload", LongText()),
    _required("created_at", Real()),
    _required("status", Words(16)),  # pending, delivered, failed
    _required("attempts", Whole()),
    _required("next_attempt_at", Real()),
    Column("claimed_until", Real()),
    Column("delivered_at", Real()),
    _required("error", Words(1_000)),
    Index("uq_outbox_group_id_key", "group_id", "key", unique=True),
    Index("ix_outbox_group_id_status_receiver_next_attempt_at", "group_id", "status", "receiver", "next_attempt_at"),
    Index("ix_outbox_group_id_incident_id", "group_id", "incident_id"),
    sqlite_autoincrement=True,  # numbers are never used again
)

dead_letters = Table(
    "dead_letters",
    metadata,
    _group(),
    _key("cluster_id", 128),
    _key("topic", 249),
    Column("partition", Whole(), primary_key=True, autoincrement=False),
    Column("record_offset", Whole(), primary_key=True, autoincrement=False),
    Column("record_row", Whole(), primary_key=True, autoincrement=False),
    _required("reason", Words(32)),
    _required("detail", Words(500)),
    _required("structure", Json()),
    _required("length", Whole()),
    _required("digest", Words(128)),
    _required("at", Real()),
    Index("ix_dead_letters_group_id_at", "group_id", "at"),
)

commands = Table(
    "commands",
    metadata,
    _number("number"),
    _required("group_id", Key(128)),
    _required("actor", Words(200)),
    _required("name", Words(64)),
    _required("arguments", Json()),
    _required("created_at", Real()),
    Column("applied_at", Real()),  # NULL: queued
    Column("ok", sa.Boolean()),
    Column("message", Words(2_000)),
    Column("epoch", Whole()),
    Index("ix_commands_group_id_applied_at", "group_id", "applied_at"),
    sqlite_autoincrement=True,  # numbers are never used again
)

audit = Table(
    "audit",
    metadata,
    _group(),
    Column("seq", Whole(), primary_key=True, autoincrement=False),
    _required("at", Real()),
    _required("actor", Words(200)),
    _required("action", Words(64)),
    _required("subject", Words(512)),
    _required("detail", LongText()),  # canonical JSON: the hash is over these very bytes
    _required("prev_hash", Words(64)),
    _required("hash", Words(64)),
)

identities = Table(
    "identities",
    metadata,
    _group(),
    _key("pseudonym", 64),
    _required("domain", Words(32)),
    _required("ciphertext", LargeBinary()),
    _required("first_seen", Real()),
    Column("last_seen", Real()),  # when it was last stored: at most about a day before its last event
)

erasures = Table(
    "erasures",
    metadata,
    _group(),
    _key("pseudonym", 64),  # its identity was erased, and is not stored again
    _required("at", Real()),
)

references = Table(
    "references",
    metadata,
    _group(),
    _key("subject", 512),
    _key("role", 32),
    Column("version", Whole(), primary_key=True, autoincrement=False),
    _required("content_hash", Key(128)),
    _required("origin", Words(1_000)),
    _required("arrays", LargeBinary()),
    _required("meta", Json()),
    _required("created_at", Real()),
    Column("approved_at", Real()),
    Column("approved_by", Words(200)),
    Index("uq_references_content_hash", "group_id", "subject", "role", "content_hash", unique=True),
)

notified_alerts = Table(
    "notified_alerts",
    metadata,
    _group(),
    _key("receiver", 200),
    _key("fingerprint", 64),
    _required("labels", Json()),
    _required("starts_at", Real()),
    _required("last_sent", Real()),
    Column("resolved_at", Real()),
)

access_counts = Table(
    "access_counts",
    metadata,
    _group(),
    _key("topic", 249),
    _required("events", Whole()),
)

settings = Table(
    "settings",
    metadata,
    _group(),
    _key("key", 64),
    _required("value", LongText()),
)
