"""What stands between a resident model and its callers: gRPC services, HTTP, and who follows the registry."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from switchyard.proto.admin.v1 import admin_pb2_grpc
from switchyard.proto.inference.v1 import inference_pb2_grpc
from switchyard.server.calls.admission import Admission, AdmissionPolicy
from switchyard.server.calls.answering import Answering
from switchyard.server.calls.catalog import RegistryResolver, ServableCatalog
from switchyard.server.calls.contracts import Contracts
from switchyard.server.calls.prompts import Prompts
from switchyard.server.calls.residents import ResidentAdapters
from switchyard.server.chat.renderer import TemplateRenderer
from switchyard.server.config import ServerConfig
from switchyard.server.http.app import OpenAiRooms
from switchyard.server.http.chat import ChatCompletions
from switchyard.server.http.completions import Completions
from switchyard.server.http.metrics_page import MetricsPage
from switchyard.server.http.models import Models
from switchyard.server.http.tokenize import Tokenizing
from switchyard.server.model.loading import LoadedBase
from switchyard.server.observe.memory import resident_bytes
from switchyard.server.resident import ServingCore, Surroundings
from switchyard.server.rpc.admin import AdminServicer, ServerFacts
from switchyard.server.rpc.app import Service
from switchyard.server.rpc.follower import RegistryFollower
from switchyard.server.rpc.inference import InferenceServicer
from switchyard.server.rpc.registry.tail import FeedTail

INFERENCE: Final = "switchyard.inference.v1.InferenceService"
ADMIN: Final = "switchyard.admin.v1.AdminService"


@dataclass(frozen=True, slots=True)
class Faces:
    """What stands between a core and its callers.

    Attributes:
        services: the gRPC services that need a core.
        openai: what answers over HTTP.
        follower: keeps the adapters in memory in step with the registry.
        renderer: runs chat templates; to be closed at the end.
    """

    services: tuple[Service, ...]
    openai: OpenAiRooms
    follower: RegistryFollower
    renderer: TemplateRenderer


def build_faces(around: Surroundings, core: ServingCore, tail: FeedTail) -> Faces:
    """Puts the faces on a core."""
    facts = _facts(around.config, core.base)
    around.metrics.describe_build(
        version=facts.version,
        base_name=facts.base_name,
        base_digest=facts.base_digest,
        quantization=facts.quantization,
    )
    around.metrics.describe_memory(base_bytes=core.base.nbytes, adapter_slots=facts.adapter_slots)
    around.metrics.watch_load(core.engine.load)
    memory = ResidentAdapters(core.engine, core.host, around.clock)
    renderer = renderer_of(around, core)
    admission = admission_of(around, core, renderer)
    catalog = ServableCatalog(
        around.registry,
        memory,
        around.registry_pool,
        base_digest=facts.base_digest,
        quantization=facts.quantization,
    )
    answering = Answering(admission, core.engine, around.live, around.metrics)
    inference = InferenceServicer(
        answering, catalog, core.base.tokenizer.text_of, write_stall_s=around.config.write_stall_s
    )
    admin = AdminServicer(
        facts,
        admission,
        core.engine,
        memory,
        rss_bytes=resident_bytes,
        fingerprint=core.base.fingerprint,
        begin_drain=around.switch.drain,
    )
    services = (
        Service(INFERENCE, inference, inference_pb2_grpc.add_InferenceServiceServicer_to_server),
        Service(ADMIN, admin, admin_pb2_grpc.add_AdminServiceServicer_to_server),
    )
    openai = OpenAiRooms(
        Completions(answering, facts.base_name, core.base.tokenizer.text_of),
        ChatCompletions(answering, facts.base_name, core.base.tokenizer.text_of),
        Models(catalog, admission, facts.base_name, facts.base_digest),
        Tokenizing(answering, facts.base_name),
        MetricsPage(around.metrics.exposition),
    )
    follower = RegistryFollower(around.registry, around.registry_pool, tail, admission, memory)
    return Faces(services, openai, follower, renderer)


def renderer_of(around: Surroundings, core: ServingCore) -> TemplateRenderer:
    """Runs chat templates for a core; its process begins with the first conversation."""
    return TemplateRenderer(dict(core.base.tokenizer.template_variables), around.config.max_prompt_bytes)


def admission_of(around: Surroundings, core: ServingCore, renderer: TemplateRenderer) -> Admission:
    """Puts admission in front of a core."""
    config, base = around.config, core.base
    policy = AdmissionPolicy(
        base_digest=base.spec.digest,
        quantization=base.quantization_label,
        max_context_tokens=base.max_context_tokens,
        max_rank=config.max_rank,
        default_max_tokens=config.default_max_tokens,
        max_prompt_bytes=config.max_prompt_bytes,
        max_request_s=config.max_request_s,
    )
    resolver = RegistryResolver(around.registry, around.registry_pool)
    prompts = Prompts(base.tokenizer, around.tokenizer_pool, renderer)
    contracts = Contracts(around.registry, around.registry_pool)
    return Admission(policy, resolver, prompts, contracts, around.clock, core.grammars)


def _facts(config: ServerConfig, base: LoadedBase) -> ServerFacts:
    return ServerFacts(
        version=version("switchyard"),
        base_name=base.spec.name,
        base_digest=base.spec.digest,
        quantization=base.quantization_label,
        max_sequences=config.max_sequences,
        max_context_tokens=base.max_context_tokens,
        max_rank=config.max_rank,
        adapter_slots=config.adapter_slots,
        host_cache_bytes=config.host_cache_bytes,
    )
