"""Upkeep over real gRPC: collect, scrub, and an audit log that says who, from where, and proves itself."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa
from handmade import write_adapter
from registry_harness import ADAPTER, as_actor, serving
from rpc_harness import refusal_of

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import upkeep_pb2
from switchyard.registry.base_model import BaseModelSpec

pytestmark = pytest.mark.asyncio

IA = grpc.StatusCode.INVALID_ARGUMENT


async def test_a_collection_tells_first_and_frees_then(tmp_path: Path, base: BaseModelSpec) -> None:
    directory = write_adapter(tmp_path / "adapter")
    async with serving(tmp_path / "registry", base) as caller:
        session_id = (await caller.begin(directory)).session_id
        for path in directory.iterdir():
            await caller.upload(session_id, path)
        await caller.stub.AbortPublish(pb.AbortPublishRequest(session_id=session_id))
        told = await caller.upkeep.Collect(upkeep_pb2.CollectRequest(grace_s=0))
        freed = await caller.upkeep.Collect(upkeep_pb2.CollectRequest(grace_s=0, execute=True))
        again = await caller.upkeep.Collect(upkeep_pb2.CollectRequest(grace_s=0, execute=True))
        by_default = await caller.upkeep.Collect(upkeep_pb2.CollectRequest())
        negative = await refusal_of(caller.upkeep.Collect(upkeep_pb2.CollectRequest(grace_s=-1)))
        endless = await refusal_of(caller.upkeep.Collect(upkeep_pb2.CollectRequest(grace_s=float("nan"))))
    files = list(directory.iterdir())
    assert (told.executed, told.removed_blobs) == (False, len(files))
    assert (freed.executed, freed.removed_blobs) == (True, len(files))
    assert freed.removed_bytes == sum(path.stat().st_size for path in files)
    assert again.removed_blobs == 0
    assert not by_default.executed
    assert [(r.code, r.reason) for r in (negative, endless)] == [(IA, "LIMIT")] * 2


async def test_a_scrub_finds_what_the_disk_has_changed(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        version = (await caller.publish(write_adapter(tmp_path / "a"))).version
        sound = await caller.upkeep.Scrub(upkeep_pb2.ScrubRequest())
        weights = next(file for file in version.files if file.path.endswith(".safetensors"))
        (stored,) = (tmp_path / "registry").rglob(weights.digest.removeprefix("sha256:"))
        data = bytearray(stored.read_bytes())
        data[-1] ^= 1
        stored.chmod(0o600)
        stored.write_bytes(data)
        found = await caller.upkeep.Scrub(upkeep_pb2.ScrubRequest())
        refused = await refusal_of(caller.upkeep.Scrub(upkeep_pb2.ScrubRequest(limit_bytes=2**63)))
    assert sound.checked_blobs >= len(version.files)
    assert list(sound.bad) == []
    assert [(blob.digest, list(blob.version_refs)) for blob in found.bad] == [(weights.digest, [f"{ADAPTER}:1"])]
    assert (refused.code, refused.reason) == (IA, "LIMIT")


async def test_the_audit_log_says_who_and_from_where(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 1)
        await caller.stub.SetAlias(
            pb.SetAliasRequest(adapter=ADAPTER, alias="prod", version=1),
            metadata=(*as_actor("grace"), ("x-request-id", "promote-7")),
        )
        request = upkeep_pb2.ListAuditEventsRequest(action="alias.set", target=ADAPTER)
        (event,) = (await caller.upkeep.ListAuditEvents(request)).events
        page = await caller.upkeep.ListAuditEvents(upkeep_pb2.ListAuditEventsRequest(page_size=2))
        rest = await caller.upkeep.ListAuditEvents(
            upkeep_pb2.ListAuditEventsRequest(after_sequence=page.events[-1].sequence)
        )
        verified = await caller.upkeep.VerifyAudit(upkeep_pb2.VerifyAuditRequest())
        refused = await refusal_of(
            caller.upkeep.ListAuditEvents(upkeep_pb2.ListAuditEventsRequest(after_sequence=-1))
        )
    assert (event.actor, event.action, event.target, event.request_id) == ("grace", "alias.set", ADAPTER, "promote-7")
    assert event.peer.startswith("ipv4:127.0.0.1:")
    assert event.create_time.seconds > 1_700_000_000
    assert [e.sequence for e in (*page.events, *rest.events)] == [1, 2, 3]
    assert (verified.verified_rows, verified.head_sequence, verified.head_hash) == (3, 3, event.hash)
    assert (refused.code, refused.reason) == (IA, "ARGUMENT_INVALID")


async def test_an_altered_audit_row_is_found(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 2)
        head = await caller.upkeep.VerifyAudit(upkeep_pb2.VerifyAuditRequest())
        engine = sa.create_engine(f"sqlite:///{tmp_path / 'registry' / 'registry.db'}")
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE audit SET actor = 'somebody else' WHERE seq = 2"))
        engine.dispose()
        altered = await refusal_of(caller.upkeep.VerifyAudit(upkeep_pb2.VerifyAuditRequest()))
        cut = await refusal_of(
            caller.upkeep.VerifyAudit(
                upkeep_pb2.VerifyAuditRequest(known_sequence=1, known_hash="sha256:" + "0" * 64)
            )
        )
    assert head.verified_rows == 3
    assert (altered.code, altered.reason) == (grpc.StatusCode.DATA_LOSS, "AUDIT_BROKEN")
    assert altered.metadata["seq"] == "2"
    assert cut.metadata["seq"] == "1"
