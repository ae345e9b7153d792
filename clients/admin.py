"""Operating a running server: what it is, what it does, which adapters it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Final, Self

from switchyard.clients import retry
from switchyard.clients.calls import Connection
from switchyard.clients.channel import DEFAULT_ADDRESS, ChannelOptions
from switchyard.proto.admin.v1 import admin_pb2 as pb
from switchyard.proto.admin.v1 import admin_pb2_grpc as stubs


class AdapterState(Enum):
    """Where an adapter is."""

    UNKNOWN = "unknown"
    """The server is newer than this client."""
    FETCHING = "fetching"
    """Being read and checked."""
    HOST = "host"
    """In host memory."""
    RESIDENT = "resident"
    """In an adapter slot, ready for a step."""
    FAILED = "failed"
    """Could not be loaded; retried later."""


class PlannedPlace(Enum):
    """Where an adapter would be if all of a plan were wanted at once."""

    UNKNOWN = "unknown"
    """The server is newer than this client."""
    SLOT = "slot"
    """In an adapter slot: any step can use it."""
    HOST = "host"
    """In host memory, and in a slot as soon as another leaves one."""
    REGISTRY = "registry"
    """Nowhere for long: read again whenever it is used."""
    NOWHERE = "nowhere"
    """It cannot be served there."""


_PLACE_OF_NUMBER: Final = {
    pb.PLANNED_PLACE_SLOT: PlannedPlace.SLOT,
    pb.PLANNED_PLACE_HOST: PlannedPlace.HOST,
    pb.PLANNED_PLACE_REGISTRY: PlannedPlace.REGISTRY,
    pb.PLANNED_PLACE_NOWHERE: PlannedPlace.NOWHERE,
}
_STATE_OF_NUMBER: Final = {
    pb.ADAPTER_STATE_FETCHING: AdapterState.FETCHING,
    pb.ADAPTER_STATE_HOST: AdapterState.HOST,
    pb.ADAPTER_STATE_RESIDENT: AdapterState.RESIDENT,
    pb.ADAPTER_STATE_FAILED: AdapterState.FAILED,
}


@dataclass(frozen=True, slots=True)
class AdapterStatus:
    """One adapter known to the server.

    Attributes:
        digest: version digest, or recipe digest of a composition.
        state: where it is.
        host_bytes: bytes in host memory.
        device_bytes: bytes in its adapter slot.
        pins: sequences that use it now.
        error_reason: reason of the failure; empty otherwise.
        retry_after_s: seconds until a failed one is tried again.
    """

    digest: str
    state: AdapterState
    host_bytes: int
    device_bytes: int
    pins: int
    error_reason: str
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class PlannedAdapter:
    """One adapter of a plan.

    Attributes:
        ref: as it was asked for.
        digest: the version that it names now; empty when it names none that can be served.
        place: where it would be.
        size_bytes: in memory if it is there now, else of its files.
        in_memory: whether it is in memory now.
        error_reason: why it cannot be served; empty otherwise.
        message: the same in words.
    """

    ref: str
    digest: str
    place: PlannedPlace
    size_bytes: int
    in_memory: bool
    error_reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """What would fit on a server.

    Attributes:
        adapters: in the order in which they were asked for.
        fits: whether all would be in slots.
        needed_slots: slots that all that can be served would take.
        needed_host_bytes: host memory that they would take.
        leaving: digests in memory now that were not asked for and would leave it.
    """

    adapters: tuple[PlannedAdapter, ...]
    fits: bool
    needed_slots: int
    needed_host_bytes: int
    leaving: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server is; fixed while it runs.

    Attributes:
        version: release of the server.
        base_name: name of its base model.
        base_digest: identity of its base model.
        quantization: quantisation of the resident base.
        max_sequences: sequences that run at once.
        max_context_tokens: prompt and answer together.
        max_rank: largest adapter rank.
        adapter_slots: adapters resident at once.
        host_cache_bytes: budget of the host cache.
        base_fingerprint: digest over a sample of the resident base weights.
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
    base_fingerprint: str
    adapter_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """What a server is doing now.

    Attributes:
        waiting_requests: accepted and not yet running.
        running_sequences: in the batch.
        kv_rows_used: KV rows in use.
        kv_rows_total: KV rows there are.
        adapters_resident: adapters in a slot.
        adapter_host_bytes: bytes of adapters in host memory.
        adapter_device_bytes: bytes of adapters in slots.
        rss_bytes: memory of the process.
        draining: whether new requests are refused.
        kv_blocks_running: blocks of KV memory that running sequences hold.
        kv_blocks_cached: blocks that cached beginnings of prompts take.
        kv_blocks_total: blocks there are.
        waiting_for: sequences that the last step left out, by why, in words.
    """

    waiting_requests: int
    running_sequences: int
    kv_rows_used: int
    kv_rows_total: int
    adapters_resident: int
    adapter_host_bytes: int
    adapter_device_bytes: int
    rss_bytes: int
    draining: bool
    kv_blocks_running: int
    kv_blocks_cached: int
    kv_blocks_total: int
    waiting_for: Mapping[str, int]


class AdminClient:
    """Operates one server. Safe to share between threads."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        options: ChannelOptions | None = None,
        policy: retry.RetryPolicy | None = None,
    ) -> None:
        """Makes a client; its first call connects.

        Args:
            address: `host:port` or `unix:/path`.
            options: deadlines, keepalive and limits.
            policy: when refused calls are sent again.

        Raises:
            AddressInvalid: `address` has no known form.
        """
        self._connection = Connection(address, options, policy)
        self._stub = stubs.AdminServiceStub(self._connection.channel)  # type: ignore[no-untyped-call]

    def info(self) -> ServerInfo:
        """Returns what the server is.

        Raises:
            ClientError: the server cannot tell.
        """
        found = self._connection.unary(self._stub.GetServerInfo, pb.GetServerInfoRequest())
        return ServerInfo(
            version=found.version,
            base_name=found.base_name,
            base_digest=found.base_digest,
            quantization=found.quantization,
            max_sequences=found.max_sequences,
            max_context_tokens=found.max_context_tokens,
            max_rank=found.max_rank,
            adapter_slots=found.adapter_slots,
            host_cache_bytes=found.host_cache_bytes,
            base_fingerprint=found.base_fingerprint,
            adapter_bytes=found.adapter_bytes,
        )

    def load(self) -> ServerLoad:
        """Returns what the server is doing now.

        Raises:
            ClientError: the server cannot tell.
        """
        found = self._connection.unary(self._stub.GetLoad, pb.GetLoadRequest())
        return ServerLoad(
            waiting_requests=found.waiting_requests,
            running_sequences=found.running_sequences,
            kv_rows_used=found.kv_rows_used,
            kv_rows_total=found.kv_rows_total,
            adapters_resident=found.adapters_resident,
            adapter_host_bytes=found.adapter_host_bytes,
            adapter_device_bytes=found.adapter_device_bytes,
            rss_bytes=found.rss_bytes,
            draining=found.draining,
            kv_blocks_running=found.kv_blocks_running,
            kv_blocks_cached=found.kv_blocks_cached,
            kv_blocks_total=found.kv_blocks_total,
            waiting_for={one.explanation: one.sequences for one in found.waiting},
        )

    def adapters(self) -> list[AdapterStatus]:
        """Returns the adapters that the server knows, with the tier they are in.

        Raises:
            ClientError: the server cannot tell.
        """
        found = self._connection.unary(self._stub.ListAdapterStates, pb.ListAdapterStatesRequest())
        return [_status_from(one) for one in found.adapters]

    def load_adapter(self, ref: str) -> AdapterStatus:
        """Brings an adapter into memory ahead of its first request.

        Raises:
            NotFound: no such adapter, version or alias.
            Unavailable: it cannot be loaded now.
        """
        response = self._connection.unary(self._stub.LoadAdapter, pb.LoadAdapterRequest(ref=ref))
        return _status_from(response.status)

    def unload_adapter(self, ref: str) -> AdapterStatus:
        """Takes an adapter out of memory once nothing uses it.

        Raises:
            ClientError: it is in use, or not there.
        """
        response = self._connection.unary(self._stub.UnloadAdapter, pb.UnloadAdapterRequest(ref=ref))
        return _status_from(response.status)

    def plan(self, refs: Sequence[str]) -> ServerPlan:
        """Asks where each of several adapters would be if all were wanted at once; nothing is loaded.

        Args:
            refs: 1 to 1024 adapters, the most important first.

        Raises:
            ClientError: the server cannot tell.
        """
        found = self._connection.unary(self._stub.Plan, pb.PlanRequest(refs=refs))
        return ServerPlan(
            adapters=tuple(_planned_from(one) for one in found.adapters),
            fits=found.fits,
            needed_slots=found.needed_slots,
            needed_host_bytes=found.needed_host_bytes,
            leaving=tuple(found.leaving),
        )

    def drain(self, grace_s: float = 0.0) -> int:
        """Has the server refuse new requests, finish the running ones and stop.

        Args:
            grace_s: seconds that running requests may take; 0 takes the server's default.

        Returns:
            Requests that were running when the drain began.

        Raises:
            ClientError: the server cannot drain.
        """
        found = self._connection.unary(self._stub.Drain, pb.DrainRequest(grace_s=grace_s), repeatable=False)
        return int(found.running_requests)

    def close(self) -> None:
        """Closes the connection; running calls are cancelled."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _planned_from(message: pb.PlannedAdapter) -> PlannedAdapter:
    return PlannedAdapter(
        ref=message.ref,
        digest=message.digest,
        place=_PLACE_OF_NUMBER.get(message.place, PlannedPlace.UNKNOWN),
        size_bytes=message.size_bytes,
        in_memory=message.in_memory,
        error_reason=message.error_reason,
        message=message.message,
    )


def _status_from(message: pb.AdapterStatus) -> AdapterStatus:
    return AdapterStatus(
        digest=message.digest,
        state=_STATE_OF_NUMBER.get(message.state, AdapterState.UNKNOWN),
        host_bytes=message.host_bytes,
        device_bytes=message.device_bytes,
        pins=message.pins,
        error_reason=message.error_reason,
        retry_after_s=message.retry_after_s,
    )
