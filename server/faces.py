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
from switchyard.server.calls.embedding import Embedding
from switchyard.server.calls.ports import AnswerObserver
from switchyard.server.calls.prompts import Prompts
from switchyard.server.calls.quotas import Quotas
from switchyard.server.chat.renderer import TemplateRenderer
from switchyard.server.config import ServerConfig
from switchyard.server.http.app import OpenAiRooms
from switchyard.server.http.chat import ChatCompletions
from switchyard.server.http.completions import Completions
from switchyard.server.http.embeddings import Embeddings
from switchyard.server.http.metrics_page import MetricsPage
from switchyard.server.http.models import Models
from switchyard.server.http.tokenize import Tokenizing
from switchyard.server.resident import Surroundings
from switchyard.server.rollout.guard import RolloutGuard
from switchyard.server.rollout.outcomes import Outcomes
from switchyard.server.rpc.admin import AdminServicer, ServerFacts
from switchyard.server.rpc.app import Service
from switchyard.server.rpc.follower import RegistryFollower
from switchyard.server.rpc.inference import InferenceServicer
from switchyard.server.rpc.registry.tail import FeedTail
from switchyard.server.served import BaseFacts, Served

INFERENCE: Final = "switchyard.inference.v1.InferenceService"
ADMIN: Final = "switchyard.admin.v1.AdminService"


@dataclass(frozen=True, slots=True)
class Faces:
    """What stands between a core and its callers.

    Attributes:
        services: the gRPC services that need a core.
        openai: what answers over HTTP.
        follower: keeps the adapters in memory in step with the registry.
        rollouts: tells what was seen of rollouts, and moves aliases for them.
        renderer: runs chat templates; to be closed at the end.
    """

    services: tuple[Service, ...]
    openai: OpenAiRooms
    follower: RegistryFollower
    rollouts: RolloutGuard
    renderer: TemplateRenderer


def build_faces(around: Surroundings, served: Served, tail: FeedTail) -> Faces:
    """Puts the faces on a resident model."""
    facts = _facts(around.config, served.facts)
    around.metrics.describe_build(
        version=facts.version,
        base_name=facts.base_name,
        base_digest=facts.base_digest,
        quantization=facts.quantization,
    )
    around.metrics.describe_memory(base_bytes=served.facts.weights_bytes, adapter_slots=facts.adapter_slots)
    around.metrics.watch_load(served.engine.load, served.rss_bytes)
    renderer = renderer_of(around, served)
    outcomes = Outcomes()
    admission = admission_of(around, served, renderer, outcomes)
    catalog = ServableCatalog(
        around.registry,
        served.memory,
        around.registry_pool,
        base_digest=facts.base_digest,
        quantization=facts.quantization,
    )
    quotas = Quotas(around.clock, around.config.tenant_quota, around.config.adapter_quota)
    answering = Answering(admission, served.engine, around.live, around.metrics, quotas, outcomes)
    embedding = Embedding(admission, answering, parallel=around.config.max_sequences)
    inference = InferenceServicer(
        answering, embedding, catalog, served.tokenizer.text_of, write_stall_s=around.config.write_stall_s
    )
    admin = AdminServicer(
        facts,
        admission,
        served.engine,
        served.memory,
        rss_bytes=served.rss_bytes,
        fingerprint=served.fingerprint,
        begin_drain=around.switch.drain,
    )
    services = (
        Service(INFERENCE, inference, inference_pb2_grpc.add_InferenceServiceServicer_to_server),
        Service(ADMIN, admin, admin_pb2_grpc.add_AdminServiceServicer_to_server),
    )
    openai = OpenAiRooms(
        Completions(answering, facts.base_name, served.tokenizer.text_of),
        ChatCompletions(answering, facts.base_name, served.tokenizer.text_of),
        Embeddings(embedding, facts.base_name),
        Models(catalog, admission, facts.base_name, facts.base_digest),
        Tokenizing(answering, facts.base_name),
        MetricsPage(around.metrics.exposition),
    )
    follower = RegistryFollower(around.registry, around.registry_pool, tail, admission, served.memory)
    return Faces(services, openai, follower, _rollouts(around, outcomes), renderer)


def _rollouts(around: Surroundings, outcomes: Outcomes) -> RolloutGuard:
    look_every_s = around.config.rollout_look_s
    return RolloutGuard(around.registry, around.registry_pool, outcomes, around.metrics, look_every_s=look_every_s)


def renderer_of(around: Surroundings, served: Served) -> TemplateRenderer:
    """Runs chat templates for a resident model; its process begins with the first conversation."""
    return TemplateRenderer(dict(served.tokenizer.template_variables), around.config.max_prompt_bytes)


def admission_of(
    around: Surroundings, served: Served, renderer: TemplateRenderer, answers: AnswerObserver | None = None
) -> Admission:
    """Puts admission in front of a resident model."""
    config, facts = around.config, served.facts
    policy = AdmissionPolicy(
        base_digest=facts.digest,
        quantization=facts.quantization,
        max_context_tokens=facts.max_context_tokens,
        max_rank=config.max_rank,
        default_max_tokens=config.default_max_tokens,
        max_prompt_bytes=config.max_prompt_bytes,
        max_request_s=config.max_request_s,
        embedding_width=facts.embedding_width,
    )
    resolver = RegistryResolver(around.registry, around.registry_pool)
    prompts = Prompts(served.tokenizer, around.tokenizer_pool, renderer)
    contracts = Contracts(around.registry, around.registry_pool)
    return Admission(policy, resolver, prompts, contracts, around.clock, served.grammars, answers)


def _facts(config: ServerConfig, facts: BaseFacts) -> ServerFacts:
    return ServerFacts(
        version=version("switchyard"),
        base_name=facts.name,
        base_digest=facts.digest,
        quantization=facts.quantization,
        max_sequences=config.max_sequences,
        max_context_tokens=facts.max_context_tokens,
        max_rank=config.max_rank,
        adapter_slots=config.adapter_slots,
        host_cache_bytes=config.host_cache_bytes,
        adapter_bytes=config.adapter_bytes or 0,
    )
