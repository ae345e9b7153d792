"""Sending the files of one version: begin, upload what is missing, commit.

Owns the resuming. The registry says how many bytes of a blob it has, and sending
goes on from there; a broken connection costs at most the chunk in flight. When a
reply is lost the same idempotency key brings the session, or the committed
version, back.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import grpc

from switchyard.clients import direct, retry
from switchyard.clients.calls import Connection
from switchyard.clients.errors import ServerFault, SourceInvalid
from switchyard.clients.source import SourceFile
from switchyard.clients.statuses import from_call
from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import registry_pb2_grpc as stubs

ProgressCallback = Callable[["TransferProgress"], None]


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """Where one file of a push or a pull stands.

    Attributes:
        path: name of the file inside the version.
        done_bytes: bytes that are over.
        total_bytes: size of the file.
    """

    path: str
    done_bytes: int
    total_bytes: int


class Uploader:
    """Sends files into one publish session."""

    def __init__(
        self,
        connection: Connection,
        stub: stubs.RegistryServiceStub,
        begun: pb.BeginPublishResponse,
        progress: ProgressCallback | None,
    ) -> None:
        """Binds a connection to the session that `begun` opened."""
        self._connection = connection
        self._stub = stub
        self._session_id = begun.session_id
        self._chunk_bytes = begun.chunk_bytes
        self._missing = frozenset(begun.missing_digests)
        self._addresses = {one.digest: one for one in begun.presigned_uploads}
        self._progress = progress

    def send_missing(self, files: Sequence[SourceFile]) -> None:
        """Sends every file whose bytes the registry lacks, each digest once.

        Raises:
            ClientError: the registry refused the bytes, or the connection did not come back.
            SourceInvalid: a file became shorter while it was sent.
        """
        sent: set[str] = set()
        for source in files:
            if source.digest in self._missing and source.digest not in sent:
                self._send(source)
                sent.add(source.digest)
            else:
                self._tell(source, source.size_bytes)

    def _send(self, source: SourceFile) -> None:
        attempts = self._connection.attempts()
        if source.digest in self._addresses and self._sent_directly(source, attempts.remaining_s()):
            return

        def once(left_s: float) -> pb.UploadBlobResponse:
            return self._send_rest(source, left_s)

        response = retry.call(once, attempts, time.sleep)
        if not response.complete:
            raise ServerFault(
                f"{source.path}: all {source.size_bytes} bytes were sent and the registry has "
                f"{response.committed_bytes}; push again to resume."
            )

    def _sent_directly(self, source: SourceFile, left_s: float) -> bool:
        """Whether the bytes went to the store itself and the registry has found them right there."""
        address = self._addresses[source.digest]
        try:
            direct.send(address.url, address.headers, source.file, source.size_bytes, left_s)
        except direct.DirectFailed:
            return False
        request = pb.ConfirmUploadRequest(session_id=self._session_id, digest=source.digest)
        done = self._connection.unary(self._stub.ConfirmUpload, request)
        if done.complete:
            self._tell(source, source.size_bytes)
        complete: bool = done.complete
        return complete

    def _send_rest(self, source: SourceFile, left_s: float) -> pb.UploadBlobResponse:
        query = pb.QueryUploadRequest(session_id=self._session_id, digest=source.digest)
        try:
            state = self._stub.QueryUpload(query, timeout=left_s, metadata=self._connection.metadata)
            if state.complete:
                self._tell(source, source.size_bytes)
                return pb.UploadBlobResponse(committed_bytes=source.size_bytes, complete=True)
            response: pb.UploadBlobResponse = self._stub.UploadBlob(
                self._messages(source, state.committed_bytes),
                timeout=left_s,
                metadata=self._connection.metadata,
            )
        except grpc.RpcError as error:
            raise from_call(error, address=self._connection.address) from error
        return response

    def _messages(self, source: SourceFile, offset: int) -> Iterator[pb.UploadBlobRequest]:
        """The rest of the file from `offset`; an empty file is one empty message."""
        first = True
        with source.file.open("rb") as stream:
            stream.seek(offset)
            while first or offset < source.size_bytes:
                data = stream.read(min(self._chunk_bytes, source.size_bytes - offset))
                if not data and source.size_bytes > offset:
                    raise SourceInvalid(
                        f"{source.file} became shorter while it was sent: expected "
                        f"{source.size_bytes} bytes, found {offset}. Push again when nothing writes to it."
                    )
                message = pb.UploadBlobRequest(offset=offset, data=data, crc32=zlib.crc32(data))
                if first:
                    message.session_id, message.digest = self._session_id, source.digest
                first = False
                yield message
                offset += len(data)
                self._tell(source, offset)

    def _tell(self, source: SourceFile, done_bytes: int) -> None:
        if self._progress is not None:
            self._progress(TransferProgress(source.path, done_bytes, source.size_bytes))
