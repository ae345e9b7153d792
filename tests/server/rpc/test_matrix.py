"""Every field of every request at its extremes: each call is answered or refused with a reason, never INTERNAL.

The cases come from the descriptors, so a new field is tried without anybody remembering it. A stream of
another caller runs all the while and keeps its tokens.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_engine import FakeEngine, echo, finished
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from guarded import silent_services
from handmade import write_adapter, write_base
from rpc_harness import POLICY, refusal, refusal_of, running, version

from switchyard.proto.admin.v1 import admin_pb2
from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.proto.registry.v1 import registry_pb2, rollout_pb2, upkeep_pb2
from switchyard.registry.base_model import describe_base
from switchyard.registry.digest import file_digest
from switchyard.registry.lineage import Lineage
from switchyard.registry.manifest import FileEntry
from switchyard.registry.refs import AdapterName
from switchyard.registry.rollout.plan import RolloutPlan
from switchyard.registry.statements.kinds import StatementKind
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files
from switchyard.server.calls.live import LiveWork
from switchyard.server.engine.types import GenerateRequest, TokenEvent
from switchyard.server.observe.readiness import Readiness
from switchyard.server.rpc.app import MESSAGE_BYTES, GrpcApp
from switchyard.server.rpc.registry.services import REGISTRY_SERVICES, registry_services
from switchyard.server.rpc.registry.tail import FeedTail

INT_EXTREMES = (0, 1, -1, 2**31 - 1, -(2**31), 2**31, 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1)
FLOAT_EXTREMES = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e9, 3e38, math.nan, math.inf, -math.inf)
MARKED = "e\u0301" * 99
TEXT_EXTREMES = (
    "",
    "\x00",
    "a\nb",
    "../../etc/passwd",
    "a" * 5000,
    "路" * 300,
    "\u202e",
    "sha256:" + "0" * 64,
    "x" * 200_000,
    MARKED,
)
LARGEST_BYTES = MESSAGE_BYTES + (1 << 20)
"""Messages that gRPC refuses for their size are tried too, but no larger ones."""

BYTES_EXTREMES = (b"", b"\x00" * 10, b"\xff" * 2000)

ANSWERS_NEVER_GIVEN = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED}

WATCH = "switchyard.registry.v1.RegistryService.Watch"
APPROVAL = b'{"approver": "local", "note": "as it should be"}'

METHODS = [
    (method.full_name, method)
    for file in (
        pb.DESCRIPTOR,
        registry_pb2.DESCRIPTOR,
        rollout_pb2.DESCRIPTOR,
        upkeep_pb2.DESCRIPTOR,
        admin_pb2.DESCRIPTOR,
    )
    for service in file.services_by_name.values()
    for method in service.methods
]


def extremes(field: FieldDescriptor) -> tuple[Any, ...]:
    kinds = FieldDescriptor
    if field.cpp_type in {kinds.CPPTYPE_FLOAT, kinds.CPPTYPE_DOUBLE}:
        return FLOAT_EXTREMES
    if field.type == kinds.TYPE_STRING:
        return TEXT_EXTREMES
    if field.type == kinds.TYPE_BYTES:
        return BYTES_EXTREMES
    if field.cpp_type == kinds.CPPTYPE_BOOL:
        return (True, False)
    if field.cpp_type == kinds.CPPTYPE_ENUM:
        return (0, 1, 99)
    return INT_EXTREMES


def variants(descriptor: Descriptor, depth: int = 0) -> Iterator[Message]:
    """Messages with one field set to an extreme, nested ones included."""
    make = GetMessageClass(descriptor)
    yield make()
    for field in descriptor.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            message = make()
            entry = field.message_type.fields_by_name
            if entry["key"].cpp_type == FieldDescriptor.CPPTYPE_STRING:
                getattr(message, field.name)["key"] = "\x00" * 300
            else:
                getattr(message, field.name)[2**32 - 1] = math.nan
            yield message
        elif field.message_type is not None:
            for nested in variants(field.message_type, depth + 1) if depth < 3 else ():
                for count in (1, 300) if field.is_repeated else (1,):
                    if nested.ByteSize() * count > LARGEST_BYTES:
                        continue
                    message = make()
                    place = getattr(message, field.name)
                    if field.is_repeated:
                        place.extend([nested] * count)
                    else:
                        place.CopyFrom(nested)
                    yield message
        else:
            yield from _scalars(make, field)


def _scalars(make: Any, field: FieldDescriptor) -> Iterator[Message]:
    for value in extremes(field):
        message = make()
        try:
            if field.is_repeated:
                getattr(message, field.name).extend([value] * 40)
            else:
                setattr(message, field.name, value)
        except ValueError:
            continue  # no such number in this type: it cannot be sent
        yield message


def completed(message: Any, orderly: dict[str, Any]) -> Iterator[Message]:
    """The message as it is, and with everything else in order, so that the odd field is reached."""
    yield message
    _complete_generation(message)
    for field in message.DESCRIPTOR.fields:
        if field.name == "plan":
            place, whole = message.plan, type(message.plan)()
            whole.CopyFrom(orderly["plan"])
            whole.MergeFrom(place)
            place.CopyFrom(whole)
            continue
        if field.name not in orderly or field.containing_oneof is not None or getattr(message, field.name):
            continue
        if field.type == FieldDescriptor.TYPE_STRING and not isinstance(orderly[field.name], str):
            continue
        if isinstance(orderly[field.name], dict):
            getattr(message, field.name).update(orderly[field.name])
        elif field.is_repeated:
            getattr(message, field.name).extend(orderly[field.name])
        else:
            setattr(message, field.name, orderly[field.name])
    yield message


def _complete_generation(message: Any) -> None:
    """Says who answers and what is said, where that was left out."""
    request = message.request if isinstance(message, pb.GenerateOnceRequest | pb.RenderRequest) else message
    if isinstance(request, pb.ChatRequest):
        if request.WhichOneof("target") is None:
            request.base.SetInParent()
        if not request.messages:
            request.messages.add(role=pb.CHAT_ROLE_USER, content="hi")
    if isinstance(request, pb.EmbedRequest):
        if request.WhichOneof("target") is None:
            request.base.SetInParent()
        if not request.inputs:
            request.inputs.add(text="hi")
    if isinstance(request, pb.GenerateRequest | pb.ScoreRequest):
        if request.WhichOneof("target") is None:
            request.base.SetInParent()
        if request.WhichOneof("input") is None:
            request.prompt = "hi"


async def outcome(call: Any, *, streaming: bool, endless: bool) -> grpc.StatusCode:
    try:
        if endless:
            await call.read()
            call.cancel()
        elif streaming:
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        refused = refusal(error)
        # What gRPC itself refuses has no details; everything else says why.
        assert refused.reason or refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED, refused
        assert refused.message
        return refused.code
    return grpc.StatusCode.OK


@asynccontextmanager
async def registry_service(place: Path) -> AsyncIterator[tuple[grpc.aio.Channel, dict[str, Any]]]:
    """A registry with one version and one open upload, and values with which calls of it succeed."""
    base = describe_base(write_base(place / "base"))
    with (
        Registry.open(place / "registry", validate=validate_files) as registry,
        FeedTail(registry.feed) as tail,
        registry_services(registry, tail, live := LiveWork()) as services,
    ):
        registry.register_base(base)
        name = AdapterName("team", "a")
        adapter = write_adapter(place / "adapter")
        published = registry.publish(name, adapter, base_digest=base.digest, publisher="x", set_alias="prod").version
        assert published is not None
        candidate = write_adapter(place / "candidate", seed=2)
        registry.publish(name, candidate, base_digest=base.digest, publisher="x")
        registry.rollouts.start(name, "prod", RolloutPlan(2), actor="x")
        other = [
            FileEntry(path.name, file_digest(path), path.stat().st_size)
            for path in write_adapter(place / "other", seed=1).iterdir()
        ]
        session = registry.begin_publish(
            name, other, base_digest=base.digest, lineage=Lineage(), idempotency_key="open", publisher="x"
        )
        approval = registry.statements.attach(name, published.digest, StatementKind.APPROVAL, APPROVAL, actor="local")
        app = GrpcApp(REGISTRY_SERVICES, live, Readiness())
        address, _ = await app.bind("127.0.0.1:0", None)
        await app.serve(services)
        async with grpc.aio.insecure_channel(address) as channel:
            yield (
                channel,
                {
                    "adapter": str(name),
                    "ref": "team/a:1",
                    "other_ref": "team/a:1",
                    "namespace": "team",
                    "action": registry_pb2.VERSION_ACTION_DEPRECATE,
                    "set_tags": {"key": "value"},
                    "description": "what it is for",
                    "targets": [registry_pb2.AliasTarget(adapter=str(name), alias="prod", version=1)],
                    "kind": "approval",
                    "payload": APPROVAL,
                    "statement_id": approval.id,
                    "alias": "prod",
                    "plan": rollout_pb2.RolloutPlan(candidate=2),
                    "version": 1,
                    "base_digest": base.digest,
                    "idempotency_key": "key",
                    "session_id": session.session_id,
                    "digest": published.file("adapter_config.json").digest,
                    "files": [
                        registry_pb2.FileRef(path=file.path, digest=file.digest, size_bytes=file.size_bytes)
                        for file in other
                    ],
                },
            )
        await app.stop()


def sentinel_or_echo(request: GenerateRequest) -> list[Any]:
    return [] if request.request_id == "sentinel" else list(echo(request))


@pytest.mark.asyncio
@pytest.mark.parametrize(("name", "method"), METHODS, ids=[name for name, _ in METHODS])
async def test_no_field_at_an_extreme_is_an_internal_error(name: str, method: Any, tmp_path: Path) -> None:
    async with (
        running(FakeEngine(sentinel_or_echo), version("a")) as harness,
        registry_service(tmp_path) as (registry_channel, orderly),
    ):
        sentinel = harness.inference.Generate(
            pb.GenerateRequest(base=pb.BaseTarget(), prompt="hi", request_id="sentinel")
        )
        await sentinel.read()
        channel = registry_channel if ".registry." in name else harness.channel
        path = f"/{method.containing_service.full_name}/{method.name}"
        answer = GetMessageClass(method.output_type).FromString
        seen: dict[grpc.StatusCode, int] = {}
        for variant in variants(method.input_type):
            for message in completed(variant, orderly):
                call = _call(channel, path, method, message, answer)
                code = await outcome(call, streaming=method.server_streaming, endless=name == WATCH)
                seen[code] = seen.get(code, 0) + 1
                assert code not in ANSWERS_NEVER_GIVEN, message
        request = next(r for r in harness.engine.submitted if r.request_id == "sentinel")
        harness.engine.emit("sentinel", TokenEvent("untouched", (7,)))
        harness.engine.emit("sentinel", finished(request, 1))
        assert (await sentinel.read()).chunk.text == "untouched"
        assert (await sentinel.read()).WhichOneof("event") == "finished"
    # The odd field was reached: with all else in order the call succeeds, or fails for the bytes that nobody sent.
    assert {grpc.StatusCode.OK, grpc.StatusCode.FAILED_PRECONDITION} & set(seen)
    assert all(request.stopping.max_tokens <= POLICY.max_context_tokens for request in harness.engine.submitted)


@pytest.mark.asyncio
@pytest.mark.parametrize(("name", "method"), METHODS, ids=[name for name, _ in METHODS])
async def test_text_that_is_not_utf8_is_the_callers_fault(name: str, method: Any) -> None:
    """In every text field of every request, nested ones included; no encoder of ours would send it."""
    marked = MARKED.encode()
    wrong = [
        encoded.replace(marked, b"\xff" * len(marked))
        for message in variants(method.input_type)
        if marked in (encoded := message.SerializeToString()) and len(encoded) <= MESSAGE_BYTES
    ]
    async with guarded_by_nobody() as channel:
        path = f"/{method.containing_service.full_name}/{method.name}"
        for encoded in wrong:
            call = _call(channel, path, method, encoded, GetMessageClass(method.output_type).FromString)
            refused = await refusal_of(call.read() if method.server_streaming else call)
            assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ENCODING"), encoded
    assert bool(wrong) is _has_text(method.input_type)


@asynccontextmanager
async def guarded_by_nobody() -> AsyncIterator[grpc.aio.Channel]:
    """Every service, over servicers that answer every call that reaches them."""
    services = silent_services()
    app = GrpcApp([service.name for service in services], LiveWork(), Readiness())
    address, _ = await app.bind("127.0.0.1:0", None)
    await app.serve(services)
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel
    await app.stop()


def _has_text(descriptor: Descriptor, depth: int = 0) -> bool:
    if descriptor.GetOptions().map_entry or depth > 3:
        return False
    return any(
        _has_text(field.message_type, depth + 1)
        if field.message_type is not None
        else field.type == FieldDescriptor.TYPE_STRING
        for field in descriptor.fields
    )


def _call(channel: grpc.aio.Channel, path: str, method: Any, message: Message | bytes, answer: Any) -> Any:
    encode = bytes if isinstance(message, bytes) else type(message).SerializeToString
    if method.client_streaming:
        return channel.stream_unary(path, encode, answer)(iter([message]))
    if method.server_streaming:
        return channel.unary_stream(path, encode, answer)(message)
    return channel.unary_unary(path, encode, answer)(message)
