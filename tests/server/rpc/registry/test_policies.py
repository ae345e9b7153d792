"""Rules over real gRPC: protected aliases, namespaces, and everything that is unmet told at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from handmade import write_adapter
from registry_harness import ADAPTER, as_actor, serving
from rpc_harness import refusal_of

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.base_model import BaseModelSpec

pytestmark = pytest.mark.asyncio

IA = grpc.StatusCode.INVALID_ARGUMENT
FP = grpc.StatusCode.FAILED_PRECONDITION

STRICT = pb.AliasPolicy(protected=True, required_statements=["evaluation"], distinct_promoter=True, min_approvals=1)

APPROVAL = b'{"approver": "grace", "note": "good"}'
EVALUATION = json.dumps(
    {
        "metrics": [{"name": "exact_match", "value": 0.9}],
        "dataset_digest": "sha256:" + "e" * 64,
        "serving_quantization": {"method": "nf4", "double_quantization": True, "compute_dtype": "float32"},
        "tool": "by hand",
    }
).encode()


async def test_a_protected_alias_tells_all_that_is_missing(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 1)
        before = await caller.stub.GetAliasPolicy(pb.GetAliasPolicyRequest(adapter=ADAPTER, alias="prod"))
        request = pb.SetAliasPolicyRequest(adapter=ADAPTER, alias="prod", policy=STRICT)
        after = await caller.stub.SetAliasPolicy(request)
        shown = await caller.stub.GetAliasPolicy(pb.GetAliasPolicyRequest(adapter=ADAPTER, alias="prod"))

        def promote(actor: str, **more: Any) -> Any:
            move = pb.SetAliasRequest(adapter=ADAPTER, alias="prod", version=1, **more)
            return caller.stub.SetAlias(move, metadata=as_actor(actor))

        refused = await refusal_of(promote("ada"))
        for kind, payload in (("evaluation", EVALUATION), ("approval", APPROVAL)):
            attach = pb.AttachStatementRequest(ref=f"{ADAPTER}:1", kind=kind, payload=payload)
            await caller.stub.AttachStatement(attach, metadata=as_actor("grace"))
        moved = await promote("grace", expected_generation=0)
    assert before.policy == pb.AliasPolicy()
    assert after.policy == shown.policy == STRICT
    assert (refused.code, refused.reason) == (FP, "POLICY_UNMET")
    assert {violation[1] for violation in refused.violations} == {
        "GENERATION_REQUIRED",
        "STATEMENT_MISSING",
        "APPROVALS_MISSING",
        "PROMOTER_IS_PUBLISHER",
    }
    assert moved.alias.version == 1


async def test_policies_out_of_range_are_refused(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 1)

        def give(policy: pb.AliasPolicy, adapter: str = ADAPTER) -> Any:
            return caller.stub.SetAliasPolicy(pb.SetAliasPolicyRequest(adapter=adapter, alias="prod", policy=policy))

        kind = await refusal_of(give(pb.AliasPolicy(required_statements=["horoscope"])))
        count = await refusal_of(give(pb.AliasPolicy(min_approvals=-1)))
        nobody = await refusal_of(give(STRICT, "team/nobody"))
    assert [(r.code, r.reason) for r in (kind, count)] == [(IA, "ARGUMENT_INVALID")] * 2
    assert (nobody.code, nobody.reason) == (grpc.StatusCode.NOT_FOUND, "ADAPTER_NOT_FOUND")


async def test_a_namespace_holds_what_it_may(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        nothing = await refusal_of(caller.stub.GetNamespace(pb.GetNamespaceRequest(namespace="team")))
        await caller.publish_many(tmp_path, 1)
        shown = (await caller.stub.GetNamespace(pb.GetNamespaceRequest(namespace="team"))).namespace

        def change(**what: Any) -> Any:
            return caller.stub.UpdateNamespace(pb.UpdateNamespaceRequest(namespace="team", **what))

        limited = (await change(quota_bytes=shown.used_bytes)).namespace
        full = await refusal_of(caller.publish(write_adapter(tmp_path / "more", seed=7), key="more"))
        policy = pb.NamespacePolicy(keep_last=3, keep_days=1.5, protected_aliases=["prod"], distinct_promoter=True)
        ruled = (await change(policy=policy)).namespace
        free = (await change(clear_quota=True)).namespace
        inherited = await caller.stub.GetAliasPolicy(pb.GetAliasPolicyRequest(adapter=ADAPTER, alias="prod"))
        listed = (await caller.stub.ListNamespaces(pb.ListNamespacesRequest())).namespaces
        none = await refusal_of(change())
        both = await refusal_of(change(quota_bytes=1, clear_quota=True))
        negative = await refusal_of(change(quota_bytes=-1))
        rules = await refusal_of(change(policy=pb.NamespacePolicy(keep_last=-1, keep_days=float("nan"))))
    assert (nothing.code, nothing.reason) == (grpc.StatusCode.NOT_FOUND, "NAMESPACE_NOT_FOUND")
    assert shown.used_bytes > 0
    assert not shown.HasField("quota_bytes")
    assert limited.quota_bytes == shown.used_bytes
    assert (full.code, full.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
    assert (ruled.policy, ruled.quota_bytes) == (policy, shown.used_bytes)
    assert not free.HasField("quota_bytes")
    assert inherited.policy == pb.AliasPolicy(protected=True, distinct_promoter=True)
    assert [namespace.name for namespace in listed] == ["team"]
    assert [(r.code, r.reason) for r in (none, both)] == [(IA, "LIMIT")] * 2
    assert [(r.code, r.reason) for r in (negative, rules)] == [(IA, "ARGUMENT_INVALID")] * 2
