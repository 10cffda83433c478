"""Silences that end, identities that expire, and erasures that last.

Revision: 0002. Follows: 0001.
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("incidents", sa.Column("silenced_until", sa.Double(), nullable=True))
    op.add_column("identities", sa.Column("last_seen", sa.Double(), nullable=True))
    # When known identities were last seen was not kept: they count as seen today.
    identities = sa.table("identities", sa.column("last_seen", sa.Double()))
    op.execute(identities.update().values(last_seen=time.time()))
    op.create_table(
        "erasures",
        sa.Column("group_id", sa.String(128), nullable=False),
        sa.Column("pseudonym", sa.String(64), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "pseudonym", name="pk_erasures"),
    )


def downgrade() -> None:
    op.drop_table("erasures")
    op.drop_column("identities", "last_seen")
    op.drop_column("incidents", "silenced_until")
