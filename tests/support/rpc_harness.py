"""A real gRPC server on a free port over a fake engine and a registry of made-up versions."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import grpc
from fake_engine import FakeEngine
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from switchyard.proto.admin.v1 import admin_pb2_grpc
from switchyard.proto.inference.v1 import inference_pb2_grpc
from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import AdapterNotFound
from switchyard.registry.lineage import Lineage, QuantizationSpec
from switchyard.registry.manifest import FileEntry
from switchyard.registry.records import AdapterShape, ResolvedAdapter, VersionRecord
from switchyard.registry.refs import AdapterRef
from switchyard.registry.strict_json import Json
from switchyard.server.adapters.tiers import AdapterState, AdapterStatus
from switchyard.server.calls.admission import Admission, AdmissionPolicy
from switchyard.server.calls.answering import Answering
from switchyard.server.calls.catalog import ServablePage
from switchyard.server.calls.contracts import Contracts
from switchyard.server.calls.embedding import Embedding
from switchyard.server.calls.live import LiveWork
from switchyard.server.calls.ports import AnswerObserver, Resolver
from switchyard.server.calls.prompts import Prompts
from switchyard.server.calls.quotas import Quotas
from switchyard.server.chat.origin import Segment
from switchyard.server.chat.render_worker import answer
from switchyard.server.chat.renderer import Rendered, rendered_of
from switchyard.server.engine.ports import Clock
from switchyard.server.engine.structure import Structure
from switchyard.server.engine.types import AdapterSelection, Digest
from switchyard.server.errors import StructureInvalid
from switchyard.server.observe.metrics import Metrics
from switchyard.server.observe.readiness import Readiness
from switchyard.server.rpc.admin import AdminServicer, ServerFacts
from switchyard.server.rpc.app import GrpcApp, Service
from switchyard.server.rpc.inference import InferenceServicer

INFERENCE = "switchyard.inference.v1.InferenceService"
ADMIN = "switchyard.admin.v1.AdminService"

BASE = BaseModelSpec(
    name="tiny",
    digest=sha256_digest(b"base"),
    config_digest=sha256_digest(b"config"),
    weights_digest=sha256_digest(b"weights"),
    tokenizer_digest=sha256_digest(b"tokenizer"),
    chat_template_digest="",
    architecture="LlamaForCausalLM",
    vocab_size=288,
    modules={},
)
OTHER_BASE = BaseModelSpec(
    name="other",
    digest=sha256_digest(b"other base"),
    config_digest=BASE.config_digest,
    weights_digest=sha256_digest(b"other weights"),
    tokenizer_digest=BASE.tokenizer_digest,
    chat_template_digest="",
    architecture="LlamaForCausalLM",
    vocab_size=288,
    modules={},
)
QUANTIZATION = QuantizationSpec("nf4", double_quantization=True, compute_dtype="float32")
POLICY = AdmissionPolicy(
    base_digest=BASE.digest,
    quantization=QUANTIZATION.label(),
    max_context_tokens=64,
    max_rank=16,
    default_max_tokens=8,
    max_prompt_bytes=1000,
    max_request_s=60.0,
    embedding_width=4,
)
FACTS = ServerFacts("0.0.0", BASE.name, BASE.digest, QUANTIZATION.label(), 4, 64, 16, 2, 1 << 20)


def version(
    adapter: str,
    number: int = 1,
    *,
    rank: int = 8,
    base: BaseModelSpec = BASE,
    trained: QuantizationSpec | None = QUANTIZATION,
) -> VersionRecord:
    """A version that nobody published."""
    return VersionRecord(
        namespace="default",
        adapter=adapter,
        version=number,
        digest=sha256_digest(f"{adapter}:{number}".encode()),
        base=base,
        shape=AdapterShape(rank, ("q_proj",), (), "float32", 1024, 4096),
        lineage=Lineage(training_quantization=trained),
        files=(
            FileEntry("adapter_config.json", sha256_digest(f"config {adapter}".encode()), 100),
            FileEntry("adapter_model.safetensors", sha256_digest(f"weights {adapter}{number}".encode()), 4096),
        ),
        publisher="local",
        note="",
        created_at_s=0.0,
        aliases=(),
        warnings=(),
    )


class FakeResolver:
    """Knows what it was told."""

    def __init__(self, *versions: VersionRecord) -> None:
        self.versions = {(v.adapter, v.version): v for v in versions}
        self.aliases: dict[tuple[str, str], tuple[int, int]] = {}
        self.asked: list[str] = []
        self.session_keys: list[str] = []

    def set_alias(self, adapter: str, alias: str, number: int) -> None:
        _, generation = self.aliases.get((adapter, alias), (0, 0))
        self.aliases[adapter, alias] = (number, generation + 1)

    async def resolve(self, ref: AdapterRef, session_key: str) -> ResolvedAdapter:
        self.asked.append(str(ref))
        self.session_keys.append(session_key)
        number, generation = ref.version or 0, 0
        if ref.alias is not None:
            number, generation = self.aliases.get((ref.adapter, ref.alias), (0, 0))
        for record in self.versions.values():
            if record.adapter == ref.adapter and (record.version == number or record.digest == ref.digest):
                return ResolvedAdapter(record, ref.alias or "", generation)
        raise AdapterNotFound(f"{ref.name} has no version; publish it first")


class ByteTokenizer:
    """One token per byte, with a token in front."""

    vocab_size = 260

    def encode(self, text: str) -> tuple[int, ...]:
        return (1, *(4 + byte for byte in text.encode()))

    chat_template = "{% for turn in messages %}<s>{{ turn.role }}: {{ turn.content }}</s>{% endfor %}"
    control_tokens = ("<s>", "</s>")
    template_variables: Mapping[str, Json] = MappingProxyType({})

    def encode_parts(self, parts: Sequence[Segment]) -> tuple[int, ...]:
        ids: list[int] = []
        for part in parts:
            pieces = re.split("(</?s>)", part.text) if part.has_control else [part.text]
            for piece in pieces:
                known = {"<s>": [1], "</s>": [2]} if part.has_control else {}
                ids += known.get(piece, [4 + byte for byte in piece.encode()])
        return tuple(ids)

    def text_of(self, token_id: int) -> str:
        return chr(token_id - 4) if token_id >= 4 else f"<{token_id}>"


@dataclass(frozen=True)
class FakeGrammar:
    digest: str


class FakeGrammars:
    """Takes every structure whose text is not `bad`."""

    async def compile(self, structure: Structure) -> FakeGrammar:
        if "bad" in structure.texts:
            raise StructureInvalid(f"{structure.kind}: bad")
        return FakeGrammar(f"{structure.kind} {structure.texts}")


class RenderingHere:
    """Runs templates in this process."""

    async def render(self, template: str, turns: list[Json], tools: list[Json]) -> Rendered:
        asked = {"template": template, "turns": turns, "tools": tools, "variables": {}, "most_characters": 1 << 20}
        told: Any = answer(json.dumps(asked))
        return rendered_of(told)


@dataclass
class FakeBlobs:
    """Files of versions, by digest."""

    kept: dict[str, bytes] = field(default_factory=dict)

    def read_blob(self, digest: str) -> bytes:
        return self.kept[digest]


def admission_with(
    resolver: Resolver,
    clock: Clock,
    pool: Executor,
    policy: AdmissionPolicy | None = None,
    blobs: FakeBlobs | None = None,
    answers: AnswerObserver | None = None,
) -> Admission:
    """Admission in front of nothing."""
    prompts = Prompts(ByteTokenizer(), pool, RenderingHere())
    return Admission(
        policy or POLICY, resolver, prompts, Contracts(blobs or FakeBlobs(), pool), clock, FakeGrammars(), answers
    )


class FakeClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def now(self) -> float:
        return self.now_s


@dataclass
class FakeMemory:
    """Adapters in memory, by key."""

    entries: dict[str, AdapterStatus] = field(default_factory=dict)
    prefetched: list[str] = field(default_factory=list)

    async def statuses(self) -> Sequence[AdapterStatus]:
        return list(self.entries.values())

    async def load(self, selection: AdapterSelection) -> AdapterStatus:
        status = AdapterStatus(selection.key, AdapterState.HOST, 4096, 0, 0, "", 0.0)
        self.entries[selection.key] = status
        return status

    async def prefetch(self, selection: AdapterSelection) -> None:
        self.prefetched.append(selection.key)

    async def unload(self, key: Digest) -> AdapterStatus | None:
        return self.entries.pop(key, None)


class NothingServable:
    """A catalog without adapters."""

    async def page(self, page_size: int, page_token: str) -> ServablePage:
        del page_size, page_token
        return ServablePage(BASE.name, BASE.digest, QUANTIZATION.label(), (), "")


@dataclass
class Harness:
    """A running server and everything behind it."""

    app: GrpcApp
    engine: FakeEngine
    resolver: FakeResolver
    memory: FakeMemory
    metrics: Metrics
    live: LiveWork
    clock: FakeClock
    address: str
    health_address: str
    channel: grpc.aio.Channel
    inference: Any
    admin: Any
    drains: list[float | None]


@asynccontextmanager
async def running(
    engine: FakeEngine | None = None,
    *versions: VersionRecord,
    write_stall_s: float = 5.0,
    quotas: Quotas | None = None,
) -> AsyncIterator[Harness]:
    """Serves until the block ends."""
    engine = engine or FakeEngine()
    resolver, memory, metrics, live = FakeResolver(*versions), FakeMemory(), Metrics(), LiveWork()
    clock = FakeClock()
    drains: list[float | None] = []
    with ThreadPoolExecutor(1) as pool:
        admission = admission_with(resolver, clock, pool)
        catalog: Any = NothingServable()
        answering = Answering(admission, engine, live, metrics, quotas or Quotas(clock))
        embedding = Embedding(admission, answering, parallel=2)
        inference = InferenceServicer(
            answering, embedding, catalog, ByteTokenizer().text_of, write_stall_s=write_stall_s
        )
        admin = AdminServicer(
            FACTS,
            admission,
            engine,
            memory,
            rss_bytes=lambda: 1 << 20,
            fingerprint=_fingerprint,
            begin_drain=drains.append,
        )
        app = GrpcApp([INFERENCE, ADMIN], live, Readiness(), observer=metrics)
        address, health_address = await app.bind("127.0.0.1:0", "127.0.0.1:0")
        await app.serve(
            [
                Service(INFERENCE, inference, inference_pb2_grpc.add_InferenceServiceServicer_to_server),
                Service(ADMIN, admin, admin_pb2_grpc.add_AdminServiceServicer_to_server),
            ]
        )
        async with grpc.aio.insecure_channel(address) as channel:
            try:
                yield Harness(
                    app,
                    engine,
                    resolver,
                    memory,
                    metrics,
                    live,
                    clock,
                    address,
                    health_address,
                    channel,
                    inference_pb2_grpc.InferenceServiceStub(channel),
                    admin_pb2_grpc.AdminServiceStub(channel),
                    drains,
                )
            finally:
                await app.stop()


@dataclass(frozen=True)
class Refusal:
    """A status as a caller sees it."""

    code: grpc.StatusCode
    message: str
    reason: str
    domain: str
    metadata: dict[str, str]
    violations: list[tuple[str, str, str]]
    retry_after_s: float | None


async def refusal_of(call: Any) -> Refusal:
    """Waits for a call that must fail."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return refusal(error)
    raise AssertionError(f"the call was answered: {answer}")


def refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """Takes a failure apart."""
    status = status_pb2.Status()
    trailing = dict(error.trailing_metadata() or ())
    packed = trailing.get(rpc_status.GRPC_DETAILS_METADATA_KEY, b"")
    status.ParseFromString(packed if isinstance(packed, bytes) else packed.encode())
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    has_retry = False
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        has_retry |= detail.Unpack(retry)
    return Refusal(
        error.code(),
        error.details() or "",
        info.reason,
        info.domain,
        dict(info.metadata),
        [(v.field, v.reason, v.description) for v in bad.field_violations],
        retry.retry_delay.ToMilliseconds() / 1000 if has_retry else None,
    )


async def _fingerprint() -> str:
    return "sha256:00"
