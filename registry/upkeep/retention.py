"""Retention: which versions a namespace's policy does not keep, and their soft deletion.

The policy is pure. What it lets go can be undeleted until the collector purges it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog.namespace_policy import NamespacePolicy
from switchyard.registry.catalog.namespaces import Namespaces
from switchyard.registry.catalog.state_rules import GONE
from switchyard.registry.catalog.states import States
from switchyard.registry.errors import StateRefused, VersionInUse
from switchyard.registry.index import schema
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import VersionState
from switchyard.registry.refs import AdapterName
from switchyard.registry.upkeep.row_checks import named_versions

KEEP_TAG = "keep"
"""A version with a tag of this key stays, whatever its value says."""

_DAY_S = 86_400.0
# A quarantined version is evidence; whoever decides about it deletes it.
_MAY_GO = frozenset({VersionState.READY, VersionState.DEPRECATED, VersionState.YANKED})
_version, _alias, _tag = schema.version, schema.alias, schema.version_tag


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version of one adapter as retention sees it.

    Attributes:
        number: its number.
        created_at_s: when it was published, in seconds since the epoch.
        state: its state.
        held: whether an alias, a split or the tag `keep` holds it.
    """

    number: int
    created_at_s: float
    state: VersionState
    held: bool


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What retention deleted, or would delete.

    Attributes:
        namespace: where.
        dry_run: whether nothing was changed.
        deleted: versions as `ns/name:7`.
        skipped: versions that came into use meanwhile and stay.
    """

    namespace: str
    dry_run: bool
    deleted: tuple[str, ...]
    skipped: tuple[str, ...] = ()


def unkept(candidates: Sequence[Candidate], policy: NamespacePolicy, now_s: float) -> list[int]:
    """Returns the numbers of the versions of one adapter that a policy does not keep, sorted."""
    if policy.keep_last == 0:
        return []
    there = sorted((one for one in candidates if one.state not in GONE), key=lambda one: one.number)
    older = there[: -policy.keep_last]
    before_s = now_s - policy.keep_days * _DAY_S
    return [one.number for one in older if one.state in _MAY_GO and not one.held and one.created_at_s <= before_s]


class Retention:
    """Applies the policies of namespaces.

    Args:
        index: where versions are.
        namespaces: their policies.
        states: deletes.
    """

    def __init__(self, index: Index, namespaces: Namespaces, states: States) -> None:
        self._index = index
        self._namespaces = namespaces
        self._states = states

    def apply(self, namespace: str, *, dry_run: bool = True, actor: str) -> RetentionReport:
        """Deletes what the policy of a namespace does not keep; it can be undeleted for a while.

        Args:
            namespace: where.
            dry_run: only tell what would go.
            actor: who deletes.

        Raises:
            NamespaceNotFound: nothing was ever published there.
        """
        with self._index.read() as connection:
            policy = self._namespaces.get_within(connection, namespace).policy
            found = _candidates(connection, namespace)
        now_s = self._index.now()
        going = [(name, number) for name, versions in found for number in unkept(versions, policy, now_s)]
        reason = f"retention of {namespace}: keep_last {policy.keep_last}, keep_days {policy.keep_days:g}"
        deleted, skipped = list[str](), list[str]()
        for name, number in going:
            try:
                if not dry_run:
                    self._states.move(name, number, VersionState.DELETED, actor=actor, reason=reason)
            except (VersionInUse, StateRefused):
                skipped.append(f"{name}:{number}")
            else:
                deleted.append(f"{name}:{number}")
        return RetentionReport(namespace, dry_run, tuple(deleted), tuple(skipped))


def _candidates(connection: Connection, namespace: str) -> list[tuple[AdapterName, list[Candidate]]]:
    here = named_versions(_version.c.id, _version.c.created_at_s, _version.c.state)
    query = here.where(schema.namespace.c.name == namespace).order_by(schema.adapter.c.name, _version.c.version)
    rows = connection.execute(query).mappings().all()
    held = _held(connection)
    found: list[tuple[AdapterName, list[Candidate]]] = []
    for adapter, versions in groupby(rows, lambda row: str(row["adapter"])):
        candidates = [
            Candidate(row["version"], row["created_at_s"], VersionState(row["state"]), row["id"] in held)
            for row in versions
        ]
        found.append((AdapterName(namespace, adapter), candidates))
    return found


def _held(connection: Connection) -> set[int]:
    """Rows of all versions that an alias, a split or the tag holds; few beside all versions."""
    aliased = sa.select(_alias.c.version_id)
    split = sa.select(_alias.c.canary_version_id).where(_alias.c.canary_version_id.is_not(None))
    tagged = sa.select(_tag.c.version_id).where(_tag.c.key == KEEP_TAG)
    return {int(row[0]) for query in (aliased, split, tagged) for row in connection.execute(query)}
