# ruff: noqa: N802 - gRPC names the methods
"""The three services, scripted, behind a real gRPC server on 127.0.0.1 port 0.

The fakes hold state in dictionaries and check nothing that the real services
check; tests script their refusals (`refuse_next`) and their broken connections.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from fake_registry import BASE_DIGEST, FakeRegistry
from scripted import Refusal, Scripted

from switchyard.proto.admin.v1 import admin_pb2 as admin
from switchyard.proto.admin.v1 import admin_pb2_grpc as admin_stubs
from switchyard.proto.inference.v1 import inference_pb2 as inference
from switchyard.proto.inference.v1 import inference_pb2_grpc as inference_stubs
from switchyard.proto.registry.v1 import registry_pb2_grpc as registry_stubs

__all__ = ["BASE_DIGEST", "FakeServer", "Refusal", "plain_answer", "running_fakes", "two_answers"]


def served_by_of(request: inference.GenerateRequest) -> inference.ServedBy:
    served = inference.ServedBy(base_digest=BASE_DIGEST, quantization="nf4+double/float32")
    asked = [(request.adapter, 1.0)] if request.WhichOneof("target") == "adapter" else []
    if request.WhichOneof("target") == "composition":
        asked = [(one.ref, one.weight) for one in request.composition.adapters]
        served.recipe_digest = "sha256:" + "c" * 64
    for ref, weight in asked:
        name, _, alias = ref.partition("@")
        namespace, _, adapter = name.rpartition("/")
        served.adapters.add(
            namespace=namespace or "default",
            adapter=adapter,
            version=1,
            digest="sha256:" + hashlib.sha256(name.encode()).hexdigest(),
            alias=alias,
            alias_generation=1,
            weight=weight,
        )
    return served


def plain_answer(request: inference.GenerateRequest) -> list[inference.GenerateResponse]:
    """Started, the prompt's words backwards one chunk each, finished."""
    words = request.prompt.split()[::-1]
    served = served_by_of(request)
    started = inference.Started(
        request_id=request.request_id or "r1", served_by=served, prompt_tokens=len(words), seed=7
    )
    events = [inference.GenerateResponse(started=started), inference.GenerateResponse(chunk=inference.Chunk())]
    for index, word in enumerate(words):
        text = word if index == 0 else f" {word}"
        events.append(inference.GenerateResponse(chunk=inference.Chunk(text=text, token_ids=[index])))
    finished = inference.Finished(
        reason=inference.FINISH_REASON_STOP,
        usage=inference.Usage(prompt_tokens=len(words), completion_tokens=len(words)),
        timing=inference.Timing(queue_s=0.001, time_to_first_token_s=0.01, decode_s=0.05),
        served_by=served,
    )
    return [*events, inference.GenerateResponse(finished=finished)]


def two_answers(request: inference.GenerateRequest) -> list[inference.GenerateResponse]:
    """`ab` and `c`, token by token in turns, with logprobs of prompt and answers."""
    started, *_, finished = plain_answer(request)
    top = [inference.TopLogprob(token_id=8, logprob=-0.25, text="x")]
    prompt = [inference.TokenLogprob(token_id=9, logprob=-0.5, text="i")]
    events = [started, inference.GenerateResponse(chunk=inference.Chunk(prompt_logprobs=prompt))]
    for index, text, token in ((0, "a", 5), (1, "c", 7), (0, "b", 6)):
        logprobs = [inference.TokenLogprob(token_id=token, logprob=-1.25, text=text, top=top)]
        chunk = inference.Chunk(text=text, token_ids=[token], index=index, logprobs=logprobs)
        events.append(inference.GenerateResponse(chunk=chunk))
    for index, tokens in ((0, 2), (1, 1)):
        finished.finished.choices.add(
            index=index,
            reason=inference.FINISH_REASON_STOP,
            completion_tokens=tokens,
            cumulative_logprob=-1.25 * tokens,
        )
    return [*events, finished]


def whole(events: list[inference.GenerateResponse]) -> inference.GenerateOnceResponse:
    """The answer of `GenerateOnce` to what `Generate` streams."""
    started, finished = events[0].started, events[-1].finished
    chunks = [event.chunk for event in events if event.HasField("chunk")]
    first = [chunk for chunk in chunks if chunk.index == 0]
    answer = inference.GenerateOnceResponse(
        request_id=started.request_id,
        text="".join(chunk.text for chunk in first),
        token_ids=[token for chunk in first for token in chunk.token_ids],
        reason=finished.reason,
        usage=finished.usage,
        timing=finished.timing,
        served_by=finished.served_by,
        seed=started.seed,
        logprobs=[one for chunk in first for one in chunk.logprobs],
        prompt_logprobs=[one for chunk in chunks for one in chunk.prompt_logprobs],
    )
    for choice in finished.choices:
        own = [chunk for chunk in chunks if chunk.index == choice.index]
        answer.choices.add(
            choice=choice,
            text="".join(chunk.text for chunk in own),
            token_ids=[token for chunk in own for token in chunk.token_ids],
            logprobs=[one for chunk in own for one in chunk.logprobs],
        )
    return answer


