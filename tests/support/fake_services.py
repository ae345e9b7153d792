# ruff: noqa: N802 - gRPC names the methods
"""The three services, scripted, behind a real gRPC server on 127.0.0.1 port 0.

The fakes hold state in dictionaries and check nothing that the real services
check; tests script their refusals (`refuse_next`) and their broken connections.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from switchyard.proto.admin.v1 import admin_pb2 as admin
from switchyard.proto.admin.v1 import admin_pb2_grpc as admin_stubs
from switchyard.proto.inference.v1 import inference_pb2 as inference
from switchyard.proto.inference.v1 import inference_pb2_grpc as inference_stubs
from switchyard.proto.registry.v1 import registry_pb2 as registry
from switchyard.proto.registry.v1 import registry_pb2_grpc as registry_stubs

BASE_DIGEST = "sha256:" + "b" * 64


@dataclass(frozen=True)
class Refusal:
    """One scripted failure."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "scripted"
    faults: tuple[tuple[str, str, str], ...] = ()
    retry_after_s: float | None = None
    facts: dict[str, str] = field(default_factory=dict)

    def abort(self, context: grpc.ServicerContext) -> None:
        details = []
        if self.reason:
            details.append(error_details_pb2.ErrorInfo(reason=self.reason, domain="switchyard", metadata=self.facts))
        if self.faults:
            violations = [
                error_details_pb2.BadRequest.FieldViolation(field=f, reason=r, description=d)
                for f, r, d in self.faults
            ]
            details.append(error_details_pb2.BadRequest(field_violations=violations))
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(round(self.retry_after_s * 1000))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        if details:
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(self.code, self.message)


class Scripted:
    """Refusals by method name, taken one per call, and the requests that came."""

    def __init__(self) -> None:
        self.refusals: dict[str, deque[Refusal]] = {}
        self.calls: list[str] = []

    def refuse_next(self, method: str, *refusals: Refusal) -> None:
        self.refusals.setdefault(method, deque()).extend(refusals)

    def begin(self, method: str, context: grpc.ServicerContext) -> None:
        self.calls.append(method)
        waiting = self.refusals.get(method)
        if waiting:
            waiting.popleft().abort(context)


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
        started, finished = events[0].started, events[-1].finished
        return inference.GenerateOnceResponse(
            request_id=started.request_id,
            text="".join(e.chunk.text for e in events if e.HasField("chunk")),
            token_ids=[t for e in events if e.HasField("chunk") for t in e.chunk.token_ids],
            reason=finished.reason,
            usage=finished.usage,
            timing=finished.timing,
            served_by=finished.served_by,
            seed=started.seed,
        )

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

    def Drain(self, request: admin.DrainRequest, context: grpc.ServicerContext) -> admin.DrainResponse:
        self.begin("Drain", context)
        return admin.DrainResponse(running_requests=2)


