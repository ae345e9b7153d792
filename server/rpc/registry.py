"""`switchyard.registry.v1`: the registry library over gRPC.

The library blocks, so every call runs on a bounded pool. No thread is held by
a slow caller: upload bytes are gathered on the event loop and written in
pieces, and a download reads its next piece when the last one is gone.
"""

# ruff: noqa: N802 - methods are named as the service names them.
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import registry_pb2_grpc
from switchyard.registry.errors import ArgumentInvalid, UploadOffset
from switchyard.registry.records import UploadProgress
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.server.errors import Cancelled
from switchyard.server.rpc import registry_messages as convert
from switchyard.server.rpc.catalog import page_limit

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

CHUNK_BYTES: Final = 1 << 20
"""Largest chunk of an upload or download; well below the 4 MiB that one message may have."""

_GATHERED_BYTES: Final = 4 * CHUNK_BYTES
"""Bytes of one upload held in memory before they are written."""

ACTOR_KEY: Final = "switchyard-actor"
"""Metadata in which a caller says who it is; recorded, not trusted."""

_ANONYMOUS: Final = "local"
_ACTOR_CHARACTERS: Final = 128

_T = TypeVar("_T")


class RegistryServicer(registry_pb2_grpc.RegistryServiceServicer):
    """Converts, calls, converts; every decision is the library's."""

    def __init__(self, registry: Registry, executor: Executor, *, stall_s: float = 60.0) -> None:
        """Wires the parts.

        Args:
            registry: the library.
            executor: a bounded pool; calls wait on it for disk and locks.
            stall_s: seconds that a caller may send or take nothing.
        """
        self._registry = registry
        self._executor = executor
        self._stall_s = stall_s

    async def BeginPublish(self, request: pb.BeginPublishRequest, context: Context) -> pb.BeginPublishResponse:
        """Opens or resumes a publish."""
        session = await self._run(
            lambda: self._registry.begin_publish(
                AdapterName.parse(request.adapter),
                [convert.file_of(file) for file in request.files],
                base_digest=request.base_digest,
                lineage=convert.lineage_of(request.lineage),
                idempotency_key=request.idempotency_key,
                publisher=_actor(context),
                note=request.note,
            )
        )
        return pb.BeginPublishResponse(
            session_id=session.session_id,
            missing_digests=session.missing,
            chunk_bytes=CHUNK_BYTES,
            expire_time=convert.timestamp(session.expires_at_s),
            committed=convert.version_message(session.committed) if session.committed else None,
        )

    async def UploadBlob(
        self, request_iterator: AsyncIterator[pb.UploadBlobRequest], context: Context
    ) -> pb.UploadBlobResponse:
        """Writes the bytes of one blob from where it stands."""
        del context
        upload: _Upload | None = None
        while (message := await self._patiently(anext(request_iterator, None))) is not None:
            if upload is None:
                upload = _Upload(message.session_id, message.digest, message.offset)
            upload.add(message)
            if upload.gathered_bytes >= _GATHERED_BYTES:
                await self._write(upload)
        if upload is None:
            raise ArgumentInvalid("the upload has no message; the first one names session_id, digest and offset")
        progress = await self._write(upload)
        return pb.UploadBlobResponse(committed_bytes=progress.committed_bytes, complete=progress.complete)

    async def QueryUpload(self, request: pb.QueryUploadRequest, context: Context) -> pb.QueryUploadResponse:
        """Tells where an upload stands."""
        del context
        progress = await self._run(lambda: self._registry.query_upload(request.session_id, request.digest))
        return pb.QueryUploadResponse(committed_bytes=progress.committed_bytes, complete=progress.complete)

    async def CommitPublish(self, request: pb.CommitPublishRequest, context: Context) -> pb.CommitPublishResponse:
        """Verifies everything and makes the version visible."""
        expected = request.expected_generation if request.HasField("expected_generation") else None
        result = await self._run(
            lambda: self._registry.commit_publish(
                request.session_id,
                validate_only=request.validate_only,
                set_alias=request.set_alias or None,
                expected_generation=expected,
                actor=_actor(context),
            )
        )
        return pb.CommitPublishResponse(
            version=convert.version_message(result.version) if result.version else None, warnings=result.warnings
        )

    async def AbortPublish(self, request: pb.AbortPublishRequest, context: Context) -> pb.AbortPublishResponse:
        """Gives a publish up."""
        del context
        await self._run(lambda: self._registry.abort_publish(request.session_id))
        return pb.AbortPublishResponse()

    async def Resolve(self, request: pb.ResolveRequest, context: Context) -> pb.ResolveResponse:
        """Turns a ref into the one version it names now."""
        del context
        resolved = await self._run(
            lambda: self._registry.resolve(AdapterRef.parse(request.ref), base_digest=request.base_digest or None)
        )
        return pb.ResolveResponse(
            version=convert.version_message(resolved.version),
            alias=resolved.alias,
            alias_generation=resolved.alias_generation,
        )

    async def GetVersion(self, request: pb.GetVersionRequest, context: Context) -> pb.GetVersionResponse:
        """Shows one version."""
        del context
        version = await self._run(lambda: self._registry.get_version(AdapterRef.parse(request.ref)))
        return pb.GetVersionResponse(version=convert.version_message(version))

    async def ListAdapters(self, request: pb.ListAdaptersRequest, context: Context) -> pb.ListAdaptersResponse:
        """Lists adapters, one page."""
        del context
        limit = page_limit(request.page_size)
        adapters, token = await self._run(
            lambda: self._registry.list_adapters(request.namespace or None, limit, request.page_token)
        )
        return pb.ListAdaptersResponse(
            adapters=[convert.summary_message(adapter) for adapter in adapters], next_page_token=token
        )

    async def ListVersions(self, request: pb.ListVersionsRequest, context: Context) -> pb.ListVersionsResponse:
        """Lists versions of one adapter, newest first, one page."""
        del context
        limit = page_limit(request.page_size)
        versions, token = await self._run(
            lambda: self._registry.list_versions(AdapterName.parse(request.adapter), limit, request.page_token)
        )
        return pb.ListVersionsResponse(
            versions=[convert.version_message(version) for version in versions], next_page_token=token
        )

    async def DownloadBlob(self, request: pb.DownloadBlobRequest, context: Context) -> None:
        """Streams the bytes of one blob."""
        pieces = await self._run(lambda: self._registry.open_blob(request.digest, request.offset))
        while (piece := await self._run(lambda: next(pieces, None))) is not None:
            await self._patiently(context.write(pb.DownloadBlobResponse(data=piece)))

    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> pb.SetAliasResponse:
        """Moves an alias."""
        expected = request.expected_generation if request.HasField("expected_generation") else None
        move = await self._run(
            lambda: self._registry.set_alias(
                AdapterName.parse(request.adapter),
                request.alias,
                request.version,
                expected_generation=expected,
                actor=request.actor or _actor(context),
                reason=request.reason,
            )
        )
        return pb.SetAliasResponse(alias=convert.alias_message(move.alias), previous_version=move.previous_version)

    async def ListAliasHistory(
        self, request: pb.ListAliasHistoryRequest, context: Context
    ) -> pb.ListAliasHistoryResponse:
        """Lists every move of one alias, newest first."""
        del context
        events = await self._run(
            lambda: self._registry.alias_history(AdapterName.parse(request.adapter), request.alias)
        )
        return pb.ListAliasHistoryResponse(events=[convert.alias_event_message(event) for event in events])

    async def ListBaseModels(self, request: pb.ListBaseModelsRequest, context: Context) -> pb.ListBaseModelsResponse:
        """Lists the registered base models."""
        del request, context
        bases = await self._run(self._registry.base_models)
        return pb.ListBaseModelsResponse(base_models=[convert.base_message(base) for base in bases])

    async def _run(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def _patiently(self, transfer: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(self._stall_s):
                return await transfer
        except TimeoutError:
            raise Cancelled(f"the caller sent or took nothing for {self._stall_s:g} s; resume later") from None

    async def _write(self, upload: _Upload) -> UploadProgress:
        offset, pieces = upload.take()
        return await self._run(lambda: self._registry.upload(upload.session_id, upload.digest, offset, pieces))


class _Upload:
    """The part of an upload that has arrived and is not written yet."""

    def __init__(self, session_id: str, digest: str, offset: int) -> None:
        self.session_id = session_id
        self.digest = digest
        self.gathered_bytes = 0
        self._written_to = offset
        self._pieces: list[bytes] = []

    def add(self, message: pb.UploadBlobRequest) -> None:
        """Takes in a chunk.

        Raises:
            ArgumentInvalid: it is larger than a chunk may be, or belongs to another upload.
            UploadOffset: it does not continue where the one before ended.
        """
        expected = self._written_to + self.gathered_bytes
        if message.offset != expected:
            raise UploadOffset(
                f"the chunk begins at byte {message.offset}, the one before ended at {expected}; continue there",
                committed_bytes=self._written_to,
            )
        if message.session_id not in ("", self.session_id) or message.digest not in ("", self.digest):
            raise ArgumentInvalid("one upload sends one blob in one session; open another call for another")
        if len(message.data) > CHUNK_BYTES:
            raise ArgumentInvalid(f"a chunk of {len(message.data)} bytes; at most {CHUNK_BYTES} are taken")
        self._pieces.append(message.data)
        self.gathered_bytes += len(message.data)

    def take(self) -> tuple[int, list[bytes]]:
        """Where to write, and what."""
        offset, pieces = self._written_to, self._pieces
        self._written_to += self.gathered_bytes
        self.gathered_bytes, self._pieces = 0, []
        return offset, pieces


def _actor(context: Context) -> str:
    """Who says to be calling."""
    for key, value in context.invocation_metadata() or ():
        if key == ACTOR_KEY and isinstance(value, str) and value.isprintable():
            return value[:_ACTOR_CHARACTERS] or _ANONYMOUS
    return _ANONYMOUS
