"""The registry's services behind a guard: who is written down, what is shown, and what stays hidden."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from guarded import bearer, guarded
from handmade import write_adapter, write_base
from publishing import begin, entries, publish
from rpc_harness import Refusal, refusal

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import registry_pb2_grpc
from switchyard.registry.access.policy import Effect, Role, Scope
from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.digest import sha256_digest
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files
from switchyard.server.calls.live import LiveWork
from switchyard.server.rpc.registry.services import registry_services
from switchyard.server.rpc.registry.tail import FeedTail

NAMES = [AdapterName(*pair) for pair in (("blue", "a"), ("red", "a"), ("red", "b"), ("red", "c"), ("white", "z"))]
NER = AdapterName("red", "a")
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five adapters in three namespaces, two versions each; `prod` is the first."""
    place = tmp_path_factory.mktemp("template")
    with Registry.open(place / "r", validate=validate_files) as registry:
        base = registry.register_base(describe_base(write_base(place / "base")))
        for number, name in enumerate(NAMES):
            for version in range(2):
                source = write_adapter(place / f"{number}-{version}", seed=10 * number + version)
                publish(registry, base, name, source, **({} if version else {"set_alias": "prod"}))
    return place


@pytest.fixture
def registry(template: Path, tmp_path: Path) -> Iterator[Registry]:
    shutil.copytree(template / "r", tmp_path / "r")
    with Registry.open(tmp_path / "r", validate=validate_files) as opened:
        yield opened


@pytest.fixture
def base(registry: Registry) -> BaseModelSpec:
    return registry.base_models()[0]


def principal(registry: Registry, name: str, *rules: tuple[Scope, str] | Role) -> str:
    """A principal with these rights; the secret of its token."""
    registry.access.create_principal(name, actor="root")
    for rule in rules:
        if isinstance(rule, Role):
            registry.access.assign_role(name, rule, "red", actor="root")
        else:
            registry.access.grant(name, *rule, actor="root")
    return registry.access.create_token(name, actor="root").secret


class Caller:
    """One caller with one token."""

    def __init__(self, stub: Any, secret: str) -> None:
        self.stub = stub
        self.metadata = bearer(secret)

    async def ask(self, method: str, request: Any, *more: tuple[str, str]) -> Any:
        return await getattr(self.stub, method)(request, metadata=(*self.metadata, *more), timeout=20)

    async def refused(self, method: str, request: Any) -> Refusal:
        try:
            answer = await self.ask(method, request)
        except grpc.aio.AioRpcError as error:
            return refusal(error)
        raise AssertionError(f"answered: {answer}")

    async def download(self, digest: str) -> bytes | Refusal:
        pieces = []
        try:
            async for piece in self.stub.DownloadBlob(
                pb.DownloadBlobRequest(digest=digest), metadata=self.metadata, timeout=20
            ):
                pieces.append(piece.data)
        except grpc.aio.AioRpcError as error:
            return refusal(error)
        return b"".join(pieces)


@asynccontextmanager
async def served(registry: Registry, *secrets: str) -> AsyncIterator[list[Caller]]:
    with FeedTail(registry.feed) as tail, registry_services(registry, tail, LiveWork()) as services:
        async with guarded(registry, services) as address, grpc.aio.insecure_channel(address) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            yield [Caller(stub, secret) for secret in secrets]


@pytest.mark.asyncio
async def test_who_called_is_proven_and_not_claimed(registry: Registry) -> None:
    secret = principal(registry, "ada", Role.PROMOTER)
    async with served(registry, secret) as [ada]:
        move = await ada.ask(
            "SetAlias",
            pb.SetAliasRequest(adapter="red/a", alias="prod", version=2, actor="mallory"),
            ("switchyard-actor", "mallory"),
            ("x-request-id", "call-42"),
        )
    assert move.alias.updated_by == "ada"
    assert registry.alias_history(NER, "prod")[0].actor == "ada"
    [row] = [entry for entry in registry.audit.page(limit=1000) if entry.request_id == "call-42"]
    assert (row.actor, row.credential, row.action) == ("ada", secret.split("_")[1], "alias.set")
    assert row.peer.startswith("ipv4:127.0.0.1:")


