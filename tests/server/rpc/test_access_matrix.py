"""Every RPC, as the descriptors name them, times every wrong credential: refused as the table below says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message_factory import GetMessageClass
from guarded import METHODS, bearer, call, guarded, silent_services
from handmade import ManualClock, write_adapter, write_base
from publishing import begin, publish
from rpc_harness import Refusal, refusal

from switchyard.registry.access.policy import Effect, Role, Scope
from switchyard.registry.access.reach import Reach
from switchyard.registry.base_model import describe_base
from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import RegistryError
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files
from switchyard.server.rpc import access_rules
from switchyard.server.rpc.access_rules import RULES, require_rules

PERMISSION_DENIED, NOT_FOUND = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED

ONE, ALL, PART = "one thing", "everything", "whatever part the caller may see"
# Written a second time, by hand: a rule that is changed by mistake is noticed here.
EXPECTED: dict[str, tuple[str, str]] = {
    "BeginPublish": ("adapter:publish", ONE),
    "UploadBlob": ("adapter:publish", ONE),
    "ConfirmUpload": ("adapter:publish", ONE),
    "QueryUpload": ("adapter:publish", ONE),
    "CommitPublish": ("adapter:publish", ONE),
    "AbortPublish": ("adapter:publish", ONE),
    "RenewLease": ("adapter:publish", ONE),
    "Resolve": ("adapter:read", ONE),
    "GetVersion": ("adapter:read", ONE),
    "GetAdapter": ("adapter:read", ONE),
    "ListAdapters": ("adapter:read", PART),
    "ListVersions": ("adapter:read", ONE),
    "DownloadBlob": ("adapter:read", ONE),
    "SearchVersions": ("adapter:read", PART),
    "CompareVersions": ("adapter:read", ONE),
    "ListImpactedVersions": ("adapter:read", PART),
    "GetModelCard": ("adapter:read", ONE),
    "SetVersionState": ("adapter:yank", ONE),
    "TagVersion": ("adapter:tag", ONE),
    "TagAdapter": ("adapter:tag", ONE),
    "UpdateAdapter": ("adapter:tag", ONE),
    "SetAlias": ("adapter:promote", ONE),
    "ListAliasHistory": ("adapter:read", ONE),
    "ListAliases": ("adapter:read", ONE),
    "BatchSetAliases": ("adapter:promote", ONE),
    "RollbackAlias": ("adapter:rollback", ONE),
    "DeleteAlias": ("adapter:promote", ONE),
    "SetCanary": ("adapter:promote", ONE),
    "GetAliasPolicy": ("adapter:read", ONE),
    "SetAliasPolicy": ("admin:policy", ONE),
    "StartRollout": ("adapter:promote", ONE),
    "GetRollout": ("adapter:read", ONE),
    "ListRollouts": ("adapter:read", ALL),
    "StopRollout": ("adapter:rollback", ONE),
    "AttachStatement": ("statement:attach", ONE),
    "ListStatements": ("adapter:read", ONE),
    "ReadStatement": ("adapter:read", ONE),
    "GetNamespace": ("adapter:read", ONE),
    "ListNamespaces": ("adapter:read", PART),
    "UpdateNamespace": ("admin:policy", ONE),
    "ListBaseModels": ("adapter:read", PART),
    "Watch": ("adapter:read", ONE),
    "Collect": ("admin:collect", ALL),
    "Scrub": ("admin:collect", ALL),
    "ApplyRetention": ("admin:collect", ONE),
    "ListAuditEvents": ("audit:read", ALL),
    "VerifyAudit": ("audit:read", ALL),
    "Generate": ("infer:generate", ONE),
    "GenerateOnce": ("infer:generate", ONE),
    "Chat": ("infer:generate", ONE),
    "Render": ("infer:generate", ONE),
    "Tokenize": ("infer:generate", PART),
    "Score": ("infer:generate", ONE),
    "Embed": ("infer:generate", ONE),
    "Abort": ("infer:generate", PART),
    "ListServable": ("infer:generate", PART),
    "GetServerInfo": ("admin:observe", ALL),
    "GetLoad": ("admin:observe", ALL),
    "ListAdapterStates": ("admin:observe", ALL),
    "Plan": ("admin:observe", ALL),
    "LoadAdapter": ("admin:load", ONE),
    "UnloadAdapter": ("admin:load", ONE),
    "Drain": ("admin:drain", ALL),
}
NER = AdapterName("red", "ner")


@dataclass(frozen=True)
class World:
    """A registry with one adapter in red, and what names parts of it."""

    registry: Registry
    clock: ManualClock
    there: dict[str, str]
    absent: dict[str, str]

    def secret(self, name: str) -> str:
        return self.registry.access.create_token(name, actor="root").secret


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    place = tmp_path_factory.mktemp("world")
    with Registry.open(place / "r", clock=ManualClock(), validate=validate_files) as registry:
        base = registry.register_base(describe_base(write_base(place / "base")))
        version = publish(registry, base, NER, write_adapter(place / "a"), set_alias="prod")
        session = begin(registry, base, NER, write_adapter(place / "b", seed=1), key="open")
        for name in ("red-admin", "blue-admin"):
            registry.access.create_principal(name, actor="root")
            registry.access.assign_role(name, Role.ADMIN, name.partition("-")[0], actor="root")
        registry.access.create_principal("admin", actor="root")
        registry.access.assign_role("admin", Role.ADMIN, "*", actor="root")
    return place / "r", {"session_id": session.session_id, "digest": version.files[0].digest}


@pytest.fixture
def world(template: tuple[Path, dict[str, str]], tmp_path: Path) -> Iterator[World]:
    root, facts = template
    shutil.copytree(root, tmp_path / "r")
    names = {"adapter": "red/ner", "ref": "red/ner@prod", "other_ref": "red/ner@prod", "namespace": "red"}
    absent = {"adapter": "grey/nil", "ref": "grey/nil@prod", "other_ref": "grey/nil@prod", "namespace": "grey"}
    alias = {"alias": "prod"}
    clock = ManualClock()
    clock.now_s += 1_000
    with Registry.open(tmp_path / "r", clock=clock) as registry:
        yield World(
            registry,
            clock,
            names | alias | facts | {"statement_id": "0" * 32},
            absent | alias | {"session_id": "f" * 32, "digest": sha256_digest(b"x"), "statement_id": "f" * 32},
        )


def filled(descriptor: Descriptor, values: dict[str, str]) -> Any:
    """A request whose fields have the values of their names, in nested messages too."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.name in values and field.cpp_type == field.CPPTYPE_STRING and not field.is_repeated:
            setattr(message, field.name, values[field.name])
        elif field.name == "targets":
            message.targets.append(filled(field.message_type, values))
        elif field.name == "request":
            message.request.CopyFrom(filled(field.message_type, values))
    if "target" in descriptor.oneofs_by_name:
        message.adapter = values["ref"]
    if descriptor.name == "WatchRequest":
        message.adapter = values["adapter"].partition("/")[2]
        message.namespace = values["adapter"].partition("/")[0]
    if descriptor.name == "FileRef":
        raise AssertionError("files name no adapter")
    return message


