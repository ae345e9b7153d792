"""From a ref to the one version it names now."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog.canary import choose
from switchyard.registry.catalog.state_rules import SERVABLE, require_usable
from switchyard.registry.catalog.versions import Versions, alias_query, alias_record
from switchyard.registry.errors import BaseMismatch
from switchyard.registry.index import schema
from switchyard.registry.index.database import Index
from switchyard.registry.records import ResolvedAdapter
from switchyard.registry.refs import AdapterRef

# Built once: putting a query together takes longer than running it.
_ALIAS_OF_NAME = alias_query().where(
    schema.namespace.c.name == sa.bindparam("namespace"),
    schema.adapter.c.name == sa.bindparam("adapter"),
    schema.alias.c.name == sa.bindparam("alias"),
)


def resolve(
    index: Index, versions: Versions, ref: AdapterRef, base_digest: str | None, session_key: str
) -> ResolvedAdapter:
    """Reads a ref in one transaction, so that alias, generation and version belong together.

    Args:
        index: where to read.
        versions: how to read.
        ref: what was asked for.
        base_digest: the base model that will serve it, or None to take any.
        session_key: decides between the two versions of a split; see `canary.choose`.

    Raises:
        AdapterNotFound, VersionNotFound, AliasNotFound: nothing of that name.
        VersionYanked, VersionQuarantined, VersionDeleted: its state forbids it.
        BaseMismatch: the version was made for another base model.
    """
    with index.read() as connection:
        version_id, generation = versions.find(connection, ref)
        second_id = _second_version(connection, ref, session_key) if ref.alias is not None else None
        version = versions.by_id(connection, version_id if second_id is None else second_id)
        # A candidate that was found bad while it is tried must not take its share of sessions down.
        if second_id is not None and version.state not in SERVABLE:
            second_id = None
            version = versions.by_id(connection, version_id)
    require_usable(version, by_alias=ref.alias is not None)
    if base_digest is not None and version.base.digest != base_digest:
        raise BaseMismatch(
            f"{ref} was made for base model {version.base.name} ({version.base.digest}), "
            f"expected {base_digest}; serve that base or publish the adapter for this one"
        )
    return ResolvedAdapter(version, ref.alias or "", generation, canary=second_id is not None)


def _second_version(connection: Connection, ref: AdapterRef, session_key: str) -> int | None:
    """Returns the row of the second version of a split when the session gets it."""
    if session_key == "":
        return None
    named = {"namespace": ref.namespace, "adapter": ref.adapter, "alias": ref.alias}
    row = connection.execute(_ALIAS_OF_NAME, named).mappings().one()
    alias = alias_record(row)
    if choose(alias, session_key) == alias.version:
        return None
    second: int = row["canary_version_id"]
    return second