@pytest.mark.asyncio
async def test_a_publisher_publishes_as_a_candidate_and_no_further(
    registry: Registry, base: BaseModelSpec, tmp_path: Path
) -> None:
    secret = principal(registry, "train", Role.PUBLISHER)
    source = write_adapter(tmp_path / "new", seed=77)
    async with served(registry, secret) as [train]:
        begun = await train.ask(
            "BeginPublish",
            pb.BeginPublishRequest(
                adapter="red/a",
                files=[pb.FileRef(path=e.path, digest=e.digest, size_bytes=e.size_bytes) for e in entries(source)],
                base_digest=base.digest,
                idempotency_key="k",
            ),
        )
        by_digest = {entry.digest: source / entry.path for entry in entries(source)}
        for digest in begun.missing_digests:
            part = pb.UploadBlobRequest(
                session_id=begun.session_id, digest=digest, data=by_digest[digest].read_bytes()
            )
            assert (await train.ask("UploadBlob", iter([part]))).complete
        commit = pb.CommitPublishRequest(session_id=begun.session_id, set_alias="prod")
        found = await train.refused("CommitPublish", commit)
        assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        commit.set_alias = "candidate"
        done = await train.ask("CommitPublish", commit)
    assert (done.version.version, done.version.publisher, list(done.version.aliases)) == (3, "train", ["candidate"])


@pytest.mark.asyncio
async def test_another_namespaces_session_is_as_good_as_none(
    registry: Registry, base: BaseModelSpec, tmp_path: Path
) -> None:
    source = write_adapter(tmp_path / "new", seed=78)
    session = begin(registry, base, AdapterName("blue", "a"), source)
    [entry] = [entry for entry in entries(source) if entry.path == "README.md"]
    async with served(registry, principal(registry, "train", Role.PUBLISHER)) as [train]:
        said = []
        for session_id in (session.session_id, "f" * 32):
            part = pb.UploadBlobRequest(session_id=session_id, digest=entry.digest, data=b"x")
            found = await train.refused("UploadBlob", iter([part]))
            assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
            said.append(found.message.replace(session_id, "…"))
        assert said[0] == said[1]
    assert registry.query_upload(session.session_id, entry.digest).committed_bytes == 0


@pytest.mark.asyncio
async def test_bytes_are_shown_to_who_may_see_a_version_that_has_them(registry: Registry) -> None:
    red, blue = (registry.list_versions(name)[0][0].file(WEIGHTS) for name in (NER, AdapterName("blue", "a")))
    async with served(registry, principal(registry, "ada", Role.READER)) as [ada]:
        own = await ada.download(red.digest)
        assert isinstance(own, bytes)
        assert sha256_digest(own) == red.digest
        foreign, absent = await ada.download(blue.digest), await ada.download(sha256_digest(b"nothing"))
    assert isinstance(foreign, Refusal)
    assert isinstance(absent, Refusal)
    assert (
        (foreign.code, foreign.reason)
        == (grpc.StatusCode.NOT_FOUND, "BLOB_NOT_FOUND")
        == (
            absent.code,
            absent.reason,
        )
    )
    assert foreign.message.replace(blue.digest, "…") == absent.message.replace(sha256_digest(b"nothing"), "…")


@pytest.mark.asyncio
async def test_a_right_on_an_alias_is_a_right_on_what_it_names_now(registry: Registry) -> None:
    first, second = reversed(registry.list_versions(NER)[0])
    async with served(registry, principal(registry, "app", (Scope.READ, "red/a@prod"))) as [app]:
        assert (await app.ask("Resolve", pb.ResolveRequest(ref="red/a@prod"))).version.version == 1
        assert (
            await app.refused("GetVersion", pb.GetVersionRequest(ref="red/a:1"))
        ).code is grpc.StatusCode.NOT_FOUND
        assert isinstance(await app.download(first.file(WEIGHTS).digest), bytes)
        assert isinstance(await app.download(second.file(WEIGHTS).digest), Refusal)
        assert (await app.ask("ListAdapters", pb.ListAdaptersRequest())).adapters[0].adapter == "a"