class FakeInference(inference_stubs.InferenceServiceServicer, Scripted):
    """Answers by a script; `plain_answer` unless told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[inference.GenerateRequest] = []
        self.script: Callable[[inference.GenerateRequest], Any] = plain_answer
        self.servable: list[inference.ListServableResponse] = [
            inference.ListServableResponse(base_name="tiny", base_digest=BASE_DIGEST)
        ]
        self.cancelled = threading.Event()
        self.hold = threading.Event()
        self.hold.set()

    def Generate(
        self, request: inference.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[inference.GenerateResponse]:
        self.begin("Generate", context)
        self.requests.append(request)
        context.add_callback(self.cancelled.set)
        for event in self.script(request):
            if isinstance(event, Refusal):
                event.abort(context)
            yield event
            self.hold.wait(timeout=30)

    def GenerateOnce(
        self, request: inference.GenerateOnceRequest, context: grpc.ServicerContext
    ) -> inference.GenerateOnceResponse:
        self.begin("GenerateOnce", context)
        self.requests.append(request.request)
        events = list(self.script(request.request))
        for event in events:
            if isinstance(event, Refusal):
                event.abort(context)
        return whole(events)

    def ListServable(
        self, request: inference.ListServableRequest, context: grpc.ServicerContext
    ) -> inference.ListServableResponse:
        self.begin("ListServable", context)
        return self.servable[int(request.page_token or 0)]


class FakeAdmin(admin_stubs.AdminServiceServicer, Scripted):
    """A server at rest with one resident adapter."""

    def GetServerInfo(
        self, request: admin.GetServerInfoRequest, context: grpc.ServicerContext
    ) -> admin.GetServerInfoResponse:
        self.begin("GetServerInfo", context)
        return admin.GetServerInfoResponse(
            version="0.1.0",
            base_name="tiny",
            base_digest=BASE_DIGEST,
            quantization="nf4+double/float32",
            max_sequences=16,
            max_context_tokens=256,
            max_rank=16,
            adapter_slots=4,
            host_cache_bytes=64 * 1024 * 1024,
            base_fingerprint="sha256:" + "f" * 64,
        )

    def GetLoad(self, request: admin.GetLoadRequest, context: grpc.ServicerContext) -> admin.GetLoadResponse:
        self.begin("GetLoad", context)
        return admin.GetLoadResponse(running_sequences=2, kv_rows_total=16, kv_rows_used=2, adapters_resident=1)

    def ListAdapterStates(
        self, request: admin.ListAdapterStatesRequest, context: grpc.ServicerContext
    ) -> admin.ListAdapterStatesResponse:
        self.begin("ListAdapterStates", context)
        status = admin.AdapterStatus(digest="sha256:" + "a" * 64, state=admin.ADAPTER_STATE_RESIDENT, pins=2)
        return admin.ListAdapterStatesResponse(adapters=[status])

    def LoadAdapter(
        self, request: admin.LoadAdapterRequest, context: grpc.ServicerContext
    ) -> admin.LoadAdapterResponse:
        self.begin("LoadAdapter", context)
        return admin.LoadAdapterResponse(status=admin.AdapterStatus(state=admin.ADAPTER_STATE_HOST))

    def UnloadAdapter(
        self, request: admin.UnloadAdapterRequest, context: grpc.ServicerContext
    ) -> admin.UnloadAdapterResponse:
        self.begin("UnloadAdapter", context)
        return admin.UnloadAdapterResponse(status=admin.AdapterStatus(state=77))

    def Plan(self, request: admin.PlanRequest, context: grpc.ServicerContext) -> admin.PlanResponse:
        self.begin("Plan", context)
        places = [admin.PLANNED_PLACE_SLOT, admin.PLANNED_PLACE_HOST, admin.PLANNED_PLACE_NOWHERE, 77]
        adapters = [
            admin.PlannedAdapter(ref=ref, place=place, size_bytes=2048, in_memory=not number)
            for number, (ref, place) in enumerate(zip(request.refs, places, strict=False))
        ]
        for one in adapters:
            if one.place == admin.PLANNED_PLACE_NOWHERE:
                one.error_reason, one.message = "RANK_TOO_LARGE", "it takes rank 64"
            else:
                one.digest = "sha256:" + "a" * 64
        fits = len(adapters) == 1
        leaving = [] if fits else ["sha256:" + "b" * 64]
        return admin.PlanResponse(
            adapters=adapters, fits=fits, needed_slots=len(adapters), needed_host_bytes=4096, leaving=leaving
        )

    def Drain(self, request: admin.DrainRequest, context: grpc.ServicerContext) -> admin.DrainResponse:
        self.begin("Drain", context)
        return admin.DrainResponse(running_requests=2)


@dataclass(frozen=True)
class FakeServer:
    """A running server with its three fakes."""

    address: str
    inference: FakeInference
    registry: FakeRegistry
    admin: FakeAdmin


@contextmanager
def running_fakes(address: str = "127.0.0.1:0") -> Iterator[FakeServer]:
    """Serves the fakes until the block ends."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    fakes = FakeInference(), FakeRegistry(), FakeAdmin()
    inference_stubs.add_InferenceServiceServicer_to_server(fakes[0], server)
    registry_stubs.add_RegistryServiceServicer_to_server(fakes[1], server)
    admin_stubs.add_AdminServiceServicer_to_server(fakes[2], server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield FakeServer(address if address.startswith("unix:") else f"127.0.0.1:{port}", *fakes)
    finally:
        fakes[0].hold.set()
        server.stop(grace=None).wait()