class FakeRegistry(registry_stubs.RegistryServiceServicer, Scripted):
    """Versions, blobs and aliases in dictionaries, behind the publish protocol."""

    chunk_bytes = 1000
    page_size = 2

    def __init__(self) -> None:
        super().__init__()
        self.bases = [registry.BaseModel(digest=BASE_DIGEST, name="tiny", architecture="LlamaForCausalLM")]
        self.blobs: dict[str, bytes] = {}
        self.partial: dict[str, bytes] = {}
        self.sessions: dict[str, registry.BeginPublishRequest] = {}
        self.by_key: dict[str, registry.AdapterVersion] = {}
        self.versions: dict[str, list[registry.AdapterVersion]] = {}
        self.events: dict[tuple[str, str], list[registry.AliasEvent]] = {}
        self.break_upload_after: int | None = None
        self.lose_commit_reply = False
        self.break_download_after: int | None = None
        self.tamper = False

    def BeginPublish(
        self, request: registry.BeginPublishRequest, context: grpc.ServicerContext
    ) -> registry.BeginPublishResponse:
        self.begin("BeginPublish", context)
        if request.idempotency_key in self.by_key:
            version = self._with_aliases(self.by_key[request.idempotency_key])
            return registry.BeginPublishResponse(committed=version)
        session = f"s-{request.idempotency_key}"
        self.sessions[session] = request
        missing = [f.digest for f in request.files if f.digest not in self.blobs]
        return registry.BeginPublishResponse(
            session_id=session, missing_digests=missing, chunk_bytes=self.chunk_bytes
        )

    def QueryUpload(
        self, request: registry.QueryUploadRequest, context: grpc.ServicerContext
    ) -> registry.QueryUploadResponse:
        self.begin("QueryUpload", context)
        done = request.digest in self.blobs
        held = self.blobs.get(request.digest, self.partial.get(request.digest, b""))
        return registry.QueryUploadResponse(committed_bytes=len(held), complete=done)

    def UploadBlob(
        self, request_iterator: Iterator[registry.UploadBlobRequest], context: grpc.ServicerContext
    ) -> registry.UploadBlobResponse:
        self.begin("UploadBlob", context)
        digest = ""
        for request in request_iterator:
            digest = digest or request.digest
            held = self.partial.get(digest, b"")
            assert request.offset == len(held)
            assert len(request.data) <= self.chunk_bytes
            self.partial[digest] = held + request.data
            if self.break_upload_after is not None and len(self.partial[digest]) >= self.break_upload_after:
                self.break_upload_after = None
                context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        data = self.partial.pop(digest)
        assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return registry.UploadBlobResponse(committed_bytes=len(data), complete=True)

    def CommitPublish(
        self, request: registry.CommitPublishRequest, context: grpc.ServicerContext
    ) -> registry.CommitPublishResponse:
        self.begin("CommitPublish", context)
        begun = self.sessions[request.session_id]
        namespace, _, adapter = begun.adapter.rpartition("/")
        known = self.versions.setdefault(f"{namespace or 'default'}/{adapter}", [])
        version = registry.AdapterVersion(
            namespace=namespace or "default",
            adapter=adapter,
            version=len(known) + 1,
            digest="sha256:" + hashlib.sha256(request.session_id.encode()).hexdigest(),
            base_model=next(b for b in self.bases if b.digest == begun.base_digest),
            shape=registry.AdapterShape(
                rank=8, target_modules=["q_proj"], dtype="F32", parameter_count=128, weights_bytes=512
            ),
            lineage=begun.lineage,
            files=begun.files,
            publisher="tester",
            note=begun.note,
        )
        version.create_time.seconds = 1_780_000_000
        known.append(version)
        self.by_key[begun.idempotency_key] = version
        if request.set_alias:
            self._move(f"{version.namespace}/{adapter}", request.set_alias, version.version, "tester", "publish")
        if self.lose_commit_reply:
            self.lose_commit_reply = False
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return registry.CommitPublishResponse(version=self._with_aliases(version))

    def Resolve(self, request: registry.ResolveRequest, context: grpc.ServicerContext) -> registry.ResolveResponse:
        self.begin("Resolve", context)
        version, alias, generation = self._find(request.ref, context)
        return registry.ResolveResponse(version=version, alias=alias, alias_generation=generation)

    def GetVersion(
        self, request: registry.GetVersionRequest, context: grpc.ServicerContext
    ) -> registry.GetVersionResponse:
        self.begin("GetVersion", context)
        return registry.GetVersionResponse(version=self._find(request.ref, context)[0])

    def ListAdapters(
        self, request: registry.ListAdaptersRequest, context: grpc.ServicerContext
    ) -> registry.ListAdaptersResponse:
        self.begin("ListAdapters", context)
        names = [n for n in sorted(self.versions) if n.startswith(request.namespace)]
        page, token = self._page(names, request.page_token)
        return registry.ListAdaptersResponse(adapters=[self._summary(n) for n in page], next_page_token=token)

    def ListVersions(
        self, request: registry.ListVersionsRequest, context: grpc.ServicerContext
    ) -> registry.ListVersionsResponse:
        self.begin("ListVersions", context)
        name = request.adapter if "/" in request.adapter else f"default/{request.adapter}"
        if name not in self.versions:
            Refusal(grpc.StatusCode.NOT_FOUND, "ADAPTER_NOT_FOUND", f"no adapter {name}").abort(context)
        page, token = self._page(self.versions[name][::-1], request.page_token)
        return registry.ListVersionsResponse(versions=[self._with_aliases(v) for v in page], next_page_token=token)

    def DownloadBlob(
        self, request: registry.DownloadBlobRequest, context: grpc.ServicerContext
    ) -> Iterator[registry.DownloadBlobResponse]:
        self.begin("DownloadBlob", context)
        data = self.blobs[request.digest][request.offset :]
        if self.tamper:
            data = bytes(len(data))
        for start in range(0, len(data), self.chunk_bytes):
            if self.break_download_after is not None and start >= self.break_download_after:
                self.break_download_after = None
                context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            yield registry.DownloadBlobResponse(data=data[start : start + self.chunk_bytes])

    def SetAlias(self, request: registry.SetAliasRequest, context: grpc.ServicerContext) -> registry.SetAliasResponse:
        self.begin("SetAlias", context)
        name = request.adapter if "/" in request.adapter else f"default/{request.adapter}"
        events = self.events.get((name, request.alias), [])
        generation = events[-1].generation if events else 0
        if request.HasField("expected_generation") and request.expected_generation != generation:
            Refusal(
                grpc.StatusCode.ABORTED,
                "GENERATION_MISMATCH",
                f"alias {request.alias} has generation {generation}, expected {request.expected_generation}",
                facts={"retryable": "false", "current_generation": str(generation)},
            ).abort(context)
        previous = self._move(name, request.alias, request.version, request.actor, request.reason)
        return registry.SetAliasResponse(alias=self._alias(name, request.alias), previous_version=previous)

    def ListAliasHistory(
        self, request: registry.ListAliasHistoryRequest, context: grpc.ServicerContext
    ) -> registry.ListAliasHistoryResponse:
        self.begin("ListAliasHistory", context)
        name = request.adapter if "/" in request.adapter else f"default/{request.adapter}"
        return registry.ListAliasHistoryResponse(events=self.events.get((name, request.alias), [])[::-1])

    def ListBaseModels(
        self, request: registry.ListBaseModelsRequest, context: grpc.ServicerContext
    ) -> registry.ListBaseModelsResponse:
        self.begin("ListBaseModels", context)
        return registry.ListBaseModelsResponse(base_models=self.bases)

    def _page(self, items: list[Any], token: str) -> tuple[list[Any], str]:
        start = int(token or 0)
        end = start + self.page_size
        return items[start:end], str(end) if end < len(items) else ""

    def _move(self, name: str, alias: str, version: int, actor: str, reason: str) -> int:
        events = self.events.setdefault((name, alias), [])
        previous = events[-1].to_version if events else 0
        events.append(
            registry.AliasEvent(
                generation=len(events) + 1,
                from_version=previous,
                to_version=version,
                actor=actor,
                reason=reason,
            )
        )
        return previous

    def _alias(self, name: str, alias: str) -> registry.Alias:
        event = self.events[name, alias][-1]
        namespace, _, adapter = name.partition("/")
        return registry.Alias(
            namespace=namespace,
            adapter=adapter,
            name=alias,
            version=event.to_version,
            digest=self.versions[name][event.to_version - 1].digest,
            generation=event.generation,
            updated_by=event.actor,
        )

    def _summary(self, name: str) -> registry.AdapterSummary:
        namespace, _, adapter = name.partition("/")
        return registry.AdapterSummary(
            namespace=namespace,
            adapter=adapter,
            latest_version=len(self.versions[name]),
            aliases=[self._alias(name, alias) for owner, alias in sorted(self.events) if owner == name],
            base_digest=BASE_DIGEST,
        )

    def _with_aliases(self, version: registry.AdapterVersion) -> registry.AdapterVersion:
        copy = registry.AdapterVersion()
        copy.CopyFrom(version)
        name = f"{version.namespace}/{version.adapter}"
        copy.aliases.extend(
            alias
            for (owner, alias), events in sorted(self.events.items())
            if owner == name and events[-1].to_version == version.version
        )
        return copy

    def lookup(self, ref: str) -> tuple[registry.AdapterVersion, str, int] | None:
        """The version that `ref` names now, with alias and generation; None when there is none."""
        name, alias, number = ref, "", 0
        if "@" in ref:
            name, _, alias = ref.partition("@")
        else:
            name, _, digits = ref.rpartition(":")
            number = int(digits)
        name = name if "/" in name else f"default/{name}"
        events = self.events.get((name, alias), [])
        number = events[-1].to_version if events else number
        known = self.versions.get(name, [])
        if not 0 < number <= len(known):
            return None
        generation = events[-1].generation if events else 0
        return self._with_aliases(known[number - 1]), alias, generation

    def _find(self, ref: str, context: grpc.ServicerContext) -> tuple[registry.AdapterVersion, str, int]:
        found = self.lookup(ref)
        if found is None:
            Refusal(grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND", f"nothing is named {ref}").abort(context)
        return found


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