@pytest.mark.asyncio
async def test_moving_the_aliases_of_a_version_takes_the_right_to_move_each(registry: Registry) -> None:
    secret = principal(registry, "ops", (Scope.READ, "red/*"), (Scope.YANK, "red/*"), (Scope.PROMOTE, "red/*"))
    request = pb.SetVersionStateRequest(
        adapter="red/a", version=1, action=pb.VERSION_ACTION_YANK, reason="wrong", move_aliases_to=2
    )
    registry.access.grant("ops", Scope.PROMOTE, "red/*@prod", effect=Effect.DENY, actor="root")
    async with served(registry, secret) as [ops]:
        found = await ops.refused("SetVersionState", request)
        assert found.code is grpc.StatusCode.PERMISSION_DENIED
        registry.access.revoke_grant("ops", Scope.PROMOTE, "red/*@prod", actor="root")
        assert (await ops.ask("SetVersionState", request)).version.state == pb.VERSION_STATE_YANKED
    assert [alias.version for alias in registry.aliases.all(NER)] == [2]


@pytest.mark.asyncio
async def test_a_revoked_token_ends_on_an_open_connection(registry: Registry) -> None:
    secret = principal(registry, "ada", Role.READER)
    async with served(registry, secret) as [ada]:
        request = pb.GetVersionRequest(ref="red/a@prod")
        assert (await ada.ask("GetVersion", request)).version.version == 1
        registry.access.grant("ada", Scope.READ, "red/a", effect=Effect.DENY, actor="root")
        assert (await ada.refused("GetVersion", request)).code is grpc.StatusCode.NOT_FOUND
        registry.access.revoke_token(secret.split("_")[1], actor="root")
        assert (await ada.refused("GetVersion", request)).code is grpc.StatusCode.UNAUTHENTICATED


VIEWS = [
    [],
    ["red/a"],
    ["red/a", "white/z"],
    ["red/*"],
    ["blue/*", "red/c"],
    ["*/a"],
    ["*/*"],
    ["red/b@prod"],
    ["red/nothing"],
]