def request_of(method: str, values: dict[str, str]) -> Any:
    return filled(METHODS[method].input_type, values)


async def outcome(channel: grpc.aio.Channel, method: str, request: Any, secret: str | None) -> Refusal | None:
    """How the call was refused; None when it was let through."""
    try:
        await call(channel, method, request, bearer(secret) if secret is not None else ())
    except grpc.aio.AioRpcError as error:
        return refusal(error)
    return None


def expected(method: str) -> tuple[Scope, str]:
    scope, about = EXPECTED[METHODS[method].name]
    return Scope(scope), about


def test_the_table_of_this_test_knows_every_rpc() -> None:
    assert {descriptor.name for descriptor in METHODS.values()} == set(EXPECTED)
    assert set(METHODS) == set(RULES)


def test_an_rpc_without_a_rule_stops_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    service = "switchyard.registry.v1.RegistryService"
    require_rules([service])
    fewer = {name: rule for name, rule in RULES.items() if not name.endswith("/SetAlias")}
    monkeypatch.setattr(access_rules, "RULES", fewer)
    with pytest.raises(ValueError, match=r"without an access rule: .*SetAlias"):
        require_rules([service])
    monkeypatch.setattr(access_rules, "RULES", RULES | {f"/{service}/Gone": RULES[f"/{service}/SetAlias"]})
    with pytest.raises(ValueError, match=r"without an RPC: .*Gone"):
        require_rules([service])


class NobodyAsks(Reach):
    """Fails whoever asks it anything."""

    def __init__(self) -> None: ...

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"{name} was asked on the event loop")


