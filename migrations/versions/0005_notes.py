"""Subjects have a note: what is told of a model beside its condition.

Revision: 0005. Follows: 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("subjects", sa.Column("note", sa.String(1_000), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("subjects", "note")
