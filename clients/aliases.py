"""What can be done with aliases beyond promoting: roll back, split, move together, protect, delete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from switchyard.clients import record_messages as messages
from switchyard.clients import records
from switchyard.clients.calls import Connection
from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import registry_pb2_grpc as stubs


@dataclass(frozen=True, slots=True)
class AliasTarget:
    """Where one alias shall point.

    Attributes:
        adapter: `ns/name`, no selector.
        alias: name of the alias; made when new.
        version: number that it shall point at.
        expected_generation: generation that it must have now; 0 when it must be new; None takes any.
    """

    adapter: str
    alias: str
    version: int
    expected_generation: int | None = None


@dataclass(frozen=True, slots=True)
class AliasPolicy:
    """What a version needs before an alias may point to it, and who may move it.

    Attributes:
        protected: whether the rest applies, and a move must name the generation it expects.
        required_statements: kinds of statements that the version must have, e.g. `evaluation`.
        distinct_promoter: whoever published the version may not move the alias to it.
        signers: identities of which one must have signed the version; empty takes any.
        min_approvals: approvals by different people, the publisher not among them.
    """

    protected: bool = False
    required_statements: tuple[str, ...] = ()
    distinct_promoter: bool = False
    signers: tuple[str, ...] = ()
    min_approvals: int = 0


class AliasCalls:
    """The calls about aliases, on the connection of a `RegistryClient`.

    Every change is sent once: a lost reply is not answered by a second move.
    """

    def __init__(self, connection: Connection, stub: stubs.RegistryServiceStub) -> None:
        self._connection = connection
        self._stub = stub

    def all(self, adapter: str) -> list[records.Alias]:
        """Returns the aliases of `ns/name` by name.

        Raises:
            NotFound: no such adapter.
        """
        found = self._connection.unary(self._stub.ListAliases, pb.ListAliasesRequest(adapter=adapter))
        return [messages.alias_from(one) for one in found.aliases]

    def move_together(self, targets: Sequence[AliasTarget], *, reason: str = "") -> list[records.AliasMove]:
        """Moves several aliases, of several adapters if need be: all of them or none.

        Raises:
            Conflict: an alias has another generation than expected; nothing has moved.
            NotFound: no such adapter or version.
            PreconditionFailed: a policy is not met, or a version may not be served.
        """
        request = pb.BatchSetAliasesRequest(reason=reason)
        for one in targets:
            request.targets.add(
                adapter=one.adapter,
                alias=one.alias,
                version=one.version,
                expected_generation=one.expected_generation,
            )
        moved = self._connection.unary(self._stub.BatchSetAliases, request, repeatable=False)
        return [messages.alias_move_from(one) for one in moved.moves]

    def roll_back(
        self,
        adapter: str,
        alias: str,
        *,
        expected_generation: int | None = None,
        reason: str = "",
        evidence: str = "",
    ) -> records.AliasMove:
        """Points an alias at the version that it had before, leaving out those that may not be served.

        Args:
            adapter: `ns/name`, no selector.
            alias: name of the alias.
            expected_generation: generation that it must have now; None takes any.
            reason: why, kept in the history.
            evidence: JSON object with what was measured, kept in the history.

        Raises:
            NotFound: no such adapter or alias.
            PreconditionFailed: there is no earlier version to go back to.
            Conflict: the alias has another generation.
        """
        request = pb.RollbackAliasRequest(
            adapter=adapter,
            alias=alias,
            expected_generation=expected_generation,
            reason=reason,
            evidence_json=evidence,
        )
        moved = self._connection.unary(self._stub.RollbackAlias, request, repeatable=False)
        return messages.alias_move_from(moved.move)

    def delete(self, adapter: str, alias: str, *, expected_generation: int | None = None, reason: str = "") -> None:
        """Deletes an alias; its history stays, and a new alias of the name counts on.

        Raises:
            NotFound: no such adapter or alias.
            Conflict: the alias has another generation.
        """
        request = pb.DeleteAliasRequest(
            adapter=adapter, alias=alias, expected_generation=expected_generation, reason=reason
        )
        self._connection.unary(self._stub.DeleteAlias, request, repeatable=False)

    def split(
        self,
        adapter: str,
        alias: str,
        version: int,
        percent: int,
        *,
        expected_generation: int | None = None,
        reason: str = "",
    ) -> records.Alias:
        """Sends a part of an alias's traffic to a second version; the same session key stays with the same one.

        Args:
            adapter: `ns/name`, no selector.
            alias: name of the alias.
            version: number of the second version.
            percent: its share, 1 to 99; 0 ends the split.
            expected_generation: generation that the alias must have now; None takes any.
            reason: why, kept in the history.

        Raises:
            NotFound: no such adapter, alias or version.
            PreconditionFailed: the version may not be served, or a policy is not met.
            Conflict: the alias has another generation.
        """
        request = pb.SetCanaryRequest(
            adapter=adapter,
            alias=alias,
            version=version,
            percent=percent,
            expected_generation=expected_generation,
            reason=reason,
        )
        moved = self._connection.unary(self._stub.SetCanary, request, repeatable=False)
        return messages.alias_from(moved.alias)

    def policy(self, adapter: str, alias: str) -> AliasPolicy:
        """Returns the rules of an alias; an alias without any is not protected.

        Raises:
            NotFound: no such adapter.
        """
        request = pb.GetAliasPolicyRequest(adapter=adapter, alias=alias)
        return _policy_from(self._connection.unary(self._stub.GetAliasPolicy, request).policy)

    def set_policy(self, adapter: str, alias: str, policy: AliasPolicy) -> AliasPolicy:
        """Sets the rules of an alias, which need not exist yet.

        Raises:
            NotFound: no such adapter.
            RequestInvalid: a rule makes no sense.
        """
        request = pb.SetAliasPolicyRequest(adapter=adapter, alias=alias, policy=_policy_message(policy))
        return _policy_from(self._connection.unary(self._stub.SetAliasPolicy, request).policy)


def _policy_message(policy: AliasPolicy) -> pb.AliasPolicy:
    return pb.AliasPolicy(
        protected=policy.protected,
        required_statements=policy.required_statements,
        distinct_promoter=policy.distinct_promoter,
        signers=policy.signers,
        min_approvals=policy.min_approvals,
    )


def _policy_from(message: pb.AliasPolicy) -> AliasPolicy:
    return AliasPolicy(
        protected=message.protected,
        required_statements=tuple(message.required_statements),
        distinct_promoter=message.distinct_promoter,
        signers=tuple(message.signers),
        min_approvals=message.min_approvals,
    )
