"""Statements over real gRPC: attached to one version, listed, read, and refused with every fault."""

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
APPROVAL = b'{"approver": "grace", "note": "good"}'


async def test_a_statement_is_kept_with_its_version(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        first, second = await caller.publish_many(tmp_path, 2)
        request = pb.AttachStatementRequest(ref=f"{ADAPTER}@{first.digest}", kind="approval", payload=APPROVAL)
        attached = (await caller.stub.AttachStatement(request, metadata=as_actor("grace"))).statement
        again = (await caller.stub.AttachStatement(request, metadata=as_actor("grace"))).statement
        listed = await caller.stub.ListStatements(pb.ListStatementsRequest(ref=f"{ADAPTER}:1"))
        read = await caller.stub.ReadStatement(pb.ReadStatementRequest(ref=f"{ADAPTER}:1", statement_id=attached.id))
        strayed = await refusal_of(
            caller.stub.ReadStatement(pb.ReadStatementRequest(ref=f"{ADAPTER}:2", statement_id=attached.id))
        )
        other = await caller.stub.ListStatements(pb.ListStatementsRequest(ref=f"{ADAPTER}@{second.digest}"))
    assert attached == again
    assert (attached.kind, attached.actor, attached.subject_digest) == ("approval", "grace", first.digest)
    assert json.loads(attached.summary_json)["note"] == "good"
    assert list(listed.statements) == [attached]
    assert (read.statement, read.payload) == (attached, APPROVAL)
    assert (strayed.code, strayed.reason) == (grpc.StatusCode.NOT_FOUND, "STATEMENT_NOT_FOUND")
    assert list(other.statements) == []


async def test_they_are_listed_in_pages(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish(write_adapter(tmp_path / "adapter"))
        for actor in ("ada", "bob", "eve"):
            request = pb.AttachStatementRequest(ref=f"{ADAPTER}:1", kind="approval", payload=b"{}")
            await caller.stub.AttachStatement(request, metadata=as_actor(actor))

        async def page(size: int, token: str = "") -> pb.ListStatementsResponse:
            asked = pb.ListStatementsRequest(ref=f"{ADAPTER}:1", page_size=size, page_token=token)
            return await caller.stub.ListStatements(asked)

        whole, first = await page(0), await page(2)
        second = await page(2, first.next_page_token)
        large = await refusal_of(page(1001))
    assert [*first.statements, *second.statements] == list(whole.statements)
    assert (len(first.statements), len(whole.statements)) == (2, 3)
    assert (second.next_page_token, whole.next_page_token) == ("", "")
    assert [violation[0] for violation in large.violations] == ["page_size"]


async def test_statements_that_do_not_hold_are_refused(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish(write_adapter(tmp_path / "adapter"), set_alias="prod")

        def attach(ref: str, kind: str, payload: bytes) -> Any:
            request = pb.AttachStatementRequest(ref=ref, kind=kind, payload=payload)
            return refusal_of(caller.stub.AttachStatement(request, metadata=as_actor("grace")))

        moving = await attach(f"{ADAPTER}@prod", "horoscope", APPROVAL)
        faulty = await attach(f"{ADAPTER}:1", "evaluation", b'{"metrics": [], "colour": "red"}')
        large = await attach(f"{ADAPTER}:1", "approval", b" " * ((1 << 20) + 1))
        unsigned = await attach(f"{ADAPTER}:1", "signature", b"{}")
        nowhere = await attach(f"{ADAPTER}:9", "approval", APPROVAL)
    assert (moving.code, [violation[0] for violation in moving.violations]) == (IA, ["ref", "kind"])
    assert faulty.code == IA
    assert len(faulty.violations) > 1
    assert (large.code, large.reason) == (IA, "SIZE")
    assert unsigned.code == IA
    assert (nowhere.code, nowhere.reason) == (grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND")
