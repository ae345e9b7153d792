"""`switchyard.admin.v1`: what an operator sees and may do."""

# ruff: noqa: N802 - methods are named as the service names them.
from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from switchyard.proto.admin.v1 import admin_pb2 as pb
from switchyard.proto.admin.v1 import admin_pb2_grpc
from switchyard.registry.errors import RegistryError
from switchyard.registry.refs import AdapterRef
from switchyard.server.adapters.capacity import Place, capacity
from switchyard.server.adapters.tiers import ResidencyLimits
from switchyard.server.calls.admission import Admission
from switchyard.server.calls.draft import AdapterTarget
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.calls.ports import AdapterMemory, GenerationEngine
from switchyard.server.engine.types import AdapterSelection
from switchyard.server.errors import FieldFault, InvalidField, ServerError
from switchyard.server.rpc import convert

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

MAX_GRACE_S = 86_400.0
MAX_PLANNED = 1024


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What does not change while the server runs.

    Attributes:
        version: of this software.
        base_name: name of the resident base model.
        base_digest: its identity.
        quantization: label of its quantisation.
        max_sequences: sequences in one batch.
        max_context_tokens: tokens that prompt and answer may have together.
        max_rank: largest rank that an adapter slot holds.
        adapter_slots: adapters that can be resident at once.
        host_cache_bytes: memory for adapters that are not resident.
        adapter_bytes: bytes that resident adapters may take together; 0 for as many as the slots hold.
    """

    version: str
    base_name: str
    base_digest: str
    quantization: str
    max_sequences: int
    max_context_tokens: int
    max_rank: int
    adapter_slots: int
    host_cache_bytes: int
    adapter_bytes: int = 0

    @property
    def residency(self) -> ResidencyLimits:
        """Bounds of the tiers that adapters are in."""
        return ResidencyLimits(self.adapter_slots, self.host_cache_bytes, self.adapter_bytes or None)


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Shows and moves; never decides who may answer a request."""

    def __init__(
        self,
        facts: ServerFacts,
        admission: Admission,
        engine: GenerationEngine,
        memory: AdapterMemory,
        *,
        rss_bytes: Callable[[], int],
        fingerprint: Callable[[], Awaitable[str]],
        begin_drain: Callable[[float | None], None],
    ) -> None:
        """Wires the parts.

        Args:
            facts: what does not change.
            admission: resolves refs as it does for requests.
            engine: how busy it is.
            memory: the adapters in memory.
            rss_bytes: measures what serves.
            fingerprint: digest over the base weights as they are in memory now; may take a while.
            begin_drain: starts to stop the server, with a grace in seconds or the default.
        """
        self._facts = facts
        self._admission = admission
        self._engine = engine
        self._memory = memory
        self._rss_bytes = rss_bytes
        self._fingerprint = fingerprint
        self._begin_drain = begin_drain

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:
        """Says what this server is."""
        del request, context
        facts = self._facts
        return pb.GetServerInfoResponse(
            version=facts.version,
            base_name=facts.base_name,
            base_digest=facts.base_digest,
            quantization=facts.quantization,
            max_sequences=facts.max_sequences,
            max_context_tokens=facts.max_context_tokens,
            max_rank=facts.max_rank,
            adapter_slots=facts.adapter_slots,
            host_cache_bytes=facts.host_cache_bytes,
            base_fingerprint=await self._fingerprint(),
            adapter_bytes=facts.adapter_bytes,
        )

    async def GetLoad(self, request: pb.GetLoadRequest, context: Context) -> pb.GetLoadResponse:
        """Says how busy it is."""
        del request, context
        statuses = list(await self._memory.statuses())
        return convert.load_message(self._engine.load(), statuses, self._rss_bytes())

    async def ListAdapterStates(
        self, request: pb.ListAdapterStatesRequest, context: Context
    ) -> pb.ListAdapterStatesResponse:
        """Lists the adapters in memory or on their way."""
        del request, context
        statuses = await self._memory.statuses()
        return pb.ListAdapterStatesResponse(adapters=[convert.adapter_status_message(s) for s in statuses])

    async def LoadAdapter(self, request: pb.LoadAdapterRequest, context: Context) -> pb.LoadAdapterResponse:
        """Brings an adapter into memory ahead of its first request."""
        del context
        selection = await self._selection(request.ref)
        status = await self._memory.load(selection)
        return pb.LoadAdapterResponse(status=convert.adapter_status_message(status))

    async def UnloadAdapter(self, request: pb.UnloadAdapterRequest, context: Context) -> pb.UnloadAdapterResponse:
        """Takes an adapter out of memory; the answer says where it was, and has no state when it was nowhere."""
        del context
        selection = await self._selection(request.ref)
        status = await self._memory.unload(selection.key)
        if status is None:
            return pb.UnloadAdapterResponse(status=pb.AdapterStatus(digest=selection.key))
        return pb.UnloadAdapterResponse(status=convert.adapter_status_message(status))

    async def Plan(self, request: pb.PlanRequest, context: Context) -> pb.PlanResponse:
        """Says what would fit; what cannot be served is told beside what can."""
        del context
        if not 0 < len(request.refs) <= MAX_PLANNED:
            message = f"{len(request.refs)} refs; name 1 to {MAX_PLANNED} adapters"
            raise InvalidField((FieldFault("refs", FieldReason.LIMIT, message),))
        found = [await self._found(ref) for ref in request.refs]
        selections = {one.key: one for one in found if isinstance(one, AdapterSelection)}
        wanted = {key: sum(part.weights_bytes for part in one.parts) for key, one in selections.items()}
        statuses = list(await self._memory.statuses())
        planned = capacity(wanted, statuses, self._facts.residency)
        in_memory = {status.key for status in statuses if status.host_bytes}
        adapters = [
            convert.planned_message(ref, one, planned, in_memory)
            for ref, one in zip(request.refs, found, strict=True)
        ]
        slot = convert.PLACES[Place.SLOT]
        return pb.PlanResponse(
            adapters=adapters,
            fits=all(adapter.place == slot for adapter in adapters),
            needed_slots=planned.needed_slots,
            needed_host_bytes=planned.needed_bytes,
            leaving=planned.leaving,
        )

    async def _found(self, ref: str) -> AdapterSelection | ServerError | RegistryError:
        try:
            return await self._selection(ref)
        except (ServerError, RegistryError) as error:
            return error

    async def Drain(self, request: pb.DrainRequest, context: Context) -> pb.DrainResponse:
        """Starts to stop the server once this answer is sent."""
        if not 0 <= request.grace_s <= MAX_GRACE_S:
            message = f"{request.grace_s:g} is not from 0 to {MAX_GRACE_S:g} seconds; 0 takes the server's default"
            raise InvalidField((FieldFault("grace_s", FieldReason.LIMIT, message),))
        load = self._engine.load()
        context.add_done_callback(lambda _: self._begin_drain(request.grace_s or None))  # type: ignore[arg-type]
        return pb.DrainResponse(running_requests=load.running_sequences + load.waiting_requests)

    async def _selection(self, ref: str) -> AdapterSelection:
        AdapterRef.parse(ref)
        selection = await self._admission.select(AdapterTarget(ref))
        if selection is None:
            raise RuntimeError("an adapter target was resolved to the base model")
        return selection
