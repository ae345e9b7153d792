"""Aliases over the wire: moved by compare-and-swap, rolled back, split, guarded by a policy."""

# ruff: noqa: N802 - methods are named as the service names them.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.records import AliasEvent, AliasTarget
from switchyard.registry.refs import AdapterName
from switchyard.registry.strict_json import Json
from switchyard.server.calls.catalog import MAX_PAGE, page_limit
from switchyard.server.rpc.registry import messages
from switchyard.server.rpc.registry.calls import RegistryCalls, actor_of
from switchyard.server.rpc.registry.fields import MAX_REASON_CHARACTERS, FieldChecks

if TYPE_CHECKING:
    from switchyard.server.rpc.registry.calls import Context

    _Moving = pb.SetAliasRequest | pb.RollbackAliasRequest | pb.DeleteAliasRequest | pb.SetCanaryRequest


class AliasCalls(RegistryCalls):
    """The calls that move aliases, and those that tell where they are and were."""

    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> pb.SetAliasResponse:
        """Moves an alias."""
        evidence = _evidence(request.reason, request.evidence_json)
        move = await self._run(
            lambda: self._registry.aliases.move(
                AdapterName.parse(request.adapter),
                request.alias,
                request.version,
                expected_generation=_expected(request),
                actor=actor_of(context, request.actor),
                reason=request.reason,
                evidence=evidence,
            )
        )
        return pb.SetAliasResponse(alias=messages.alias_message(move.alias), previous_version=move.previous_version)

    async def BatchSetAliases(
        self, request: pb.BatchSetAliasesRequest, context: Context
    ) -> pb.BatchSetAliasesResponse:
        """Moves several aliases, all of them or none."""
        _evidence(request.reason, "")
        moves = await self._run(
            lambda: self._registry.aliases.move_many(
                [_target(target) for target in request.targets], actor=actor_of(context), reason=request.reason
            )
        )
        return pb.BatchSetAliasesResponse(moves=[messages.move_message(move) for move in moves])

    async def RollbackAlias(self, request: pb.RollbackAliasRequest, context: Context) -> pb.RollbackAliasResponse:
        """Moves an alias back to the version before that may still be served."""
        evidence = _evidence(request.reason, request.evidence_json)
        move = await self._run(
            lambda: self._registry.aliases.rollback(
                AdapterName.parse(request.adapter),
                request.alias,
                expected_generation=_expected(request),
                actor=actor_of(context),
                reason=request.reason,
                evidence=evidence,
            )
        )
        return pb.RollbackAliasResponse(move=messages.move_message(move))

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, context: Context) -> pb.DeleteAliasResponse:
        """Deletes an alias; its history stays."""
        _evidence(request.reason, "")
        event = await self._run(
            lambda: self._registry.aliases.delete(
                AdapterName.parse(request.adapter),
                request.alias,
                expected_generation=_expected(request),
                actor=actor_of(context),
                reason=request.reason,
            )
        )
        return pb.DeleteAliasResponse(event=messages.alias_event_message(event))

    async def SetCanary(self, request: pb.SetCanaryRequest, context: Context) -> pb.SetCanaryResponse:
        """Splits the traffic of an alias, or ends the split."""
        evidence = _evidence(request.reason, request.evidence_json)
        alias = await self._run(
            lambda: self._registry.aliases.set_canary(
                AdapterName.parse(request.adapter),
                request.alias,
                request.version,
                request.percent,
                expected_generation=_expected(request),
                actor=actor_of(context),
                reason=request.reason,
                evidence=evidence,
            )
        )
        return pb.SetCanaryResponse(alias=messages.alias_message(alias))

    async def ListAliases(self, request: pb.ListAliasesRequest, context: Context) -> pb.ListAliasesResponse:
        """Lists where the aliases of an adapter point."""
        del context
        aliases = await self._run(lambda: self._registry.aliases.all(AdapterName.parse(request.adapter)))
        return pb.ListAliasesResponse(aliases=[messages.alias_message(alias) for alias in aliases])

    async def ListAliasHistory(
        self, request: pb.ListAliasHistoryRequest, context: Context
    ) -> pb.ListAliasHistoryResponse:
        """Lists the moves of one alias, newest first, one page."""
        del context
        before = _generation(request.page_token)

        def read(limit: int) -> tuple[Sequence[AliasEvent], str]:
            history = self._registry.alias_history(AdapterName.parse(request.adapter), request.alias)
            rest = [event for event in history if before is None or event.generation < before]
            return rest[:limit], str(rest[limit - 1].generation) if len(rest) > limit else ""

        limit = page_limit(request.page_size, MAX_PAGE)
        events, token = await self._page(read, messages.alias_event_message, limit)
        return pb.ListAliasHistoryResponse(events=events, next_page_token=token)


def _expected(request: _Moving) -> int | None:
    return request.expected_generation if request.HasField("expected_generation") else None


def _target(target: pb.AliasTarget) -> AliasTarget:
    expected = target.expected_generation if target.HasField("expected_generation") else None
    return AliasTarget(AdapterName.parse(target.adapter), target.alias, target.version, expected)


def _generation(page_token: str) -> int | None:
    if page_token and not (page_token.isascii() and page_token.isdecimal() and len(page_token) < 19):
        raise ArgumentInvalid("page_token is not one that this call gave out; begin again without it")
    return int(page_token) if page_token else None


def _evidence(reason: str, text: str) -> Mapping[str, Json]:
    """The evidence of a move, once it and the reason are what they may be."""
    checks = FieldChecks()
    checks.text("reason", reason, MAX_REASON_CHARACTERS)
    evidence = checks.json_object("evidence_json", text)
    checks.refuse_faults()
    return evidence
