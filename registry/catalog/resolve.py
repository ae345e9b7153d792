"""From a ref to the one version it names now."""

from __future__ import annotations

from switchyard.registry.catalog.state_rules import require_usable
from switchyard.registry.catalog.versions import Versions
from switchyard.registry.errors import BaseMismatch
from switchyard.registry.index.database import Index
from switchyard.registry.records import ResolvedAdapter
from switchyard.registry.refs import AdapterRef


def resolve(index: Index, versions: Versions, ref: AdapterRef, base_digest: str | None) -> ResolvedAdapter:
    """Reads a ref in one transaction, so that alias, generation and version belong together.

    Args:
        index: where to read.
        versions: how to read.
        ref: what was asked for.
        base_digest: the base model that will serve it, or None to take any.

    Raises:
        AdapterNotFound, VersionNotFound, AliasNotFound: nothing of that name.
        VersionYanked, VersionQuarantined, VersionDeleted: its state forbids it.
        BaseMismatch: the version was made for another base model.
    """
    with index.read() as connection:
        version_id, generation = versions.find(connection, ref)
        version = versions.by_id(connection, version_id)
    require_usable(version, by_alias=ref.alias is not None)
    if base_digest is not None and version.base.digest != base_digest:
        raise BaseMismatch(
            f"{ref} was made for base model {version.base.name} ({version.base.digest}), "
            f"expected {base_digest}; serve that base or publish the adapter for this one"
        )
    return ResolvedAdapter(version, ref.alias or "", generation)
