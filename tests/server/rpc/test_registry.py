"""The registry over real gRPC: publish, resume, promote, read; refused files name every fault."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from handmade import lora_tensors, tensor, write_adapter, write_base
from rpc_harness import refusal_of

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import registry_pb2_grpc
from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files
from switchyard.server.observe.readiness import Readiness
from switchyard.server.rpc.app import GrpcApp, Service
from switchyard.server.rpc.live import LiveWork
from switchyard.server.rpc.registry import CHUNK_BYTES, RegistryServicer

pytestmark = pytest.mark.asyncio

SERVICE = "switchyard.registry.v1.RegistryService"
IA = grpc.StatusCode.INVALID_ARGUMENT


@dataclass
class Publisher:
    """A caller of the registry service."""

    stub: Any
    base: BaseModelSpec

    async def begin(
        self, directory: Path, key: str = "key", adapter: str = "team/addresses"
    ) -> pb.BeginPublishResponse:
        files = [
            pb.FileRef(path=path.name, digest=digest_of(path), size_bytes=path.stat().st_size)
            for path in sorted(directory.iterdir())
        ]
        response: pb.BeginPublishResponse = await self.stub.BeginPublish(
            pb.BeginPublishRequest(
                adapter="team/addresses",
                files=files,
                base_digest=self.base.digest,
                lineage=lineage(),
                idempotency_key=key,
                note="a note",
            ),
            metadata=(("switchyard-actor", "ada"),),
        )
        return response

    async def upload(self, session_id: str, path: Path, chunk_bytes: int = 1000) -> pb.UploadBlobResponse:
        response: pb.UploadBlobResponse = await self.stub.UploadBlob(
            chunks(session_id, digest_of(path), path.read_bytes(), chunk_bytes)
        )
        return response

    async def publish(self, directory: Path, key: str = "key", **commit: Any) -> pb.CommitPublishResponse:
        begun = await self.begin(directory, key)
        by_digest = {digest_of(path): path for path in directory.iterdir()}
        for digest in begun.missing_digests:
            assert (await self.upload(begun.session_id, by_digest[digest])).complete
        response: pb.CommitPublishResponse = await self.stub.CommitPublish(
            pb.CommitPublishRequest(session_id=begun.session_id, **commit)
        )
        return response


def digest_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def lineage() -> pb.Lineage:
    return pb.Lineage(
        recipe_digest="sha256:" + "1" * 64,
        code_commit="abc",
        training_quantization=pb.Quantization(method="nf4", double_quantization=True, compute_dtype="float32"),
        metrics=[pb.Metric(name="exact_match", value=0.5)],
        environment={"peft": "0.21.2"},
    )


def chunks(session_id: str, digest: str, data: bytes, chunk_bytes: int) -> Iterator[pb.UploadBlobRequest]:
    for offset in range(0, len(data), chunk_bytes):
        first = {"session_id": session_id, "digest": digest} if offset == 0 else {}
        yield pb.UploadBlobRequest(offset=offset, data=data[offset : offset + chunk_bytes], **first)


@asynccontextmanager
async def serving(root: Path, base: BaseModelSpec, **options: Any) -> AsyncIterator[Publisher]:
    with ThreadPoolExecutor(2) as pool, Registry.open(root, validate=validate_files) as registry:
        registry.register_base(base)
        app = GrpcApp([SERVICE], LiveWork(), Readiness())
        address, _ = await app.bind("127.0.0.1:0", None)
        servicer = RegistryServicer(registry, pool, **options)
        await app.serve([Service(SERVICE, servicer, registry_pb2_grpc.add_RegistryServiceServicer_to_server)])
        async with grpc.aio.insecure_channel(address) as channel:
            try:
                yield Publisher(registry_pb2_grpc.RegistryServiceStub(channel), base)
            finally:
                await app.stop()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelSpec:
    return describe_base(write_base(tmp_path_factory.mktemp("base")), "tiny")


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


async def test_a_promote_with_a_stale_generation_loses(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        for seed in range(2):
            await caller.publish(write_adapter(tmp_path / f"a{seed}", seed=seed), key=f"k{seed}")

        def move(version: int, generation: int | None) -> Any:
            request = pb.SetAliasRequest(adapter="team/addresses", alias="prod", version=version, reason="why")
            if generation is not None:
                request.expected_generation = generation
            return caller.stub.SetAlias(request, metadata=(("switchyard-actor", "grace"),))

        first = await move(1, 0)
        stale = await refusal_of(move(2, 0))
        second = await move(2, 1)
        unknown = await refusal_of(move(3, None))
        history = await caller.stub.ListAliasHistory(
            pb.ListAliasHistoryRequest(adapter="team/addresses", alias="prod")
        )
    assert (first.alias.version, first.alias.generation, first.previous_version) == (1, 1, 0)
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "GENERATION_MISMATCH")
    assert stale.metadata["current_generation"] == "1"
    assert (second.alias.version, second.alias.generation, second.previous_version) == (2, 2, 1)
    assert second.alias.updated_by == "grace"
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND")
    assert [(e.generation, e.from_version, e.to_version, e.reason) for e in history.events] == [
        (2, 1, 2, "why"),
        (1, 0, 1, "why"),
    ]


async def test_lists_come_in_pages(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        for seed in range(3):
            await caller.publish(write_adapter(tmp_path / f"a{seed}", seed=seed), key=f"k{seed}")
        first = await caller.stub.ListVersions(pb.ListVersionsRequest(adapter="team/addresses", page_size=2))
        second = await caller.stub.ListVersions(
            pb.ListVersionsRequest(adapter="team/addresses", page_size=2, page_token=first.next_page_token)
        )
        adapters = await caller.stub.ListAdapters(pb.ListAdaptersRequest())
        bases = await caller.stub.ListBaseModels(pb.ListBaseModelsRequest())
        too_many = await refusal_of(caller.stub.ListAdapters(pb.ListAdaptersRequest(page_size=1001)))
        negative = await refusal_of(caller.stub.ListVersions(pb.ListVersionsRequest(adapter="a", page_size=-1)))
    assert [v.version for v in [*first.versions, *second.versions]] == [3, 2, 1]
    assert second.next_page_token == ""
    assert [(a.namespace, a.adapter, a.latest_version) for a in adapters.adapters] == [("team", "addresses", 3)]
    assert [b.digest for b in bases.base_models] == [base.digest]
    assert (too_many.code, too_many.reason) == (negative.code, negative.reason) == (IA, "LIMIT")


async def test_nothing_of_that_name(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish(write_adapter(tmp_path / "a"))
        refused = [
            await refusal_of(caller.stub.Resolve(pb.ResolveRequest(ref=ref)))
            for ref in ("team/nobody@prod", "team/addresses:9", "team/addresses@prod", "team/addresses")
        ]
        blob = await refusal_of(caller.stub.DownloadBlob(pb.DownloadBlobRequest(digest="sha256:" + "0" * 64)).read())
        other = await refusal_of(
            caller.stub.Resolve(pb.ResolveRequest(ref="team/addresses:1", base_digest="sha256:" + "0" * 64))
        )
        session = await refusal_of(caller.stub.AbortPublish(pb.AbortPublishRequest(session_id="nothing")))
    assert [r.reason for r in refused] == ["ADAPTER_NOT_FOUND", "VERSION_NOT_FOUND", "ALIAS_NOT_FOUND", "REF_SYNTAX"]
    assert (blob.code, blob.reason) == (grpc.StatusCode.NOT_FOUND, "BLOB_NOT_FOUND")
    assert (other.code, other.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BASE_MISMATCH")
    assert session.reason == "SESSION_NOT_FOUND"


def with_extra_head(directory: Path) -> Path:
    head = {"base_model.model.lm_head.weight": tensor(np.zeros((288, 64), np.float32))}
    return write_adapter(directory, tensors=lora_tensors() | head)


def with_nan(directory: Path) -> Path:
    tensors = lora_tensors()
    name = next(iter(tensors))
    values = np.frombuffer(tensors[name][2], np.float32).copy().reshape(tensors[name][1])
    values[0, 0] = np.nan
    return write_adapter(directory, tensors=tensors | {name: tensor(values)})


@pytest.mark.parametrize(
    ("make", "reason", "says"),
    [(with_extra_head, "TENSOR_NAME", "lm_head.weight"), (with_nan, "NON_FINITE", "lora_A")],
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
