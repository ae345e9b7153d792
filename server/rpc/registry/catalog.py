"""Reading over the wire: which versions there are, what a ref means, and their bytes."""

# ruff: noqa: N802 - methods are named as the service names them.
from __future__ import annotations

import time
from typing import TYPE_CHECKING

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.catalog import card
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.storage.blob_store import PRESIGNED_S
from switchyard.server.calls.bounds import MAX_SESSION_KEY_CHARACTERS
from switchyard.server.calls.catalog import page_limit
from switchyard.server.rpc.registry import messages
from switchyard.server.rpc.registry.calls import RegistryCalls
from switchyard.server.rpc.registry.fields import FieldChecks

if TYPE_CHECKING:
    from switchyard.server.rpc.registry.calls import Context


class CatalogCalls(RegistryCalls):
    """The calls of a reader; none of them changes anything."""

    async def Resolve(self, request: pb.ResolveRequest, context: Context) -> pb.ResolveResponse:
        """Turns a ref into the one version it names now."""
        del context
        checks = FieldChecks()
        checks.text("session_key", request.session_key, MAX_SESSION_KEY_CHARACTERS)
        checks.refuse_faults()
        resolved = await self._run(
            lambda: self._registry.resolve(
                AdapterRef.parse(request.ref),
                base_digest=request.base_digest or None,
                session_key=request.session_key,
            )
        )
        return pb.ResolveResponse(
            version=messages.version_message(resolved.version),
            alias=resolved.alias,
            alias_generation=resolved.alias_generation,
            canary=resolved.canary,
        )

    async def GetVersion(self, request: pb.GetVersionRequest, context: Context) -> pb.GetVersionResponse:
        """Shows one version."""
        del context
        version = await self._run(lambda: self._registry.get_version(AdapterRef.parse(request.ref)))
        return pb.GetVersionResponse(version=messages.version_message(version))

    async def GetAdapter(self, request: pb.GetAdapterRequest, context: Context) -> pb.GetAdapterResponse:
        """Shows one adapter and where its aliases point."""
        del context
        summary = await self._run(lambda: self._registry.get_adapter(AdapterName.parse(request.adapter)))
        return pb.GetAdapterResponse(adapter=messages.summary_message(summary))

    async def ListAdapters(self, request: pb.ListAdaptersRequest, context: Context) -> pb.ListAdaptersResponse:
        """Lists adapters, one page."""
        del context
        adapters, token = await self._page(
            lambda limit: self._registry.list_adapters(request.namespace or None, limit, request.page_token),
            messages.summary_message,
            page_limit(request.page_size),
        )
        return pb.ListAdaptersResponse(adapters=adapters, next_page_token=token)

    async def ListVersions(self, request: pb.ListVersionsRequest, context: Context) -> pb.ListVersionsResponse:
        """Lists versions of one adapter, newest first, one page."""
        del context
        versions, token = await self._page(
            lambda limit: self._registry.list_versions(
                AdapterName.parse(request.adapter),
                limit,
                request.page_token,
                include_deleted=request.include_deleted,
            ),
            messages.version_message,
            page_limit(request.page_size),
        )
        return pb.ListVersionsResponse(versions=versions, next_page_token=token)

    async def DownloadBlob(self, request: pb.DownloadBlobRequest, context: Context) -> None:
        """Streams the bytes of one blob, or tells where they can be had.

        The next piece is read when the last one is gone.
        """
        if request.want_url:
            expires_at_s = time.time() + PRESIGNED_S
            url = await self._run(lambda: self._registry.downloads.presigned(request.digest))
            if url is not None:
                answer = pb.DownloadBlobResponse(url=url, url_expire_time=messages.timestamp(expires_at_s))
                await self._patiently(context.write(answer))
                return
        pieces = await self._run(lambda: self._registry.open_blob(request.digest, request.offset))
        while (piece := await self._run(lambda: next(pieces, None))) is not None:
            await self._patiently(context.write(pb.DownloadBlobResponse(data=piece)))

    async def GetModelCard(self, request: pb.GetModelCardRequest, context: Context) -> pb.GetModelCardResponse:
        """Shows what people should know of a version."""
        del context
        markdown = await self._run(lambda: card.render(self._registry.get_version(AdapterRef.parse(request.ref))))
        return pb.GetModelCardResponse(markdown=markdown)

    async def ListBaseModels(self, request: pb.ListBaseModelsRequest, context: Context) -> pb.ListBaseModelsResponse:
        """Lists the registered base models."""
        del request, context
        bases = await self._run(self._registry.base_models)
        return pb.ListBaseModelsResponse(base_models=[messages.base_message(base) for base in bases])
