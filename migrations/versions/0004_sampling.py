"""Subjects tell what share of their predictions is judged.

Revision: 0004. Follows: 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("subjects", sa.Column("sample_rate", sa.Double(), nullable=False, server_default="1"))
    op.add_column("subjects", sa.Column("unjudged", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("subjects", "unjudged")
    op.drop_column("subjects", "sample_rate")
