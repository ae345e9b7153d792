"""Finding over the wire: versions by a query, what differs between two, what something reached."""

# ruff: noqa: N802 - methods are named as the service names them.
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.catalog.diff import FieldChange, ModuleDiff
from switchyard.registry.catalog.impact import Impact
from switchyard.registry.catalog.query import VersionQuery
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.refs import AdapterRef
from switchyard.server.calls.catalog import page_limit
from switchyard.server.rpc.registry import messages
from switchyard.server.rpc.registry.calls import RegistryCalls
from switchyard.server.rpc.registry.fields import MAX_QUERY_CHARACTERS, FieldChecks

if TYPE_CHECKING:
    from switchyard.server.rpc.registry.calls import Context


class FindingCalls(RegistryCalls):
    """The calls of whoever does not know the name yet, or wants to know more than it says."""

    async def SearchVersions(self, request: pb.SearchVersionsRequest, context: Context) -> pb.SearchVersionsResponse:
        """Finds the versions that a query fits, one page."""
        del context
        checks = FieldChecks()
        checks.size("query", len(request.query), 0, MAX_QUERY_CHARACTERS, "characters")
        checks.refuse_faults()
        query = VersionQuery.parse(request.query)
        versions, token = await self._page(
            lambda limit: self._registry.search.versions(query, limit, request.page_token),
            messages.version_message,
            page_limit(request.page_size),
        )
        return pb.SearchVersionsResponse(versions=versions, next_page_token=token)

    async def CompareVersions(
        self, request: pb.CompareVersionsRequest, context: Context
    ) -> pb.CompareVersionsResponse:
        """Tells what differs between two versions."""
        del context
        found = await self._run(
            lambda: self._registry.diff.compare(AdapterRef.parse(request.ref), AdapterRef.parse(request.other_ref))
        )
        return pb.CompareVersionsResponse(
            version=messages.version_message(found.a),
            other_version=messages.version_message(found.b),
            config=[_field(change) for change in found.config],
            lineage=[_field(change) for change in found.lineage],
            modules=[_module(module) for module in found.modules],
        )

    async def ListImpactedVersions(
        self, request: pb.ListImpactedVersionsRequest, context: Context
    ) -> pb.ListImpactedVersionsResponse:
        """Lists the versions that something reached, the nearest first, one page."""
        del context
        start = _start(request.page_token)

        def read(limit: int) -> tuple[Sequence[Impact], str]:
            reached = self._registry.impact.of(request.digest)
            more = start + limit < len(reached)
            return reached[start : start + limit], str(start + limit) if more else ""

        versions, token = await self._page(read, _impact, page_limit(request.page_size))
        return pb.ListImpactedVersionsResponse(versions=versions, next_page_token=token)


def _start(page_token: str) -> int:
    if page_token and not (page_token.isascii() and page_token.isdecimal() and len(page_token) < 10):
        raise ArgumentInvalid("page_token is not one that this call gave out; begin again without it")
    return int(page_token or 0)


def _impact(impact: Impact) -> pb.ImpactedVersion:
    return pb.ImpactedVersion(
        version=messages.version_message(impact.version), relation=impact.relation, distance=impact.distance
    )


def _field(change: FieldChange) -> pb.FieldChange:
    return pb.FieldChange(field=change.field, before_json=change.before_json, after_json=change.after_json)


def _module(module: ModuleDiff) -> pb.ModuleDiff:
    return pb.ModuleDiff(
        module=module.module,
        norm=module.norm_a,
        other_norm=module.norm_b,
        rank=module.rank_a,
        other_rank=module.rank_b,
        cosine=module.cosine,
    )