@pytest.mark.asyncio
@pytest.mark.parametrize("patterns", VIEWS, ids=" ".join)
async def test_lists_show_what_may_be_seen_and_nothing_of_the_rest(registry: Registry, patterns: list[str]) -> None:
    """In pages of every size; no page token names something hidden, and no page tells that there is more of it."""
    secret = principal(registry, "ada", *((Scope.READ, pattern) for pattern in patterns))
    seen = visible(patterns)
    async with served(registry, secret) as [ada]:
        if not patterns:
            found = await ada.refused("ListAdapters", pb.ListAdaptersRequest())
            assert found.code is grpc.StatusCode.PERMISSION_DENIED
            return
        for size in (0, 1, 2, 3, 5):
            listed, hints = await pages(ada, "ListAdapters", pb.ListAdaptersRequest(page_size=size), "adapters")
            assert [AdapterName(item.namespace, item.adapter) for item in listed] == seen
            assert_no_hint(hints, seen)
            assert len(hints) == max(1, -(-len(seen) // (size or 100)))


def visible(patterns: list[str]) -> list[AdapterName]:
    """What a person would say that somebody may see who has a right on these, or on an alias of these."""
    parts = [pattern.partition("@")[0].split("/") for pattern in patterns]
    return [
        name
        for name in NAMES
        if any(namespace in ("*", name.namespace) and adapter in ("*", name.adapter) for namespace, adapter in parts)
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("patterns", VIEWS[1:], ids=" ".join)
async def test_searches_and_namespaces_show_no_more(registry: Registry, patterns: list[str]) -> None:
    secret = principal(registry, "ada", *((Scope.READ, pattern) for pattern in patterns))
    seen = visible(patterns)
    of_alias = all("@" in pattern for pattern in patterns)
    async with served(registry, secret) as [ada]:
        for size in (1, 3):
            versions, _ = await pages(ada, "SearchVersions", pb.SearchVersionsRequest(page_size=size), "versions")
            found = sorted((AdapterName(version.namespace, version.adapter), version.version) for version in versions)
            assert found == [(name, number) for name in seen for number in ((1,) if of_alias else (1, 2))]
        whole = (await ada.ask("ListNamespaces", pb.ListNamespacesRequest())).namespaces
        namespaces = {item.name for item in whole}
        for size in (1, 3):
            listed, _ = await pages(ada, "ListNamespaces", pb.ListNamespacesRequest(page_size=size), "namespaces")
            assert listed == list(whole)
        # Patterns decide, not what is there: a right on `*/a` reaches into every namespace that will ever have one.
        owners = {pattern.partition("/")[0] for pattern in patterns}
        assert namespaces == {name.namespace for name in NAMES if owners & {"*", name.namespace}}


async def pages(caller: Caller, method: str, request: Any, field: str) -> tuple[list[Any], list[str]]:
    items, tokens = [], []
    while True:
        page = await caller.ask(method, request)
        items += getattr(page, field)
        tokens.append(page.next_page_token)
        if not page.next_page_token:
            return items, tokens
        request.page_token = page.next_page_token


def assert_no_hint(tokens: list[str], seen: list[AdapterName]) -> None:
    hidden = [str(name) for name in NAMES if name not in seen]
    for token in tokens:
        assert not any(name in token for name in hidden)


@pytest.mark.asyncio
async def test_a_watcher_hears_of_what_it_may_see(registry: Registry) -> None:
    secret = principal(registry, "ada", Role.READER)
    admin = principal(registry, "admin")
    registry.access.assign_role("admin", Role.ADMIN, "*", actor="root")
    start = registry.feed.revision()
    for name in NAMES:
        registry.set_alias(name, "live", 1, actor="root")
    registry.access.create_principal("new", actor="root")
    registry.set_alias(NER, "live", 2, actor="root")
    end = registry.feed.revision()
    async with served(registry, secret, admin) as [ada, root]:
        assert await watched(ada, start, end) == [("alias.set", name) for name in ("a", "b", "c", "a")]
        assert await watched(root, start, end) == [
            *(("alias.set", name.adapter) for name in NAMES),
            ("access.changed", ""),
            ("alias.set", "a"),
        ]
        found = await watch_refused(ada, pb.WatchRequest(namespace="blue"))
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "NAMESPACE_NOT_FOUND")
        absent = await watch_refused(ada, pb.WatchRequest(namespace="grey"))
        assert absent.message == found.message.replace("blue", "grey")


async def watched(caller: Caller, start: int, end: int) -> list[tuple[str, str]]:
    call = caller.stub.Watch(pb.WatchRequest(after_revision=start), metadata=caller.metadata, timeout=20)
    heard = []
    async for event in call:
        if event.kind != "bookmark":
            heard.append((event.kind, event.adapter))
        if event.revision >= end:
            call.cancel()
            break
    return heard


async def watch_refused(caller: Caller, request: pb.WatchRequest) -> Refusal:
    try:
        async for event in caller.stub.Watch(request, metadata=caller.metadata, timeout=20):
            raise AssertionError(f"told: {event}")
    except grpc.aio.AioRpcError as error:
        return refusal(error)
    raise AssertionError("ended without a word")


@pytest.mark.asyncio
async def test_a_publisher_gets_no_bytes_of_another_namespace_by_their_digests(
    registry: Registry, base: BaseModelSpec
) -> None:
    """Digest and size of a stranger's files are not the files."""
    own = {entry.digest for entry in registry.list_versions(AdapterName("red", "a"))[0][0].files}
    held = registry.list_versions(AdapterName("blue", "a"))[0][0].files
    strange = {entry.digest for entry in held} - own
    secret = principal(registry, "eve", Role.PUBLISHER, Role.READER)
    async with served(registry, secret) as [eve]:
        files = [pb.FileRef(path=entry.path, digest=entry.digest, size_bytes=entry.size_bytes) for entry in held]
        begun = await eve.ask(
            "BeginPublish",
            pb.BeginPublishRequest(adapter="red/a", files=files, base_digest=base.digest, idempotency_key="k"),
        )
        assert strange
        assert set(begun.missing_digests) == strange
        refused = await eve.refused("CommitPublish", pb.CommitPublishRequest(session_id=begun.session_id))
        assert refused.reason == "UPLOAD_INCOMPLETE"
        for digest in strange:
            hidden = await eve.download(digest)
            assert isinstance(hidden, Refusal)
            assert hidden.reason == "BLOB_NOT_FOUND"
