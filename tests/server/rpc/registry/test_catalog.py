"""Reading over real gRPC: lists, refs, and what is not there."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from handmade import write_adapter
from registry_harness import serving
from rpc_harness import refusal_of

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.base_model import BaseModelSpec

pytestmark = pytest.mark.asyncio

IA = grpc.StatusCode.INVALID_ARGUMENT


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


async def test_an_adapter_is_shown_with_its_aliases(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish(write_adapter(tmp_path / "a"), set_alias="prod")
        shown = (await caller.stub.GetAdapter(pb.GetAdapterRequest(adapter="team/addresses"))).adapter
        refused = await refusal_of(caller.stub.GetAdapter(pb.GetAdapterRequest(adapter="team/nobody")))
    assert [(alias.name, alias.version, alias.generation) for alias in shown.aliases] == [("prod", 1, 1)]
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "ADAPTER_NOT_FOUND")


async def test_a_session_gets_the_same_version_of_a_split(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 2)
        await caller.stub.SetAlias(pb.SetAliasRequest(adapter="team/addresses", alias="prod", version=1))
        await caller.stub.SetCanary(
            pb.SetCanaryRequest(adapter="team/addresses", alias="prod", version=2, percent=50, reason="try")
        )

        async def answer(session_key: str) -> tuple[int, bool]:
            request = pb.ResolveRequest(ref="team/addresses@prod", session_key=session_key)
            resolved = await caller.stub.Resolve(request)
            return resolved.version.version, resolved.canary

        first = [await answer(f"user-{number}") for number in range(40)]
        again = [await answer(f"user-{number}") for number in range(40)]
        nobody = await answer("")
        too_long = await refusal_of(caller.stub.Resolve(pb.ResolveRequest(ref="a@b", session_key="k" * 257)))
    assert first == again
    assert set(first) == {(1, False), (2, True)}
    assert nobody == (1, False)
    assert (too_long.code, too_long.reason) == (IA, "LIMIT")
