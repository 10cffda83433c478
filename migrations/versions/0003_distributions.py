"""Evidence of drift keeps the distribution before and after.

Revision: 0003. Follows: 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("evidence", sa.Column("distribution", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("evidence", "distribution")
