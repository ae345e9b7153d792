"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates every table and sets the revision counter to 0."""
    _create_content()
    _create_log()
    _create_names()
    _create_versions()
    _create_aliases()
    _create_sessions()
    op.execute("INSERT INTO clock (id, rev) VALUES (1, 0)")


def downgrade() -> None:
    """Drops every table."""
    for table in (
        "session_blob",
        "upload_session",
        "alias_event",
        "alias",
        "version_blob",
        "version",
        "adapter",
        "namespace",
        "event",
        "clock",
        "base_model",
        "blob",
    ):
        op.drop_table(table)


def _create_content() -> None:
    """Bytes and base models."""
    op.create_table(
        "blob",
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_blob"),
    )
    op.create_table(
        "base_model",
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("config_digest", sa.String(length=71), nullable=False),
        sa.Column("weights_digest", sa.String(length=71), nullable=False),
        sa.Column("tokenizer_digest", sa.String(length=71), nullable=False),
        sa.Column("chat_template_digest", sa.String(length=71), nullable=False),
        sa.Column("architecture", sa.String(length=256), nullable=False),
        sa.Column("vocab_size", sa.Integer(), nullable=False),
        sa.Column("modules", sa.JSON(), nullable=False),
        sa.Column("registered_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_base_model"),
    )


def _create_log() -> None:
    """The revision counter and the outbox that watchers read."""
    op.create_table(
        "clock",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_clock"),
    )
    op.create_table(
        "event",
        sa.Column("rev", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("adapter", sa.String(length=64), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("rev", name="pk_event"),
    )


def _create_names() -> None:
    """Who owns which adapter name."""
    op.create_table(
        "namespace",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_namespace"),
        sa.UniqueConstraint("name", name="uq_namespace_name"),
    )
    op.create_table(
        "adapter",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("namespace_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("next_version", sa.BigInteger(), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.Column("updated_at_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespace.id"], name="fk_adapter_namespace_id_namespace"),
        sa.PrimaryKeyConstraint("id", name="pk_adapter"),
        sa.UniqueConstraint("namespace_id", "name", name="uq_adapter_namespace_id_name"),
    )


def _create_versions() -> None:
    """Immutable versions and the blobs they keep alive."""
    op.create_table(
        "version",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("manifest_digest", sa.String(length=71), nullable=False),
        sa.Column("base_digest", sa.String(length=71), nullable=False),
        sa.Column("shape", sa.JSON(), nullable=False),
        sa.Column("lineage", sa.JSON(), nullable=False),
        sa.Column("publisher", sa.String(length=256), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapter.id"], name="fk_version_adapter_id_adapter"),
        sa.ForeignKeyConstraint(["base_digest"], ["base_model.digest"], name="fk_version_base_digest_base_model"),
        sa.PrimaryKeyConstraint("id", name="pk_version"),
        sa.UniqueConstraint("adapter_id", "manifest_digest", name="uq_version_adapter_id_manifest_digest"),
        sa.UniqueConstraint("adapter_id", "version", name="uq_version_adapter_id_version"),
    )
    op.create_index("ix_version_base_digest", "version", ["base_digest"], unique=False)
    op.create_index("ix_version_manifest_digest", "version", ["manifest_digest"], unique=False)
    op.create_table(
        "version_blob",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("path", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["blob.digest"], name="fk_version_blob_digest_blob"),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name="fk_version_blob_version_id_version"),
        sa.PrimaryKeyConstraint("version_id", "digest", "path", name="pk_version_blob"),
    )
    op.create_index("ix_version_blob_digest", "version_blob", ["digest"], unique=False)


def _create_aliases() -> None:
    """Movable pointers and their history."""
    op.create_table(
        "alias",
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", sa.String(length=256), nullable=False),
        sa.Column("updated_at_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapter.id"], name="fk_alias_adapter_id_adapter"),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name="fk_alias_version_id_version"),
        sa.PrimaryKeyConstraint("adapter_id", "name", name="pk_alias"),
    )
    op.create_table(
        "alias_event",
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("from_version", sa.BigInteger(), nullable=False),
        sa.Column("to_version", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapter.id"], name="fk_alias_event_adapter_id_adapter"),
        sa.PrimaryKeyConstraint("adapter_id", "name", "generation", name="pk_alias_event"),
    )


def _create_sessions() -> None:
    """Uploads and the pins that keep their blobs alive."""
    op.create_table(
        "upload_session",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("adapter", sa.String(length=64), nullable=False),
        sa.Column("idempotency_key", sa.String(length=256), nullable=False),
        sa.Column("fingerprint", sa.String(length=71), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("base_digest", sa.String(length=71), nullable=False),
        sa.Column("lineage", sa.JSON(), nullable=False),
        sa.Column("publisher", sa.String(length=256), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.Column("expires_at_s", sa.Double(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=True),
        sa.Column("alias_set", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["base_digest"], ["base_model.digest"], name="fk_upload_session_base_digest_base_model"
        ),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name="fk_upload_session_version_id_version"),
        sa.PrimaryKeyConstraint("id", name="pk_upload_session"),
        sa.UniqueConstraint("namespace", "idempotency_key", name="uq_upload_session_namespace_idempotency_key"),
    )
    op.create_table(
        "session_blob",
        sa.Column("session_id", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("path", sa.String(length=128), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["upload_session.id"], name="fk_session_blob_session_id_upload_session"
        ),
        sa.PrimaryKeyConstraint("session_id", "digest", "path", name="pk_session_blob"),
    )
    op.create_index("ix_session_blob_digest", "session_blob", ["digest"], unique=False)
