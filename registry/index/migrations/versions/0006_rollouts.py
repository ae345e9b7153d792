"""What servers have seen of a rollout."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "rollout_tally",
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("server", sa.String(length=64), nullable=False),
        sa.Column("tallies", sa.JSON(), nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapter.id"], name="fk_rollout_tally_adapter_id_adapter"),
        sa.PrimaryKeyConstraint("adapter_id", "name", "generation", "server", name="pk_rollout_tally"),
    )


def downgrade() -> None:
    """Drops it."""
    op.drop_table("rollout_tally")
