"""The tables. The same definitions serve SQLite and any other database SQLAlchemy speaks.

`migrations/` creates and changes them; a test holds the two together.

Rules that every writer keeps:
- a version row and its `version_blob` rows appear in one transaction, with every blob PRESENT;
- `version_blob`, `statement` and the `session_blob` rows of open sessions are what keeps a blob alive;
- `clock.rev` is raised last in a transaction that others may want to hear of, and the `event`
  row with that revision is written with it, so revisions have no gaps and commit in order;
- every change that is announced leaves its row in `audit` in the same transaction.
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


def _sorted(length: int) -> sa.String:
    """Text that SQL sorts or compares: by its bytes, whatever language the database has."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


class BlobState(StrEnum):
    """What is known of a blob's bytes. CORRUPT becomes PRESENT when the same bytes arrive again.

    DELETING is set by the collector before it removes the bytes, and the row goes with them.
    """

    PRESENT = "PRESENT"
    CORRUPT = "CORRUPT"
    DELETING = "DELETING"


class VersionState(StrEnum):
    """Whether a version may be used. `catalog.states` has the table of moves.

    READY is normal and DEPRECATED warns. A YANKED version answers only to a ref that names it
    exactly, and no alias may point to it. QUARANTINED is for bad bytes and security; nobody gets it.
    DELETED can be undone until its bytes are collected, and PURGED is what is left of it then.
    """

    READY = "READY"
    DEPRECATED = "DEPRECATED"
    YANKED = "YANKED"
    QUARANTINED = "QUARANTINED"
    DELETED = "DELETED"
    PURGED = "PURGED"


class SessionState(StrEnum):
    """OPEN ends as COMMITTED or ABORTED; an aborted key may be opened again."""

    OPEN = "OPEN"
    COMMITTED = "COMMITTED"
    ABORTED = "ABORTED"


class AliasEventKind(StrEnum):
    """What a move of an alias was."""

    SET = "SET"
    ROLLBACK = "ROLLBACK"
    CANARY = "CANARY"
    DELETE = "DELETE"


