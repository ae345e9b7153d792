"""Publishing over the wire: begin, upload, commit.

No thread is held by a slow caller: upload bytes are gathered on the event loop
and written in pieces. A chunk that was damaged on its way is refused before any
of it is written, so what has arrived can be relied on and continued.
"""

# ruff: noqa: N802 - methods are named as the service names them.
from __future__ import annotations

import time
import zlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.errors import ArgumentInvalid, ChunkDamaged, UploadOffset
from switchyard.registry.records import UploadProgress, UploadSession
from switchyard.registry.refs import AdapterName
from switchyard.registry.storage.blob_store import PRESIGNED_S
from switchyard.server.rpc.registry import messages
from switchyard.server.rpc.registry.calls import RegistryCalls, actor_of

if TYPE_CHECKING:
    from switchyard.server.rpc.registry.calls import Context

CHUNK_BYTES: Final = 1 << 20
"""Largest chunk of an upload or download; well below the 4 MiB that one message may have."""

_GATHERED_BYTES: Final = 4 * CHUNK_BYTES
"""Bytes of one upload held in memory before they are written."""


class PublishingCalls(RegistryCalls):
    """The calls of a publisher."""

    async def BeginPublish(self, request: pb.BeginPublishRequest, context: Context) -> pb.BeginPublishResponse:
        """Opens or resumes a publish."""
        session = await self._run(
            lambda: self._registry.begin_publish(
                AdapterName.parse(request.adapter),
                [messages.file_of(file) for file in request.files],
                base_digest=request.base_digest,
                lineage=messages.lineage_of(request.lineage),
                idempotency_key=request.idempotency_key,
                publisher=actor_of(context),
                note=request.note,
            )
        )
        uploads: list[pb.PresignedUpload] = []
        if request.want_upload_urls:
            uploads = await self._run(lambda: self._presigned(session))
        return pb.BeginPublishResponse(
            session_id=session.session_id,
            missing_digests=session.missing,
            chunk_bytes=CHUNK_BYTES,
            expire_time=messages.timestamp(session.expires_at_s),
            committed=messages.version_message(session.committed) if session.committed else None,
            presigned_uploads=uploads,
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

    async def ConfirmUpload(self, request: pb.ConfirmUploadRequest, context: Context) -> pb.ConfirmUploadResponse:
        """Makes the bytes count that were sent to a presigned address."""
        del context
        progress = await self._run(lambda: self._registry.sessions.confirm(request.session_id, request.digest))
        return pb.ConfirmUploadResponse(committed_bytes=progress.committed_bytes, complete=progress.complete)

    async def QueryUpload(self, request: pb.QueryUploadRequest, context: Context) -> pb.QueryUploadResponse:
        """Tells where an upload stands."""
        del context
        progress = await self._run(lambda: self._registry.query_upload(request.session_id, request.digest))
        return pb.QueryUploadResponse(committed_bytes=progress.committed_bytes, complete=progress.complete)

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Context) -> pb.RenewLeaseResponse:
        """Keeps a session open."""
        del context
        expires_at_s = await self._run(lambda: self._registry.sessions.renew(request.session_id))
        return pb.RenewLeaseResponse(expire_time=messages.timestamp(expires_at_s))

    async def CommitPublish(self, request: pb.CommitPublishRequest, context: Context) -> pb.CommitPublishResponse:
        """Verifies everything and makes the version visible."""
        expected = request.expected_generation if request.HasField("expected_generation") else None
        result = await self._run(
            lambda: self._registry.commit_publish(
                request.session_id,
                validate_only=request.validate_only,
                set_alias=request.set_alias or None,
                expected_generation=expected,
                tags=dict(request.tags),
                signature=request.signature or None,
                actor=actor_of(context),
            )
        )
        return pb.CommitPublishResponse(
            version=messages.version_message(result.version) if result.version else None, warnings=result.warnings
        )

    async def AbortPublish(self, request: pb.AbortPublishRequest, context: Context) -> pb.AbortPublishResponse:
        """Gives a publish up."""
        del context
        await self._run(lambda: self._registry.abort_publish(request.session_id))
        return pb.AbortPublishResponse()

    def _presigned(self, session: UploadSession) -> list[pb.PresignedUpload]:
        expires_at_s = time.time() + PRESIGNED_S
        sessions = self._registry.sessions
        found = ((digest, sessions.presign(session.session_id, digest)) for digest in session.missing)
        return [
            pb.PresignedUpload(
                digest=digest,
                url=url,
                expire_time=messages.timestamp(expires_at_s),
                headers=sessions.upload_headers,
            )
            for digest, url in found
            if url is not None
        ]

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
            ChunkDamaged: its checksum is not the one that was sent with it.
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
        if message.HasField("crc32") and message.crc32 != (found := zlib.crc32(message.data)):
            raise ChunkDamaged(
                f"the chunk at byte {message.offset} has CRC-32 {found:08x}, expected {message.crc32:08x}; it was "
                f"damaged on its way and not stored; ask how far the upload is and continue there",
                committed_bytes=self._written_to,
            )
        self._pieces.append(message.data)
        self.gathered_bytes += len(message.data)

    def take(self) -> tuple[int, list[bytes]]:
        """Where to write, and what."""
        offset, pieces = self._written_to, self._pieces
        self._written_to += self.gathered_bytes
        self.gathered_bytes, self._pieces = 0, []
        return offset, pieces
