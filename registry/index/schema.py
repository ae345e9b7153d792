"""The tables. The same definitions serve SQLite and any other database SQLAlchemy speaks.

`migrations/` creates and changes them; a test holds the two together.

Rules that every writer keeps:
- a version row and its `version_blob` rows appear in one transaction, with every blob PRESENT;
- `version_blob` and the `session_blob` rows of open sessions are what keeps a blob alive;
- `clock.rev` is raised last in a transaction that others may want to hear of, and the `event`
  row with that revision is written with it, so revisions have no gaps and commit in order.
"""

from __future__ import annotations

from enum import StrEnum

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class BlobState(StrEnum):
    """What is known of a blob's bytes. CORRUPT becomes PRESENT when the same bytes arrive again."""

    PRESENT = "PRESENT"
    CORRUPT = "CORRUPT"


class SessionState(StrEnum):
    """OPEN ends as COMMITTED or ABORTED; an aborted key may be opened again."""

    OPEN = "OPEN"
    COMMITTED = "COMMITTED"
    ABORTED = "ABORTED"


clock = sa.Table(
    "clock",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("rev", sa.BigInteger, nullable=False),
)

event = sa.Table(
    "event",
    metadata,
    sa.Column("rev", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("namespace", sa.String(64), nullable=False),
    sa.Column("adapter", sa.String(64), nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("at_s", sa.Double, nullable=False),
)

namespace = sa.Table(
    "namespace",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at_s", sa.Double, nullable=False),
)

adapter = sa.Table(
    "adapter",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("namespace_id", sa.ForeignKey("namespace.id"), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("next_version", sa.BigInteger, nullable=False),
    sa.Column("created_at_s", sa.Double, nullable=False),
    sa.Column("updated_at_s", sa.Double, nullable=False),
    sa.UniqueConstraint("namespace_id", "name"),
)

base_model = sa.Table(
    "base_model",
    metadata,
    sa.Column("digest", sa.String(71), primary_key=True),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("config_digest", sa.String(71), nullable=False),
    sa.Column("weights_digest", sa.String(71), nullable=False),
    sa.Column("tokenizer_digest", sa.String(71), nullable=False),
    sa.Column("chat_template_digest", sa.String(71), nullable=False),
    sa.Column("architecture", sa.String(256), nullable=False),
    sa.Column("vocab_size", sa.Integer, nullable=False),
    sa.Column("modules", sa.JSON, nullable=False),
    sa.Column("registered_at_s", sa.Double, nullable=False),
)

blob = sa.Table(
    "blob",
    metadata,
    sa.Column("digest", sa.String(71), primary_key=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created_at_s", sa.Double, nullable=False),
)

version = sa.Table(
    "version",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("adapter_id", sa.ForeignKey("adapter.id"), nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("manifest_digest", sa.String(71), nullable=False, index=True),
    sa.Column("base_digest", sa.ForeignKey("base_model.digest"), nullable=False, index=True),
    sa.Column("shape", sa.JSON, nullable=False),
    sa.Column("lineage", sa.JSON, nullable=False),
    sa.Column("publisher", sa.String(256), nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("warnings", sa.JSON, nullable=False),
    sa.Column("created_at_s", sa.Double, nullable=False),
    sa.UniqueConstraint("adapter_id", "version"),
    sa.UniqueConstraint("adapter_id", "manifest_digest"),
)

version_blob = sa.Table(
    "version_blob",
    metadata,
    sa.Column("version_id", sa.ForeignKey("version.id"), primary_key=True),
    sa.Column("digest", sa.ForeignKey("blob.digest"), primary_key=True, index=True),
    # Empty for the documents that the registry wrote itself.
    sa.Column("path", sa.String(128), primary_key=True),
)

upload_session = sa.Table(
    "upload_session",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("namespace", sa.String(64), nullable=False),
    sa.Column("adapter", sa.String(64), nullable=False),
    sa.Column("idempotency_key", sa.String(256), nullable=False),
    sa.Column("fingerprint", sa.String(71), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("base_digest", sa.ForeignKey("base_model.digest"), nullable=False),
    sa.Column("lineage", sa.JSON, nullable=False),
    sa.Column("publisher", sa.String(256), nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("created_at_s", sa.Double, nullable=False),
    sa.Column("expires_at_s", sa.Double, nullable=False),
    sa.Column("version_id", sa.ForeignKey("version.id"), nullable=True),
    sa.Column("alias_set", sa.String(64), nullable=True),
    sa.UniqueConstraint("namespace", "idempotency_key"),
)

session_blob = sa.Table(
    "session_blob",
    metadata,
    sa.Column("session_id", sa.ForeignKey("upload_session.id"), primary_key=True),
    sa.Column("digest", sa.String(71), primary_key=True, index=True),
    sa.Column("path", sa.String(128), primary_key=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
)

alias = sa.Table(
    "alias",
    metadata,
    sa.Column("adapter_id", sa.ForeignKey("adapter.id"), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("version_id", sa.ForeignKey("version.id"), nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("updated_by", sa.String(256), nullable=False),
    sa.Column("updated_at_s", sa.Double, nullable=False),
)

alias_event = sa.Table(
    "alias_event",
    metadata,
    sa.Column("adapter_id", sa.ForeignKey("adapter.id"), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("generation", sa.BigInteger, primary_key=True),
    sa.Column("from_version", sa.BigInteger, nullable=False),
    sa.Column("to_version", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at_s", sa.Double, nullable=False),
)
