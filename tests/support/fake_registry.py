# ruff: noqa: N802 - gRPC names the methods
"""The registry service in dictionaries, behind the real publish protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import grpc
from scripted import Refusal, Scripted

from switchyard.proto.registry.v1 import registry_pb2 as registry
from switchyard.proto.registry.v1 import registry_pb2_grpc as registry_stubs

BASE_DIGEST = "sha256:" + "b" * 64


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
        self.upload_headers: dict[str, str] = {}
        self.checked: list[registry.CommitPublishRequest] = []
        self.break_upload_after: int | None = None
        self.lose_commit_reply = False
        self.break_download_after: int | None = None
        self.tamper = False
        self.feed: list[registry.WatchResponse] = []
        self.break_watch_after: list[int] = []

    def Watch(
        self, request: registry.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[registry.WatchResponse]:
        """Tells the feed after a bookmark; breaks off after as many as scripted, and ends for good with the feed."""
        self.begin("Watch", context)
        left = self.break_watch_after.pop(0) if self.break_watch_after else len(self.feed)
        after = request.after_revision if request.HasField("after_revision") else 0
        yield registry.WatchResponse(revision=after, kind="bookmark")
        for event in self.feed:
            if event.revision > after:
                if left == 0:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
                left -= 1
                yield event
        Refusal(grpc.StatusCode.OUT_OF_RANGE, "REVISION_COMPACTED", "the feed ends here").abort(context)

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
            session_id=session,
            missing_digests=missing,
            chunk_bytes=self.chunk_bytes,
            presigned_uploads=[
                registry.PresignedUpload(digest=digest, url=f"https://store/{digest}", headers=self.upload_headers)
                for digest in missing
                if request.want_upload_urls
            ],
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
        if request.validate_only:
            assert {file.digest for file in begun.files} <= set(self.blobs)
            self.checked.append(request)
            return registry.CommitPublishResponse(warnings=["the card is empty"])
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
