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
from switchyard.registry.index.memo import Memo
from switchyard.registry.records import AliasRecord, ResolvedAdapter
from switchyard.registry.refs import AdapterRef

# Built once: putting a query together takes longer than running it.
_ALIAS_OF_NAME = alias_query().where(
    schema.namespace.c.name == sa.bindparam("namespace"),
    schema.adapter.c.name == sa.bindparam("adapter"),
    schema.alias.c.name == sa.bindparam("alias"),
)


class Resolution:
    """Finds the version that a ref names.

    Args:
        index: where to read.
        versions: how to read.
    """

    def __init__(self, index: Index, versions: Versions) -> None:
        self._index = index
        self._versions = versions
        self._found = Memo[AdapterRef, ResolvedAdapter](index.stamp)

    def resolve(self, ref: AdapterRef, base_digest: str | None, session_key: str) -> ResolvedAdapter:
        """Reads a ref in one transaction, so that alias, generation and version belong together.

        Args:
            ref: what was asked for.
            base_digest: the base model that will serve it, or None to take any.
            session_key: decides between the two versions of a split; see `canary.choose`.

        Raises:
            AdapterNotFound, VersionNotFound, AliasNotFound: nothing of that name.
            VersionYanked, VersionQuarantined, VersionDeleted: its state forbids it.
            BaseMismatch: the version was made for another base model.
        """
        stamp = self._index.stamp()
        with self._index.read() as connection:
            version_id, generation = self._versions.find(connection, ref)
            alias, second_id = _split(connection, ref)
            is_second = alias is not None and session_key != "" and choose(alias, session_key) != alias.version
            version = self._versions.by_id(connection, second_id if is_second else version_id)
            # A candidate that was found bad while it is tried must not take its share of sessions down.
            if is_second and version.state not in SERVABLE:
                is_second = False
                version = self._versions.by_id(connection, version_id)
        require_usable(version, by_alias=ref.alias is not None)
        found = ResolvedAdapter(version, ref.alias or "", generation, canary=is_second)
        if alias is None:
            self._found.keep(ref, found, stamp)
        return _for_base(found, ref, base_digest)

    def remembered(self, ref: AdapterRef, base_digest: str | None = None) -> ResolvedAdapter | None:
        """What `resolve` would return to every session, where that is known without a transaction; never waits.

        Raises:
            BaseMismatch: the version was made for another base model.
        """
        found = self._found.get(ref)
        return None if found is None else _for_base(found, ref, base_digest)


def _for_base(found: ResolvedAdapter, ref: AdapterRef, base_digest: str | None) -> ResolvedAdapter:
    base = found.version.base
    if base_digest is not None and base.digest != base_digest:
        raise BaseMismatch(
            f"{ref} was made for base model {base.name} ({base.digest}), "
            f"expected {base_digest}; serve that base or publish the adapter for this one"
        )
    return found


def _split(connection: Connection, ref: AdapterRef) -> tuple[AliasRecord | None, int]:
    """Returns the alias and the row of its second version where sessions are split between two."""
    if ref.alias is None:
        return None, 0
    named = {"namespace": ref.namespace, "adapter": ref.adapter, "alias": ref.alias}
    row = connection.execute(_ALIAS_OF_NAME, named).mappings().one()
    if row["canary_version_id"] is None:
        return None, 0
    return alias_record(row), row["canary_version_id"]
