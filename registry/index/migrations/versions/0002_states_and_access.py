"""States, tags, statements, policies, access and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds what the first tables did not have; nothing that is there changes."""
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("credential", sa.String(length=256), nullable=False),
        sa.Column("peer", sa.String(length=256), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=256), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("previous_hash", sa.String(length=71), nullable=False),
        sa.Column("hash", sa.String(length=71), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    op.create_index("ix_audit_action", "audit", ["action"], unique=False)
    op.create_index("ix_audit_target", "audit", ["target"], unique=False)

    op.create_table(
        "hold",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.String(length=256), nullable=False),
        sa.Column("expires_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_hold"),
    )
    op.create_table(
        "principal",
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_principal"),
    )
    op.create_table(
        "access_grant",
        sa.Column("principal", sa.String(length=256), nullable=False),
        sa.Column("scope", sa.String(length=64), nullable=False),
        sa.Column("resource", sa.String(length=256), nullable=False),
        sa.Column("effect", sa.String(length=8), nullable=False),
        sa.ForeignKeyConstraint(["principal"], ["principal.name"], name="fk_access_grant_principal_principal"),
        sa.PrimaryKeyConstraint("principal", "scope", "resource", name="pk_access_grant"),
    )
    op.create_table(
        "statement",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("subject_digest", sa.String(length=71), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("blob_digest", sa.String(length=71), nullable=False),
        sa.Column("signer", sa.String(length=512), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["blob_digest"], ["blob.digest"], name="fk_statement_blob_digest_blob"),
        sa.PrimaryKeyConstraint("id", name="pk_statement"),
        sa.UniqueConstraint(
            "subject_digest", "kind", "blob_digest", name="uq_statement_subject_digest_kind_blob_digest"
        ),
    )
    op.create_index("ix_statement_blob_digest", "statement", ["blob_digest"], unique=False)
    op.create_index("ix_statement_subject_digest", "statement", ["subject_digest"], unique=False)

    op.create_table(
        "token",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("principal", sa.String(length=256), nullable=False),
        sa.Column("secret_digest", sa.String(length=71), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.Column("expires_at_s", sa.Double(), nullable=True),
        sa.Column("revoked_at_s", sa.Double(), nullable=True),
        sa.Column("last_used_at_s", sa.Double(), nullable=True),
        sa.Column("note", sa.String(length=256), nullable=False),
        sa.ForeignKeyConstraint(["principal"], ["principal.name"], name="fk_token_principal_principal"),
        sa.PrimaryKeyConstraint("id", name="pk_token"),
    )
    op.create_index("ix_token_principal", "token", ["principal"], unique=False)

    op.create_table(
        "adapter_tag",
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=256), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapter.id"], name="fk_adapter_tag_adapter_id_adapter"),
        sa.PrimaryKeyConstraint("adapter_id", "key", name="pk_adapter_tag"),
    )
    op.create_index("ix_adapter_tag_key_value", "adapter_tag", ["key", "value"], unique=False)

    op.create_table(
        "alias_policy",
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("updated_by", sa.String(length=256), nullable=False),
        sa.Column("updated_at_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapter.id"], name="fk_alias_policy_adapter_id_adapter"),
        sa.PrimaryKeyConstraint("adapter_id", "name", name="pk_alias_policy"),
    )
    op.create_table(
        "lineage_link",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("relation", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name="fk_lineage_link_version_id_version"),
        sa.PrimaryKeyConstraint("version_id", "relation", "digest", name="pk_lineage_link"),
    )
    op.create_index("ix_lineage_link_digest", "lineage_link", ["digest"], unique=False)

    op.create_table(
        "metric",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("dataset_digest", sa.String(length=71), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name="fk_metric_version_id_version"),
        sa.PrimaryKeyConstraint("version_id", "name", "dataset_digest", name="pk_metric"),
    )
    op.create_index("ix_metric_name_value", "metric", ["name", "value"], unique=False)

    op.create_table(
        "version_tag",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=256), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name="fk_version_tag_version_id_version"),
        sa.PrimaryKeyConstraint("version_id", "key", name="pk_version_tag"),
    )
    op.create_index("ix_version_tag_key_value", "version_tag", ["key", "value"], unique=False)

    op.add_column("adapter", sa.Column("description", sa.Text(), server_default="", nullable=False))
    op.add_column("adapter", sa.Column("owner", sa.String(length=256), server_default="", nullable=False))

    with op.batch_alter_table("alias") as batch_op:
        batch_op.add_column(sa.Column("canary_version_id", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("canary_percent", sa.Integer(), server_default="0", nullable=False))
        batch_op.create_foreign_key("fk_alias_canary_version", "version", ["canary_version_id"], ["id"])

    op.add_column("alias_event", sa.Column("kind", sa.String(length=16), server_default="SET", nullable=False))
    op.add_column("alias_event", sa.Column("canary_version", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("alias_event", sa.Column("canary_percent", sa.Integer(), server_default="0", nullable=False))
    op.add_column("alias_event", sa.Column("evidence", sa.JSON(), server_default="{}", nullable=False))

    op.add_column("blob", sa.Column("physical_key", sa.String(length=256), server_default="", nullable=False))
    op.add_column("blob", sa.Column("verified_at_s", sa.Double(), server_default="0", nullable=False))

    op.add_column("clock", sa.Column("compacted_rev", sa.BigInteger(), server_default="0", nullable=False))

    op.add_column("namespace", sa.Column("quota_bytes", sa.BigInteger(), nullable=True))
    op.add_column("namespace", sa.Column("used_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("namespace", sa.Column("policy", sa.JSON(), server_default="{}", nullable=False))

    op.add_column("version", sa.Column("state", sa.String(length=16), server_default="READY", nullable=False))
    op.add_column("version", sa.Column("state_reason", sa.Text(), server_default="", nullable=False))
    op.add_column("version", sa.Column("prior_state", sa.String(length=16), server_default="", nullable=False))
    op.add_column("version", sa.Column("purge_after_s", sa.Double(), nullable=True))


def downgrade() -> None:
    """Drops what this revision added."""
    with op.batch_alter_table("alias") as batch_op:
        batch_op.drop_constraint("fk_alias_canary_version", type_="foreignkey")
        batch_op.drop_column("canary_version_id")
        batch_op.drop_column("canary_percent")
    for table, column in (
        ("adapter", "description"),
        ("adapter", "owner"),
        ("alias_event", "kind"),
        ("alias_event", "canary_version"),
        ("alias_event", "canary_percent"),
        ("alias_event", "evidence"),
        ("blob", "physical_key"),
        ("blob", "verified_at_s"),
        ("clock", "compacted_rev"),
        ("namespace", "quota_bytes"),
        ("namespace", "used_bytes"),
        ("namespace", "policy"),
        ("version", "state"),
        ("version", "state_reason"),
        ("version", "prior_state"),
        ("version", "purge_after_s"),
    ):
        op.drop_column(table, column)
    for table in (
        "version_tag",
        "metric",
        "lineage_link",
        "alias_policy",
        "adapter_tag",
        "token",
        "statement",
        "access_grant",
        "principal",
        "hold",
        "audit",
    ):
        op.drop_table(table)
