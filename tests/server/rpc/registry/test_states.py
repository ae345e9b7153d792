"""States, tags and descriptions over real gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from registry_harness import ADAPTER, Caller, serving
from rpc_harness import refusal_of

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.base_model import BaseModelSpec

pytestmark = pytest.mark.asyncio

IA = grpc.StatusCode.INVALID_ARGUMENT
FP = grpc.StatusCode.FAILED_PRECONDITION


def act(caller: Caller, action: Any, version: int = 1, **more: Any) -> Any:
    request = pb.SetVersionStateRequest(adapter=ADAPTER, version=version, action=action, reason="because", **more)
    return caller.stub.SetVersionState(request)


@pytest.mark.parametrize(
    ("action", "state", "back", "refusal"),
    [
        (pb.VERSION_ACTION_DEPRECATE, pb.VERSION_STATE_DEPRECATED, pb.VERSION_ACTION_REINSTATE, None),
        (pb.VERSION_ACTION_YANK, pb.VERSION_STATE_YANKED, pb.VERSION_ACTION_REINSTATE, None),
        (
            pb.VERSION_ACTION_QUARANTINE,
            pb.VERSION_STATE_QUARANTINED,
            pb.VERSION_ACTION_RELEASE,
            "VERSION_QUARANTINED",
        ),
        (pb.VERSION_ACTION_DELETE, pb.VERSION_STATE_DELETED, pb.VERSION_ACTION_UNDELETE, "VERSION_DELETED"),
    ],
    ids=["deprecate", "yank", "quarantine", "delete"],
)
async def test_a_version_leaves_and_comes_back(
    tmp_path: Path, base: BaseModelSpec, action: Any, state: Any, back: Any, refusal: str | None
) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 1)
        moved = (await act(caller, action)).version
        resolve = caller.stub.Resolve(pb.ResolveRequest(ref=f"{ADAPTER}:1"))
        if refusal is None:
            assert (await resolve).version.state == state
        else:
            refused = await refusal_of(resolve)
            assert (refused.code, refused.reason) == (FP, refusal)
        returned = (await act(caller, back)).version
        again = await refusal_of(act(caller, pb.VERSION_ACTION_UNDELETE))
    assert (moved.state, moved.state_reason) == (state, "because")
    assert returned.state == pb.VERSION_STATE_READY
    assert (again.code, again.reason) == (FP, "STATE_REFUSED")


async def test_a_version_in_use_is_yanked_only_with_its_aliases(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 2)
        await caller.stub.SetAlias(pb.SetAliasRequest(adapter=ADAPTER, alias="prod", version=2))
        refused = await refusal_of(act(caller, pb.VERSION_ACTION_YANK, 2))
        await act(caller, pb.VERSION_ACTION_YANK, 2, move_aliases_to=1)
        (alias,) = (await caller.stub.ListAliases(pb.ListAliasesRequest(adapter=ADAPTER))).aliases
        back = await refusal_of(caller.stub.SetAlias(pb.SetAliasRequest(adapter=ADAPTER, alias="prod", version=2)))
    assert (refused.code, refused.reason) == (FP, "VERSION_IN_USE")
    assert (alias.version, alias.generation) == (1, 2)
    assert (back.code, back.reason) == (FP, "VERSION_YANKED")


async def test_actions_that_make_no_sense_are_refused(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 1)
        unset = await refusal_of(act(caller, pb.VERSION_ACTION_UNSPECIFIED))
        unknown = await refusal_of(act(caller, 99))
        along = await refusal_of(act(caller, pb.VERSION_ACTION_UNDELETE, move_aliases_to=1))
        nobody = await refusal_of(act(caller, pb.VERSION_ACTION_YANK, 9))
    assert [(r.code, r.reason) for r in (unset, unknown, along)] == [(IA, "LIMIT")] * 3
    assert (nobody.code, nobody.reason) == (grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND")


async def test_deleted_versions_are_listed_when_asked_for(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 2)
        await act(caller, pb.VERSION_ACTION_DELETE, 1)
        listed = await caller.stub.ListVersions(pb.ListVersionsRequest(adapter=ADAPTER))
        everything = await caller.stub.ListVersions(pb.ListVersionsRequest(adapter=ADAPTER, include_deleted=True))
    assert [v.version for v in listed.versions] == [2]
    assert [(v.version, v.state) for v in everything.versions] == [
        (2, pb.VERSION_STATE_READY),
        (1, pb.VERSION_STATE_DELETED),
    ]


async def test_tags_come_and_go(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 1)
        request = pb.TagVersionRequest(adapter=ADAPTER, version=1, set_tags={"task": "ner", "lang": "zh"})
        first = (await caller.stub.TagVersion(request)).version
        request = pb.TagVersionRequest(adapter=ADAPTER, version=1, set_tags={"lang": "en"}, remove_tags=["task"])
        second = (await caller.stub.TagVersion(request)).version
        adapter = (
            await caller.stub.TagAdapter(pb.TagAdapterRequest(adapter=ADAPTER, set_tags={"team": "geo"}))
        ).adapter
        refused = await refusal_of(
            caller.stub.TagVersion(pb.TagVersionRequest(adapter=ADAPTER, version=1, set_tags={"Not a key": "x"}))
        )
        zero = await refusal_of(caller.stub.TagVersion(pb.TagVersionRequest(adapter=ADAPTER, set_tags={"a": "b"})))
    assert dict(first.tags) == {"task": "ner", "lang": "zh"}
    assert dict(second.tags) == {"lang": "en"}
    assert dict(adapter.tags) == {"team": "geo"}
    assert (refused.code, refused.reason) == (IA, "ARGUMENT_INVALID")
    assert (zero.code, zero.reason) == (IA, "REF_SYNTAX")


async def test_an_adapter_says_what_it_is_for(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 1)
        request = pb.UpdateAdapterRequest(adapter=ADAPTER, description="addresses\nof towns", owner="geo@example.org")
        await caller.stub.UpdateAdapter(request)
        summary = (await caller.stub.UpdateAdapter(pb.UpdateAdapterRequest(adapter=ADAPTER, owner=""))).adapter
        nothing = await refusal_of(caller.stub.UpdateAdapter(pb.UpdateAdapterRequest(adapter=ADAPTER)))
    assert (summary.description, summary.owner) == ("addresses\nof towns", "")
    assert (nothing.code, nothing.reason) == (IA, "ARGUMENT_INVALID")
