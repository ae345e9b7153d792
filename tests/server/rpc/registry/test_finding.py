"""Finding over real gRPC: by a query, by what differs, by what something reached; and pages that fit an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from handmade import write_adapter
from registry_harness import ADAPTER, serving
from rpc_harness import refusal_of

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import upkeep_pb2
from switchyard.registry.base_model import BaseModelSpec
from switchyard.server.rpc.registry import calls

pytestmark = pytest.mark.asyncio

IA = grpc.StatusCode.INVALID_ARGUMENT
DATASET = "sha256:" + "d" * 64


async def test_versions_are_found_by_what_is_known_of_them(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 3)
        await caller.stub.TagVersion(pb.TagVersionRequest(adapter=ADAPTER, version=2, set_tags={"task": "ner"}))

        async def search(query: str, **page: Any) -> pb.SearchVersionsResponse:
            response: pb.SearchVersionsResponse = await caller.stub.SearchVersions(
                pb.SearchVersionsRequest(query=query, **page)
            )
            return response

        tagged = await search("tag:task=ner metric:exact_match>=0.5")
        first = await search("team/*", page_size=2)
        second = await search("team/*", page_size=2, page_token=first.next_page_token)
        refused = await refusal_of(caller.stub.SearchVersions(pb.SearchVersionsRequest(query="colour:red")))
        endless = await refusal_of(caller.stub.SearchVersions(pb.SearchVersionsRequest(query="a " * 3000)))
        token = await refusal_of(caller.stub.SearchVersions(pb.SearchVersionsRequest(page_token="x")))
    assert [version.version for version in tagged.versions] == [2]
    assert [version.version for version in (*first.versions, *second.versions)] == [3, 2, 1]
    assert second.next_page_token == ""
    assert [(r.code, r.reason) for r in (refused, endless, token)] == [
        (IA, "ARGUMENT_INVALID"),
        (IA, "LIMIT"),
        (IA, "ARGUMENT_INVALID"),
    ]


async def test_two_versions_are_compared(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 2)

        async def compare(other: int) -> pb.CompareVersionsResponse:
            request = pb.CompareVersionsRequest(ref=f"{ADAPTER}:1", other_ref=f"{ADAPTER}:{other}")
            response: pb.CompareVersionsResponse = await caller.stub.CompareVersions(request)
            return response

        itself, other = await compare(1), await compare(2)
        nobody = await refusal_of(
            caller.stub.CompareVersions(pb.CompareVersionsRequest(ref=f"{ADAPTER}:1", other_ref=f"{ADAPTER}:9"))
        )
    assert (list(itself.config), list(itself.lineage)) == ([], [])
    assert all(module.cosine == pytest.approx(1.0) for module in itself.modules)
    assert (other.version.version, other.other_version.version) == (1, 2)
    assert {module.module.rpartition(".")[2] for module in other.modules} == {"q_proj", "v_proj"}
    assert all(abs(module.cosine) < 0.999 and module.norm > 0 and module.rank >= 1 for module in other.modules)
    assert (nobody.code, nobody.reason) == (grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND")


async def test_what_a_data_set_reached_comes_in_pages(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 3)

        async def reached(digest: str, **page: Any) -> pb.ListImpactedVersionsResponse:
            response: pb.ListImpactedVersionsResponse = await caller.stub.ListImpactedVersions(
                pb.ListImpactedVersionsRequest(digest=digest, **page)
            )
            return response

        first = await reached(DATASET, page_size=2)
        second = await reached(DATASET, page_size=2, page_token=first.next_page_token)
        nothing = await reached("sha256:" + "0" * 64)
        refused = await refusal_of(caller.stub.ListImpactedVersions(pb.ListImpactedVersionsRequest(digest="dataset")))
    found = [*first.versions, *second.versions]
    assert sorted(one.version.version for one in found) == [1, 2, 3]
    assert {(one.relation, one.distance) for one in found} == {("dataset", 1)}
    assert (second.next_page_token, list(nothing.versions)) == ("", [])
    assert (refused.code, refused.reason) == (IA, "ARGUMENT_INVALID")


async def test_a_model_card_says_what_is_known(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        (version,) = await caller.publish_many(tmp_path, 1)
        card = (await caller.stub.GetModelCard(pb.GetModelCardRequest(ref=f"{ADAPTER}:1"))).markdown
    assert card.startswith("---\n")
    assert version.digest in card


async def test_a_page_holds_what_one_answer_holds(
    tmp_path: Path, base: BaseModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        published = await caller.publish_many(tmp_path, 3)
        for version in (1, 2, 3):
            await caller.stub.SetAlias(pb.SetAliasRequest(adapter=ADAPTER, alias="prod", version=version))
        monkeypatch.setattr(calls, "PAGE_BYTES", max(version.ByteSize() for version in published) + 100)
        numbers: list[int] = []
        token = ""
        while not numbers or token:
            page = await caller.stub.ListVersions(pb.ListVersionsRequest(adapter=ADAPTER, page_token=token))
            assert len(page.versions) == 1
            numbers += [version.version for version in page.versions]
            token = page.next_page_token
        monkeypatch.setattr(calls, "PAGE_BYTES", 1)
        generations: list[int] = []
        while not generations or token:
            history = await caller.stub.ListAliasHistory(
                pb.ListAliasHistoryRequest(adapter=ADAPTER, alias="prod", page_token=token)
            )
            generations += [event.generation for event in history.events]
            token = history.next_page_token
        rows = await caller.upkeep.ListAuditEvents(upkeep_pb2.ListAuditEventsRequest())
    assert numbers == [3, 2, 1]
    assert generations == [3, 2, 1]
    assert ([row.sequence for row in rows.events], rows.has_more) == ([1], True)


async def test_retention_tells_first_and_deletes_then(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 3)
        await caller.stub.SetAlias(pb.SetAliasRequest(adapter=ADAPTER, alias="prod", version=1))
        await caller.stub.UpdateNamespace(
            pb.UpdateNamespaceRequest(namespace="team", policy=pb.NamespacePolicy(keep_last=1))
        )
        told = await caller.upkeep.ApplyRetention(upkeep_pb2.ApplyRetentionRequest(namespace="team"))
        done = await caller.upkeep.ApplyRetention(upkeep_pb2.ApplyRetentionRequest(namespace="team", execute=True))
        left = await caller.stub.ListVersions(pb.ListVersionsRequest(adapter=ADAPTER))
        nowhere = await refusal_of(caller.upkeep.ApplyRetention(upkeep_pb2.ApplyRetentionRequest(namespace="other")))
        changes = await caller.upkeep.ListAuditEvents(upkeep_pb2.ListAuditEventsRequest(action="version.state"))
    assert (list(told.deleted_refs), told.executed) == ([f"{ADAPTER}:2"], False)
    assert (list(done.deleted_refs), done.executed, done.deleted_versions) == ([f"{ADAPTER}:2"], True, 1)
    assert [version.version for version in left.versions] == [3, 1]
    assert (nowhere.code, nowhere.reason) == (grpc.StatusCode.NOT_FOUND, "NAMESPACE_NOT_FOUND")
    assert [json.loads(event.details_json)["version"] for event in changes.events] == [2]


async def test_tags_at_commit_are_searchable_at_once(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        published = await caller.publish(write_adapter(tmp_path / "a"), tags={"task": "ner"})
        found = await caller.stub.SearchVersions(pb.SearchVersionsRequest(query="tag:task=ner"))
        refused = await refusal_of(caller.publish(write_adapter(tmp_path / "b", seed=1), "k", tags={"Not": "x"}))
    assert dict(published.version.tags) == {"task": "ner"}
    assert [version.digest for version in found.versions] == [published.version.digest]
    assert (refused.code, refused.reason) == (IA, "ARGUMENT_INVALID")
