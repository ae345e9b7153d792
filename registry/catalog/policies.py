"""The policies of aliases: where they are kept, and the one check that every move passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog.alias_policy import (
    AliasPolicy,
    Evidence,
    Proposal,
    policy_from_document,
    unmet,
)
from switchyard.registry.catalog.alias_rows import Place
from switchyard.registry.catalog.namespaces import Namespaces
from switchyard.registry.catalog.versions import Versions
from switchyard.registry.errors import PolicyUnmet
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterName, check_alias
from switchyard.registry.strict_json import Json
from switchyard.registry.verdicts import Verdict

_policy = schema.alias_policy

EvidenceOf = Callable[[Connection, VersionRecord], Evidence]
"""Reads what is attested of a version, in the caller's transaction."""


class Policies:
    """Keeps the policies of aliases and holds every move to them.

    A policy belongs to a name, whether the alias exists or not. An alias without one has what its
    namespace says of protected aliases, or no rules.

    Args:
        index: where they are kept.
        versions: finds adapters.
        namespaces: their rules are the defaults.
        evidence_of: reads statements.
    """

    def __init__(self, index: Index, versions: Versions, namespaces: Namespaces, evidence_of: EvidenceOf) -> None:
        self._index = index
        self._versions = versions
        self._namespaces = namespaces
        self._evidence_of = evidence_of

    def get(self, name: AdapterName, alias: str) -> AliasPolicy:
        """Returns the policy that holds for an alias.

        Raises:
            RefSyntax: the alias is no name.
            AdapterNotFound: there is no such adapter.
        """
        check_alias(alias)
        with self._index.read() as connection:
            return self._effective(connection, name, self._versions.adapter_id(connection, name), alias)

    def set(self, name: AdapterName, alias: str, policy: AliasPolicy, *, actor: str) -> AliasPolicy:
        """Gives an alias a policy in place of the former one; an empty one lifts what the namespace says.

        Where the alias points now is not looked at: the policy holds from the next move on.

        Raises:
            RefSyntax: the alias is no name.
            AdapterNotFound: there is no such adapter.
        """
        check_alias(alias)
        with self._index.write() as connection:
            adapter_id = self._versions.adapter_id(connection, name)
            former = self._effective(connection, name, adapter_id, alias)
            at_s = self._index.now()
            values: dict[str, Json] = {"policy": policy.document(), "updated_by": actor, "updated_at_s": at_s}
            known = connection.execute(sa.update(_policy).where(_own(adapter_id, alias)).values(**values))
            if known.rowcount == 0:
                connection.execute(sa.insert(_policy).values(adapter_id=adapter_id, name=alias, **values))
            payload: dict[str, Json] = {"alias": alias, **values, "former": former.document()}
            change = Change(ChangeKind.ALIAS_POLICY, actor, name.namespace, name.adapter, payload)
            self._index.announce(connection, change)
        return policy

    def require(self, connection: Connection, moves: Sequence[tuple[Place, Proposal]]) -> None:
        """Holds moves to the policies of their aliases, in the transaction that makes them.

        Raises:
            PolicyUnmet: at least one misses something; everything that is missing is told.
        """
        missing = [verdict for place, proposal in moves for verdict in self._unmet(connection, place, proposal)]
        if missing:
            raise PolicyUnmet(tuple(missing))

    def _unmet(self, connection: Connection, place: Place, proposal: Proposal) -> tuple[Verdict, ...]:
        policy = self._effective(connection, place.name, place.adapter_id, place.alias)
        evidence = Evidence()
        if proposal.version is not None and policy.needs_evidence:
            evidence = self._evidence_of(connection, proposal.version)
        return unmet(policy, proposal, evidence)

    def _effective(self, connection: Connection, name: AdapterName, adapter_id: int, alias: str) -> AliasPolicy:
        query = sa.select(_policy.c.policy).where(_own(adapter_id, alias))
        document = connection.execute(query).scalar_one_or_none()
        if document is not None:
            return policy_from_document(document)
        return self._namespaces.get_within(connection, name.namespace).policy.alias_policy(alias)


def _own(adapter_id: int, alias: str) -> sa.ColumnElement[bool]:
    return sa.and_(_policy.c.adapter_id == adapter_id, _policy.c.name == alias)