clock = sa.Table(
    "clock",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("rev", sa.BigInteger, nullable=False),
    # Events up to here have been dropped; a watcher that is older must list again.
    sa.Column("compacted_rev", sa.BigInteger, nullable=False, server_default="0"),
    # Names the store; a directory remembers it and notices another database in its place.
    sa.Column("store_id", sa.String(32), nullable=False, server_default=""),
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
    sa.Column("name", _sorted(64), nullable=False, unique=True),
    sa.Column("created_at_s", sa.Double, nullable=False),
    # NULL is no limit.
    sa.Column("quota_bytes", sa.BigInteger, nullable=True),
    sa.Column("used_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("policy", sa.JSON, nullable=False, server_default="{}"),
)

adapter = sa.Table(
    "adapter",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("namespace_id", sa.ForeignKey("namespace.id"), nullable=False),
    sa.Column("name", _sorted(64), nullable=False),
    sa.Column("next_version", sa.BigInteger, nullable=False),
    sa.Column("created_at_s", sa.Double, nullable=False),
    sa.Column("updated_at_s", sa.Double, nullable=False),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("owner", sa.String(256), nullable=False, server_default=""),
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
    # Where a bucket holds the bytes; empty when the digest names the file.
    sa.Column("physical_key", sa.String(256), nullable=False, server_default=""),
    # 0 is never.
    sa.Column("verified_at_s", sa.Double, nullable=False, server_default="0"),
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
    sa.Column("state", sa.String(16), nullable=False, server_default="READY"),
    sa.Column("state_reason", sa.Text, nullable=False, server_default=""),
    # The state that undelete and a lifted quarantine go back to.
    sa.Column("prior_state", sa.String(16), nullable=False, server_default=""),
    # When the bytes of a DELETED version may be collected.
    sa.Column("purge_after_s", sa.Double, nullable=True),
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

version_tag = sa.Table(
    "version_tag",
    metadata,
    sa.Column("version_id", sa.ForeignKey("version.id"), primary_key=True),
    sa.Column("key", _sorted(64), primary_key=True),
    sa.Column("value", _sorted(256), nullable=False),
    sa.Index("ix_version_tag_key_value", "key", "value"),
)

adapter_tag = sa.Table(
    "adapter_tag",
    metadata,
    sa.Column("adapter_id", sa.ForeignKey("adapter.id"), primary_key=True),
    sa.Column("key", _sorted(64), primary_key=True),
    sa.Column("value", _sorted(256), nullable=False),
    sa.Index("ix_adapter_tag_key_value", "key", "value"),
)

# The scores of a version's lineage, once more, to search by.
metric = sa.Table(
    "metric",
    metadata,
    sa.Column("version_id", sa.ForeignKey("version.id"), primary_key=True),
    sa.Column("name", _sorted(256), primary_key=True),
    # Empty when unknown.
    sa.Column("dataset_digest", sa.String(71), primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
    sa.Index("ix_metric_name_value", "name", "value"),
)

# The digests of a version's lineage, once more, to find the versions that something reached.
lineage_link = sa.Table(
    "lineage_link",
    metadata,
    sa.Column("version_id", sa.ForeignKey("version.id"), primary_key=True),
    # `dataset`, `evaluation`, `recipe` or `parent`.
    sa.Column("relation", sa.String(16), primary_key=True),
    sa.Column("digest", sa.String(71), primary_key=True, index=True),
)

statement = sa.Table(
    "statement",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    # A manifest digest; the version may be anywhere, or nowhere yet.
    sa.Column("subject_digest", sa.String(71), nullable=False, index=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("blob_digest", sa.ForeignKey("blob.digest"), nullable=False, index=True),
    # Who signed, as the verified signature says; empty for statements without one.
    sa.Column("signer", sa.String(512), nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("summary", sa.JSON, nullable=False),
    sa.Column("created_at_s", sa.Double, nullable=False),
    # The adapter that it was attached through; empty when nobody can tell any more.
    sa.Column("namespace", sa.String(64), nullable=False, server_default=""),
    sa.Column("adapter", sa.String(64), nullable=False, server_default=""),
    sa.UniqueConstraint("subject_digest", "kind", "blob_digest", "namespace", "adapter"),
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
    # Whether this session itself has brought the bytes; that others have does not count for it.
    sa.Column("delivered", sa.Boolean, nullable=False, server_default=sa.false()),
)

alias = sa.Table(
    "alias",
    metadata,
    sa.Column("adapter_id", sa.ForeignKey("adapter.id"), primary_key=True),
    sa.Column("name", _sorted(64), primary_key=True),
    sa.Column("version_id", sa.ForeignKey("version.id"), nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("updated_by", sa.String(256), nullable=False),
    sa.Column("updated_at_s", sa.Double, nullable=False),
    # The second version of a split, and the whole percentage of session keys that get it.
    sa.Column("canary_version_id", sa.ForeignKey("version.id", name="fk_alias_canary_version"), nullable=True),
    sa.Column("canary_percent", sa.Integer, nullable=False, server_default="0"),
)

# Rules for an alias, set or not: who may move it, and what a version needs before it may be there.
alias_policy = sa.Table(
    "alias_policy",
    metadata,
    sa.Column("adapter_id", sa.ForeignKey("adapter.id"), primary_key=True),
    sa.Column("name", _sorted(64), primary_key=True),
    sa.Column("policy", sa.JSON, nullable=False),
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
    sa.Column("kind", sa.String(16), nullable=False, server_default="SET"),
    # 0 when there was no split.
    sa.Column("canary_version", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("canary_percent", sa.Integer, nullable=False, server_default="0"),
    # What was measured, when a machine decided.
    sa.Column("evidence", sa.JSON, nullable=False, server_default="{}"),
)

# What each server has seen of a rollout's step; the row without a server says that there is one.
rollout_tally = sa.Table(
    "rollout_tally",
    metadata,
    sa.Column("adapter_id", sa.ForeignKey("adapter.id"), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    # Of the alias while the step lasts.
    sa.Column("generation", sa.BigInteger, primary_key=True),
    # Names a process, anew with every start.
    sa.Column("server", sa.String(64), primary_key=True),
    sa.Column("tallies", sa.JSON, nullable=False),
    sa.Column("at_s", sa.Double, nullable=False),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at_s", sa.Double, nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    # Id of the token, or name of the certificate; empty in the process that owns the directory.
    sa.Column("credential", sa.String(256), nullable=False),
    sa.Column("peer", sa.String(256), nullable=False),
    sa.Column("request_id", sa.String(128), nullable=False),
    sa.Column("action", sa.String(64), nullable=False, index=True),
    sa.Column("target", sa.String(256), nullable=False, index=True),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("previous_hash", sa.String(71), nullable=False),
    sa.Column("hash", sa.String(71), nullable=False),
)

# While one is unexpired, nothing is collected: a backup is copying.
hold = sa.Table(
    "hold",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("reason", sa.String(256), nullable=False),
    sa.Column("expires_at_s", sa.Double, nullable=False),
)

principal = sa.Table(
    "principal",
    metadata,
    # A name of the operator's choice, or the URI of a client certificate.
    sa.Column("name", _sorted(256), primary_key=True),
    sa.Column("created_at_s", sa.Double, nullable=False),
)

access_grant = sa.Table(
    "access_grant",
    metadata,
    sa.Column("principal", sa.ForeignKey("principal.name"), primary_key=True),
    sa.Column("scope", _sorted(64), primary_key=True),
    # `ns/adapter@alias`; `*` only as a whole segment.
    sa.Column("resource", _sorted(256), primary_key=True),
    # `allow` or `deny`; a deny wins.
    sa.Column("effect", sa.String(8), nullable=False),
)

token = sa.Table(
    "token",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("principal", sa.ForeignKey("principal.name"), nullable=False, index=True),
    sa.Column("secret_digest", sa.String(71), nullable=False),
    sa.Column("created_at_s", sa.Double, nullable=False),
    sa.Column("expires_at_s", sa.Double, nullable=True),
    sa.Column("revoked_at_s", sa.Double, nullable=True),
    sa.Column("last_used_at_s", sa.Double, nullable=True),
    sa.Column("note", sa.String(256), nullable=False),
)
