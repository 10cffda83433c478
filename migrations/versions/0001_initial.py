"""All tables of the first version.

Revision: 0001. Follows: none.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "access_counts",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("topic", sa.String(249), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "topic", name="pk_access_counts"),
    )
    op.create_table(
        "audit",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("prev_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "seq", name="pk_audit"),
    )
    op.create_table(
        "commands",
        _number(),
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("arguments", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("applied_at", sa.Double(), nullable=True),
        sa.Column("ok", sa.Boolean(), nullable=True),
        sa.Column("message", sa.String(2000), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("number", name="pk_commands"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_commands_group_id_applied_at", "commands", ["group_id", "applied_at"])
    op.create_table(
        "commits",
        _number(),
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("cluster_id", sa.String(128), nullable=False),
        sa.Column("trail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_commits"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_commits_group_id_number", "commits", ["group_id", "number"])
    op.create_index("uq_commits_group_id_token", "commits", ["group_id", "token"], unique=True)
    op.create_table(
        "dead_letters",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("cluster_id", sa.String(128), nullable=False),
        sa.Column("topic", sa.String(249), nullable=False),
        sa.Column("partition", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("record_offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("record_row", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("detail", sa.String(500), nullable=False),
        sa.Column("structure", sa.Text(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(128), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint(
            "group_id", "cluster_id", "topic", "partition", "record_offset", "record_row", name="pk_dead_letters"
        ),
    )
    op.create_index("ix_dead_letters_group_id_at", "dead_letters", ["group_id", "at"])
    op.create_table(
        "identities",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("pseudonym", sa.String(64), nullable=False),
        sa.Column("domain", sa.String(32), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("first_seen", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "pseudonym", name="pk_identities"),
    )
    op.create_table(
        "incidents",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("incident_id", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("model", sa.String(400), nullable=True),
        sa.Column("tenant", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("cause", sa.String(512), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("severity_max", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("model_version", sa.String(200), nullable=True),
        sa.Column("opened_at", sa.Double(), nullable=False),
        sa.Column("resolved_at", sa.Double(), nullable=True),
        sa.Column("onset", sa.Double(), nullable=True),
        sa.Column("why", sa.String(4000), nullable=False),
        sa.Column("detectors", sa.Text(), nullable=False),
        sa.Column("atlas", sa.Text(), nullable=False),
        sa.Column("taxonomy", sa.Text(), nullable=False),
        sa.Column("last_position", sa.BigInteger(), nullable=False),
        sa.Column("alarms", sa.BigInteger(), nullable=False),
        sa.Column("resolution", sa.String(400), nullable=False),
        sa.Column("acknowledged_by", sa.String(200), nullable=True),
        sa.Column("held_by", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "incident_id", name="pk_incidents"),
    )
    op.create_index("ix_incidents_group_id_opened_at", "incidents", ["group_id", "opened_at"])
    op.create_index("ix_incidents_group_id_status_opened_at", "incidents", ["group_id", "status", "opened_at"])
    op.create_table(
        "leases",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("holder", sa.String(200), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("ttl", sa.Double(), nullable=False),
        sa.Column("acquired_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", name="pk_leases"),
    )
    op.create_table(
        "notified_alerts",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("receiver", sa.String(200), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.Double(), nullable=False),
        sa.Column("last_sent", sa.Double(), nullable=False),
        sa.Column("resolved_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("group_id", "receiver", "fingerprint", name="pk_notified_alerts"),
    )
    op.create_table(
        "offsets",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("cluster_id", sa.String(128), nullable=False),
        sa.Column("topic", sa.String(249), nullable=False),
        sa.Column("partition", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("accepted", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.Column("rows_rejected", sa.BigInteger(), nullable=False),
        sa.Column("time_corrected", sa.BigInteger(), nullable=False),
        sa.Column("gap", sa.BigInteger(), nullable=False),
        sa.Column("unknown_fields", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.CheckConstraint("received = accepted + rejected", name=op.f("ck_offsets_conserved")),
        sa.PrimaryKeyConstraint("group_id", "cluster_id", "topic", "partition", name="pk_offsets"),
    )
    op.create_table(
        "outbox",
        _number(),
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("receiver", sa.String(200), nullable=False),
        sa.Column("incident_id", sa.String(64), nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("next_attempt_at", sa.Double(), nullable=False),
        sa.Column("claimed_until", sa.Double(), nullable=True),
        sa.Column("delivered_at", sa.Double(), nullable=True),
        sa.Column("error", sa.String(1000), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_outbox"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_group_id_incident_id", "outbox", ["group_id", "incident_id"])
    op.create_index(
        "ix_outbox_group_id_status_receiver_next_attempt_at",
        "outbox",
        ["group_id", "status", "receiver", "next_attempt_at"],
    )
    op.create_index("uq_outbox_group_id_key", "outbox", ["group_id", "key"], unique=True)
    op.create_table(
        "references",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("content_hash", sa.String(128), nullable=False),
        sa.Column("origin", sa.String(1000), nullable=False),
        sa.Column("arrays", sa.LargeBinary(), nullable=False),
        sa.Column("meta", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("approved_at", sa.Double(), nullable=True),
        sa.Column("approved_by", sa.String(200), nullable=True),
        sa.PrimaryKeyConstraint("group_id", "subject", "role", "version", name="pk_references"),
    )
    op.create_index(
        "uq_references_content_hash", "references", ["group_id", "subject", "role", "content_hash"], unique=True
    )
    op.create_table(
        "settings",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "key", name="pk_settings"),
    )
    op.create_table(
        "state_pages",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("detector", sa.String(64), nullable=False),
        sa.Column("params_hash", sa.String(64), nullable=False),
        sa.Column("page", sa.String(256), nullable=False),
        sa.Column("state_version", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "subject", "detector", "params_hash", "page", name="pk_state_pages"),
    )
    op.create_table(
        "subjects",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("model", sa.String(400), nullable=True),
        sa.Column("tenant", sa.String(200), nullable=False),
        sa.Column("predictions", sa.BigInteger(), nullable=False),
        sa.Column("labels", sa.BigInteger(), nullable=False),
        sa.Column("labels_matched", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("clients", sa.BigInteger(), nullable=False),
        sa.Column("clients_exact", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("attack_state", sa.String(64), nullable=False),
        sa.Column("unwatched", sa.Boolean(), nullable=False),
        sa.Column("watermark", sa.Double(), nullable=True),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "subject", name="pk_subjects"),
    )
    op.create_table(
        "evidence",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("incident_id", sa.String(64), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("detector", sa.String(64), nullable=False),
        sa.Column("stream", sa.String(512), nullable=False),
        sa.Column("observed", sa.Double(), nullable=True),
        sa.Column("expected", sa.Double(), nullable=True),
        sa.Column("unit", sa.String(64), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.Double(), nullable=True),
        sa.Column("until", sa.Double(), nullable=True),
        sa.Column("field", sa.String(512), nullable=False),
        sa.Column("statistic", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id", "incident_id"],
            ["incidents.group_id", "incidents.incident_id"],
            name="fk_evidence_incidents",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("group_id", "incident_id", "ordinal", name="pk_evidence"),
    )
    op.create_table(
        "incident_subjects",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("incident_id", sa.String(64), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("subject_id", sa.String(512), nullable=False),
        sa.Column("since", sa.Double(), nullable=True),
        sa.Column("trigger_event_id", sa.String(512), nullable=True),
        sa.ForeignKeyConstraint(
            ["group_id", "incident_id"],
            ["incidents.group_id", "incidents.incident_id"],
            name="fk_incident_subjects_incidents",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("group_id", "incident_id", "ordinal", name="pk_incident_subjects"),
    )
    op.create_index(
        "ix_incident_subjects_group_id_type_subject_id", "incident_subjects", ["group_id", "type", "subject_id"]
    )


def downgrade() -> None:
    op.drop_table("incident_subjects")
    op.drop_table("evidence")
    op.drop_table("subjects")
    op.drop_table("state_pages")
    op.drop_table("settings")
    op.drop_table("references")
    op.drop_table("outbox")
    op.drop_table("offsets")
    op.drop_table("notified_alerts")
    op.drop_table("leases")
    op.drop_table("incidents")
    op.drop_table("identities")
    op.drop_table("dead_letters")
    op.drop_table("commits")
    op.drop_table("commands")
    op.drop_table("audit")
    op.drop_table("access_counts")


def _number() -> sa.Column[Any]:
    """A number that the database hands out in order of insertion."""
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("number", kind, sa.Identity(), autoincrement=True, nullable=False)