@pytest.mark.parametrize("method", sorted(RULES))
def test_only_a_rule_that_says_so_asks_the_registry(method: str) -> None:
    rule = RULES[method]
    message = GetMessageClass(METHODS[method].input_type)()
    if rule.asks_registry:
        with suppress(RegistryError), pytest.raises(AssertionError, match="was asked"):
            rule.needs(message, NobodyAsks())
    else:
        with suppress(RegistryError):
            rule.needs(message, NobodyAsks())


@pytest.mark.asyncio
async def test_credentials_that_prove_nobody(world: World) -> None:
    access = world.registry.access
    live, revoked = access.create_token("admin", actor="root"), access.create_token("admin", actor="root")
    access.revoke_token(revoked.token_id, actor="root")
    short = access.create_token("admin", ttl_s=60, actor="root")
    world.clock.now_s += 60
    wrong = {
        "none": None,
        "malformed": "swy_nonsense",
        "another's": live.secret[:-4] + "AAAA",
        "expired": short.secret,
        "revoked": revoked.secret,
    }
    async with guarded(world.registry, silent_services()) as address, grpc.aio.insecure_channel(address) as channel:
        for method in METHODS:
            request = request_of(method, world.there)
            told = {kind: await outcome(channel, method, request, secret) for kind, secret in wrong.items()}
            assert {kind: found and (found.code, found.reason) for kind, found in told.items()} == dict.fromkeys(
                wrong, (UNAUTHENTICATED, "UNAUTHENTICATED")
            ), method
            # Why a token does not hold is nobody's business.
            assert len({found.message for kind, found in told.items() if found and kind != "none"}) == 1
            assert await outcome(channel, method, request, live.secret) is None or METHODS[method].name in {
                "ReadStatement"
            }, method


@pytest.mark.asyncio
async def test_every_scope_but_the_right_one(world: World) -> None:
    """Whoever can read is told which right is missing; whoever cannot is told that nothing is there."""
    access = world.registry.access
    secrets: dict[Scope, str] = {}
    for scope in Scope:
        access.create_principal(f"no-{scope}", actor="root")
        access.assign_role(f"no-{scope}", Role.ADMIN, "*", actor="root")
        access.grant(f"no-{scope}", scope, "*/*", effect=Effect.DENY, actor="root")
        secrets[scope] = world.secret(f"no-{scope}")
    async with guarded(world.registry, silent_services()) as address, grpc.aio.insecure_channel(address) as channel:
        for method in METHODS:
            scope, about = expected(method)
            found = await outcome(channel, method, request_of(method, world.there), secrets[scope])
            hidden = scope is Scope.READ and about is ONE
            assert found is not None, method
            assert (found.code, method) == (NOT_FOUND if hidden else PERMISSION_DENIED, method)
            if not hidden:
                assert f"no-{scope} lacks {scope} on" in found.message


@pytest.mark.asyncio
async def test_another_namespace_looks_empty(world: World) -> None:
    """An administrator of blue can do nothing in red, and cannot tell what is there from what is not."""
    secret = world.secret("blue-admin")
    async with guarded(world.registry, silent_services()) as address, grpc.aio.insecure_channel(address) as channel:
        for method in METHODS:
            _, about = expected(method)
            there = await outcome(channel, method, request_of(method, world.there), secret)
            absent = await outcome(channel, method, request_of(method, world.absent), secret)
            if about is PART:
                assert (there, absent) == (None, None), method
                continue
            assert there is not None, method
            assert absent is not None, method
            assert there.code is (PERMISSION_DENIED if about is ALL else NOT_FOUND), method
            said = there.message
            for field, value in world.there.items():
                said = said.replace(value, world.absent[field])
            assert (absent.code, absent.reason, absent.message, absent.metadata) == (
                there.code,
                there.reason,
                said,
                there.metadata,
            ), method
            assert there.violations == absent.violations == []


@pytest.mark.asyncio
async def test_the_administrator_of_a_namespace_may_do_all_that_is_about_it(world: World) -> None:
    secret = world.secret("red-admin")
    async with guarded(world.registry, silent_services()) as address, grpc.aio.insecure_channel(address) as channel:
        for method in METHODS:
            _, about = expected(method)
            found = await outcome(channel, method, request_of(method, world.there), secret)
            if about is ALL:
                assert found is not None, method
                assert found.code is PERMISSION_DENIED, method
            elif METHODS[method].name != "ReadStatement":
                assert found is None, (method, found)
