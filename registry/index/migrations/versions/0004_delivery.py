"""What a session has delivered itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; sessions that are under way send their bytes again."""
    op.add_column("session_blob", sa.Column("delivered", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    """Drops the column."""
    op.drop_column("session_blob", "delivered")
