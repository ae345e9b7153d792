"""Aliases over real gRPC: compare-and-swap, rollback, splits, several at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from registry_harness import ADAPTER, Caller, as_actor, serving
from rpc_harness import refusal_of

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.base_model import BaseModelSpec

pytestmark = pytest.mark.asyncio

IA = grpc.StatusCode.INVALID_ARGUMENT


async def point(caller: Caller, alias: str, version: int) -> pb.Alias:
    moved = await caller.stub.SetAlias(pb.SetAliasRequest(adapter=ADAPTER, alias=alias, version=version))
    return moved.alias


async def history(caller: Caller, alias: str) -> list[pb.AliasEvent]:
    request = pb.ListAliasHistoryRequest(adapter=ADAPTER, alias=alias)
    return list((await caller.stub.ListAliasHistory(request)).events)


async def test_a_promote_with_a_stale_generation_loses(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 2)

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


async def test_a_rollback_goes_back_with_its_evidence(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 2)
        await point(caller, "prod", 1)
        nowhere = await refusal_of(caller.stub.RollbackAlias(pb.RollbackAliasRequest(adapter=ADAPTER, alias="prod")))
        await point(caller, "prod", 2)
        request = pb.RollbackAliasRequest(
            adapter=ADAPTER,
            alias="prod",
            expected_generation=2,
            reason="errors",
            evidence_json='{"error_rate": 0.25, "window_s": 60}',
        )
        move = (await caller.stub.RollbackAlias(request, metadata=as_actor("guard"))).move
        stale = await refusal_of(caller.stub.RollbackAlias(request))
        newest = (await history(caller, "prod"))[0]
    assert (nowhere.code, nowhere.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOTHING_TO_ROLL_BACK")
    assert (move.alias.version, move.previous_version, move.alias.generation) == (1, 2, 3)
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "GENERATION_MISMATCH")
    assert (newest.kind, newest.actor, newest.reason) == (pb.ALIAS_EVENT_KIND_ROLLBACK, "guard", "errors")
    assert json.loads(newest.evidence_json) == {"error_rate": 0.25, "window_s": 60}


async def test_several_aliases_move_together_or_not_at_all(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 2)
        await point(caller, "prod", 1)

        def batch(*targets: tuple[str, int, int]) -> Any:
            wanted = [
                pb.AliasTarget(adapter=ADAPTER, alias=alias, version=version, expected_generation=generation)
                for alias, version, generation in targets
            ]
            return caller.stub.BatchSetAliases(pb.BatchSetAliasesRequest(targets=wanted, reason="together"))

        refused = await refusal_of(batch(("blue", 2, 0), ("prod", 2, 7)))
        unmoved = await caller.stub.ListAliases(pb.ListAliasesRequest(adapter=ADAPTER))
        moves = (await batch(("blue", 2, 0), ("prod", 2, 1))).moves
        nothing = await refusal_of(batch())
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "GENERATION_MISMATCH")
    assert [(alias.name, alias.version) for alias in unmoved.aliases] == [("prod", 1)]
    assert [(m.alias.name, m.alias.version, m.alias.generation, m.previous_version) for m in moves] == [
        ("blue", 2, 1, 0),
        ("prod", 2, 2, 1),
    ]
    assert (nothing.code, nothing.reason) == (IA, "ARGUMENT_INVALID")


async def test_a_split_is_part_of_the_alias_and_of_its_history(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        versions = await caller.publish_many(tmp_path, 2)
        await point(caller, "prod", 1)

        def split(percent: int) -> Any:
            return caller.stub.SetCanary(
                pb.SetCanaryRequest(adapter=ADAPTER, alias="prod", version=2, percent=percent, reason="try")
            )

        begun = (await split(5)).alias
        refused = await refusal_of(split(100))
        ended = (await split(0)).alias
        kinds = [(e.kind, e.canary_version, e.canary_percent) for e in await history(caller, "prod")]
    assert begun.canary == pb.CanarySplit(version=2, digest=versions[1].digest, percent=5)
    assert (begun.version, begun.generation) == (1, 2)
    assert (refused.code, refused.reason) == (IA, "ARGUMENT_INVALID")
    assert not ended.HasField("canary")
    assert kinds == [
        (pb.ALIAS_EVENT_KIND_CANARY, 0, 0),
        (pb.ALIAS_EVENT_KIND_CANARY, 2, 5),
        (pb.ALIAS_EVENT_KIND_SET, 0, 0),
    ]


async def test_a_deleted_alias_keeps_its_history(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 1)
        await point(caller, "prod", 1)
        request = pb.DeleteAliasRequest(adapter=ADAPTER, alias="prod", expected_generation=1, reason="done")
        event = (await caller.stub.DeleteAlias(request)).event
        gone = await refusal_of(caller.stub.DeleteAlias(pb.DeleteAliasRequest(adapter=ADAPTER, alias="prod")))
        listed = await caller.stub.ListAliases(pb.ListAliasesRequest(adapter=ADAPTER))
        kept = await history(caller, "prod")
    assert (event.kind, event.generation, event.to_version) == (pb.ALIAS_EVENT_KIND_DELETE, 2, 0)
    assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "ALIAS_NOT_FOUND")
    assert list(listed.aliases) == []
    assert [event.generation for event in kept] == [2, 1]


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"a": NaN}', '{"a": 1, "a": 2}', '{"a": "' + "x" * 16384 + '"}', '{"a":' * 20 + "1" + "}" * 20],
)
async def test_evidence_that_is_no_small_json_object_is_refused(
    tmp_path: Path, base: BaseModelSpec, text: str
) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        request = pb.SetAliasRequest(adapter=ADAPTER, alias="prod", version=1, evidence_json=text, reason="r" * 2001)
        refused = await refusal_of(caller.stub.SetAlias(request))
    assert refused.code == IA
    assert [violation[0] for violation in refused.violations] == ["reason", "evidence_json"]
