"""Publishing over real gRPC: whole, resumed, damaged, refused; refused files name every fault."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from handmade import lora_tensors, tensor, write_adapter
from registry_harness import chunks, digest_of, lineage, serving
from rpc_harness import refusal_of

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.base_model import BaseModelSpec
from switchyard.server.rpc.registry.publishing import CHUNK_BYTES

pytestmark = pytest.mark.asyncio

IA = grpc.StatusCode.INVALID_ARGUMENT


async def test_a_version_goes_in_and_comes_out_whole(tmp_path: Path, base: BaseModelSpec) -> None:
    directory = write_adapter(tmp_path / "adapter")
    async with serving(tmp_path / "registry", base) as caller:
        published = (await caller.publish(directory, set_alias="prod")).version
        resolved = await caller.stub.Resolve(pb.ResolveRequest(ref="team/addresses@prod", base_digest=base.digest))
        shown = (await caller.stub.GetVersion(pb.GetVersionRequest(ref="team/addresses:1"))).version
        received = {
            file.path: b"".join(
                [part.data async for part in caller.stub.DownloadBlob(pb.DownloadBlobRequest(digest=file.digest))]
            )
            for file in shown.files
        }
        weights = next(file for file in shown.files if file.path.endswith(".safetensors"))
        tail = [
            part.data
            async for part in caller.stub.DownloadBlob(pb.DownloadBlobRequest(digest=weights.digest, offset=100))
        ]
    assert resolved.version == shown
    assert (resolved.alias, resolved.alias_generation) == ("prod", 1)
    assert (shown.namespace, shown.adapter, shown.version) == ("team", "addresses", 1)
    assert (shown.publisher, shown.note, list(shown.aliases)) == ("ada", "a note", ["prod"])
    assert shown.base_model.digest == base.digest
    assert (shown.shape.rank, list(shown.shape.target_modules)) == (8, ["q_proj", "v_proj"])
    assert shown.lineage == lineage()
    assert shown.create_time.seconds > 1_700_000_000
    assert published.digest == shown.digest
    assert received == {path.name: path.read_bytes() for path in directory.iterdir()}
    assert b"".join(tail) == (directory / weights.path).read_bytes()[100:]


async def test_the_same_key_again_is_the_same_version(tmp_path: Path, base: BaseModelSpec) -> None:
    directory = write_adapter(tmp_path / "adapter")
    async with serving(tmp_path / "registry", base) as caller:
        first = (await caller.publish(directory)).version
        again = await caller.begin(directory)
        other = write_adapter(tmp_path / "other", seed=1)
        refused = await refusal_of(caller.begin(other))
    assert again.committed.digest == first.digest
    assert list(again.missing_digests) == []
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT")


async def test_an_upload_resumes_where_it_stands(tmp_path: Path, base: BaseModelSpec) -> None:
    directory = write_adapter(tmp_path / "adapter")
    weights = directory / "adapter_model.safetensors"
    data, digest = weights.read_bytes(), digest_of(weights)
    async with serving(tmp_path / "registry", base) as caller:
        session_id = (await caller.begin(directory)).session_id
        half = await caller.stub.UploadBlob(chunks(session_id, digest, data[:5000], 1000))
        assert (half.committed_bytes, half.complete) == (5000, False)
        refused = await refusal_of(caller.stub.UploadBlob(chunks(session_id, digest, data, 1000)))
        assert (refused.code, refused.reason) == (IA, "OFFSET")
        assert refused.metadata["committed_bytes"] == "5000"
        asked = await caller.stub.QueryUpload(pb.QueryUploadRequest(session_id=session_id, digest=digest))
        rest = [
            pb.UploadBlobRequest(session_id=session_id, digest=digest, offset=asked.committed_bytes, data=data[5000:])
        ]
        done = await caller.stub.UploadBlob(iter(rest))
    assert done.complete
    assert done.committed_bytes == len(data)


async def test_uploads_that_are_wrong_in_themselves(tmp_path: Path, base: BaseModelSpec) -> None:
    directory = write_adapter(tmp_path / "adapter")
    digest = digest_of(directory / "adapter_model.safetensors")
    async with serving(tmp_path / "registry", base) as caller:
        session_id = (await caller.begin(directory)).session_id
        start = pb.UploadBlobRequest(session_id=session_id, digest=digest, data=b"x" * 10)
        empty = await refusal_of(caller.stub.UploadBlob(iter([])))
        large = pb.UploadBlobRequest(session_id=session_id, digest=digest, data=b"x" * (CHUNK_BYTES + 1))
        too_large = await refusal_of(caller.stub.UploadBlob(iter([large])))
        gap = await refusal_of(caller.stub.UploadBlob(iter([start, pb.UploadBlobRequest(offset=11, data=b"y")])))
        other = pb.UploadBlobRequest(session_id="other", offset=10, data=b"y")
        strayed = await refusal_of(caller.stub.UploadBlob(iter([start, other])))
        nowhere = await refusal_of(
            caller.stub.UploadBlob(iter([pb.UploadBlobRequest(session_id="no", digest=digest, data=b"x")]))
        )
    assert [(r.code, r.reason) for r in (empty, too_large, gap, strayed, nowhere)] == [
        (IA, "ARGUMENT_INVALID"),
        (IA, "ARGUMENT_INVALID"),
        (IA, "OFFSET"),
        (IA, "ARGUMENT_INVALID"),
        (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"),
    ]


async def test_a_damaged_chunk_is_refused_before_it_is_stored(tmp_path: Path, base: BaseModelSpec) -> None:
    directory = write_adapter(tmp_path / "adapter")
    weights = directory / "adapter_model.safetensors"
    data, digest = weights.read_bytes(), digest_of(weights)
    async with serving(tmp_path / "registry", base) as caller:
        session_id = (await caller.begin(directory)).session_id
        sound = pb.UploadBlobRequest(
            session_id=session_id, digest=digest, data=data[:1000], crc32=zlib.crc32(data[:1000])
        )
        assert (await caller.stub.UploadBlob(iter([sound]))).committed_bytes == 1000
        damaged = pb.UploadBlobRequest(
            session_id=session_id,
            digest=digest,
            offset=1000,
            data=b"?" + data[1001:2000],
            crc32=zlib.crc32(data[1000:2000]),
        )
        refused = await refusal_of(caller.stub.UploadBlob(iter([damaged])))
        stands = await caller.stub.QueryUpload(pb.QueryUploadRequest(session_id=session_id, digest=digest))
        # Zero is a checksum like any other: it is not mistaken for none.
        zero = pb.UploadBlobRequest(session_id=session_id, digest=digest, offset=1000, data=b"x", crc32=0)
        none = await refusal_of(caller.stub.UploadBlob(iter([zero])))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "CHUNK_DAMAGED")
    assert refused.metadata == {"retryable": "true", "committed_bytes": "1000"}
    assert stands.committed_bytes == 1000
    assert none.reason == "CHUNK_DAMAGED"


async def test_a_lease_is_renewed_while_the_session_is_open(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        begun = await caller.begin(write_adapter(tmp_path / "adapter"))
        renewed = await caller.stub.RenewLease(pb.RenewLeaseRequest(session_id=begun.session_id))
        await caller.stub.AbortPublish(pb.AbortPublishRequest(session_id=begun.session_id))
        refused = await refusal_of(caller.stub.RenewLease(pb.RenewLeaseRequest(session_id=begun.session_id)))
        unknown = await refusal_of(caller.stub.RenewLease(pb.RenewLeaseRequest(session_id="none")))
    assert renewed.expire_time.ToDatetime() > begun.expire_time.ToDatetime()
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_CLOSED")
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


async def test_an_upload_that_stalls_is_let_go(tmp_path: Path, base: BaseModelSpec) -> None:
    directory = write_adapter(tmp_path / "adapter")
    weights = directory / "adapter_model.safetensors"
    async with serving(tmp_path / "registry", base, stall_s=0.05) as caller:
        session_id = (await caller.begin(directory)).session_id
        forever = asyncio.Event()

        async def sender() -> AsyncIterator[pb.UploadBlobRequest]:
            for message in chunks(session_id, digest_of(weights), weights.read_bytes()[:1000], 1000):
                yield message
            await forever.wait()

        refused = await refusal_of(caller.stub.UploadBlob(sender()))
    assert (refused.code, refused.reason) == (grpc.StatusCode.CANCELLED, "CANCELLED")


def with_extra_tensor(directory: Path) -> Path:
    norm = {"base_model.model.model.norm.weight": tensor(np.zeros((64,), np.float32))}
    return write_adapter(directory, tensors=lora_tensors() | norm)


def with_nan(directory: Path) -> Path:
    tensors = lora_tensors()
    name = next(iter(tensors))
    values = np.frombuffer(tensors[name][2], np.float32).copy().reshape(tensors[name][1])
    values[0, 0] = np.nan
    return write_adapter(directory, tensors=tensors | {name: tensor(values)})


@pytest.mark.parametrize(
    ("make", "reason", "says"),
    [(with_extra_tensor, "TENSOR_NAME", "norm.weight"), (with_nan, "NON_FINITE", "lora_A")],
    ids=["extra tensor", "NaN weights"],
)
async def test_bad_weights_are_refused_with_their_fault(
    tmp_path: Path, base: BaseModelSpec, make: Any, reason: str, says: str
) -> None:
    directory = make(tmp_path / "adapter")
    async with serving(tmp_path / "registry", base) as caller:
        refused = await refusal_of(caller.publish(directory, set_alias="prod"))
        listed = await caller.stub.ListAdapters(pb.ListAdaptersRequest())
    assert (refused.code, refused.reason) == (IA, reason)
    assert says in refused.message
    assert [violation[1] for violation in refused.violations] == [reason]
    assert list(listed.adapters) == []


async def test_a_pickle_is_refused_before_a_byte_is_sent(tmp_path: Path, base: BaseModelSpec) -> None:
    directory = write_adapter(tmp_path / "adapter")
    (directory / "adapter_model.bin").write_bytes(b"\x80\x04.")
    async with serving(tmp_path / "registry", base) as caller:
        refused = await refusal_of(caller.begin(directory))
    assert (refused.code, refused.reason) == (IA, "FILE_NOT_ALLOWED")
    assert "adapter_model.bin" in refused.message


async def test_validate_only_changes_nothing(tmp_path: Path, base: BaseModelSpec) -> None:
    directory = write_adapter(tmp_path / "adapter")
    async with serving(tmp_path / "registry", base) as caller:
        checked = await caller.publish(directory, validate_only=True)
        listed = await caller.stub.ListAdapters(pb.ListAdaptersRequest())
    assert not checked.HasField("version")
    assert list(listed.adapters) == []
