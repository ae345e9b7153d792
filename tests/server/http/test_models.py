"""`/v1/models`, who may see what of it, and what else the listener answers."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import trustme
from http_harness import Harness, serving
from rpc_harness import BASE, OTHER_BASE, version

from switchyard.registry.access.policy import Scope
from switchyard.registry.store import Registry
from switchyard.server.calls.guard import Guard
from switchyard.server.observe.readiness import Phase
from switchyard.server.protection import TlsFiles

pytestmark = pytest.mark.asyncio

WORDS = replace(version("words", 2), aliases=("prod", "test"))
VERSIONS = (WORDS, version("tone"), version("extra"))


TURNS = [{"role": "user", "content": "hi"}]


async def test_base_versions_and_aliases_are_listed_over_all_pages() -> None:
    async with serving(None, *VERSIONS) as harness:
        models: list[Any] = [model async for model in harness.client.models.list()]
    names = [
        "tiny",
        "default/words:2",
        "default/words@prod",
        "default/words@test",
        "default/tone:1",
        "default/extra:1",
    ]
    assert [model.id for model in models] == names
    base, _, alias, *_ = models
    assert (base.root, base.parent, base.digest) == ("tiny", None, BASE.digest)
    assert (alias.root, alias.parent, alias.owned_by) == ("default/words:2", "tiny", "default")
    assert (alias.version, alias.aliases, alias.digest) == (2, ["prod", "test"], WORDS.digest)


async def test_one_model_is_found_by_every_name_that_a_request_may_have() -> None:
    async with serving(None, *VERSIONS, version("foreign", base=OTHER_BASE)) as harness:
        harness.resolver.set_alias("words", "prod", 2)
        found: list[Any] = [
            await harness.client.models.retrieve(name) for name in ("tiny", "words@prod", "default/words:2")
        ]
        with pytest.raises(openai.NotFoundError) as missing:
            await harness.client.models.retrieve("words:9")
        with pytest.raises(openai.BadRequestError) as foreign:
            await harness.client.models.retrieve("foreign:1")
    assert [model.root for model in found] == ["tiny", "default/words:2", "default/words:2"]
    assert (missing.value.code, foreign.value.code) == ("model_not_found", "BASE_MISMATCH")


async def test_health_follows_the_phase() -> None:
    async with serving() as harness, httpx2.AsyncClient() as http:
        serving_ = await http.get(f"http://{harness.address}/health")
        harness.readiness.advance(Phase.DRAINING)
        draining = await http.get(f"http://{harness.address}/health")
    assert (serving_.status_code, serving_.json()) == (200, {"status": "serving"})
    assert (draining.status_code, draining.json()) == (503, {"status": "draining"})


async def test_what_is_not_here_says_what_is() -> None:
    async with serving() as harness, httpx2.AsyncClient() as http:
        nowhere = await http.post(f"{harness.url}/moderations", json={})
        method = await http.get(f"{harness.url}/completions")
    assert (nowhere.status_code, method.status_code) == (404, 405)
    assert nowhere.json()["error"]["code"] == method.json()["error"]["code"] == "unknown_url"
    assert "/v1/completions" in nowhere.json()["error"]["message"]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "r") as opened:
        yield opened


@pytest.fixture
def guard(registry: Registry) -> Iterator[Guard]:
    with ThreadPoolExecutor(1) as pool:
        yield Guard(registry.access, registry.reach, pool)


def token(registry: Registry, name: str, *patterns: str) -> str:
    registry.access.create_principal(name, actor="root")
    for pattern in patterns:
        registry.access.grant(name, Scope.GENERATE, pattern, actor="root")
    return registry.access.create_token(name, actor="root").secret


def as_(harness: Harness, secret: str) -> openai.AsyncOpenAI:
    return harness.client.with_options(api_key=secret)


async def test_a_token_is_a_tenant_with_its_rights(registry: Registry, guard: Guard) -> None:
    ann, nobody = token(registry, "ann", "default/words"), token(registry, "nobody")
    async with serving(None, *VERSIONS, guard=guard) as harness:
        await as_(harness, ann).completions.create(model="words:2", prompt="hi")
        models = [model.id async for model in as_(harness, ann).models.list()]
        with pytest.raises(openai.NotFoundError) as hidden:
            await as_(harness, ann).completions.create(model="tone:1", prompt="hi")
        with pytest.raises(openai.NotFoundError) as absent:
            await as_(harness, ann).completions.create(model="none:1", prompt="hi")
        with pytest.raises(openai.PermissionDeniedError):
            await as_(harness, nobody).completions.create(model="tiny", prompt="hi")
        with pytest.raises(openai.PermissionDeniedError):
            await as_(harness, nobody).models.list()
        with pytest.raises(openai.NotFoundError):
            await as_(harness, ann).models.retrieve("tone:1")
    assert harness.engine.submitted[0].tenant == "ann"
    assert models == ["tiny", "default/words:2", "default/words@prod", "default/words@test"]
    assert hidden.value.message.replace("tone", "none") == absent.value.message
    assert len(harness.engine.submitted) == 1


async def test_chat_tokens_and_metrics_ask_for_rights_too(registry: Registry, guard: Guard) -> None:
    ann = token(registry, "ann", "default/words")
    headers = {"authorization": f"Bearer {ann}"}
    async with serving(None, *VERSIONS, guard=guard) as harness, httpx2.AsyncClient(headers=headers) as http:
        paths = {
            f"{harness.url}/chat/completions": {"messages": TURNS},
            f"http://{harness.address}/tokenize": {"prompt": "x"},
        }
        for path, body in paths.items():
            found = {
                name: await http.post(path, json={"model": name} | body) for name in ("words:2", "tone:1", "none:1")
            }
            assert [answer.status_code for answer in found.values()] == [200, 404, 404], path
            assert found["tone:1"].text.replace("tone", "none") == found["none:1"].text
        before = await http.get(f"http://{harness.address}/metrics")
        registry.access.grant("ann", Scope.OBSERVE, "*/*", actor="root")
        observer = registry.access.create_token("ann", actor="root").secret
        after = await http.get(f"http://{harness.address}/metrics", headers={"authorization": f"Bearer {observer}"})
    assert (before.status_code, before.json()["error"]["type"]) == (403, "permission_error")
    assert (after.status_code, "# HELP " in after.text) == (200, True)


async def test_without_a_token_nothing_is_answered(registry: Registry, guard: Guard) -> None:
    async with serving(None, *VERSIONS, guard=guard) as harness, httpx2.AsyncClient() as http:
        found = [
            await http.get(f"{harness.url}/models"),
            await http.get(f"{harness.url}/models/words:2"),
            await http.post(f"{harness.url}/completions", json={"model": "tiny", "prompt": "hi"}),
            await http.post(f"{harness.url}/chat/completions", json={"model": "tiny", "messages": TURNS}),
            await http.post(f"http://{harness.address}/tokenize", json={"model": "tiny", "prompt": "hi"}),
            await http.get(f"http://{harness.address}/metrics"),
            await http.get(f"{harness.url}/models", headers={"authorization": "Bearer wrong"}),
            await http.get(f"{harness.url}/models", headers={"authorization": "Basic eDp5"}),
        ]
        health = await http.get(f"http://{harness.address}/health")
    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in found} == {(401, "invalid_api_key")}
    assert {answer.headers["www-authenticate"] for answer in found} == {"Bearer"}
    assert health.status_code == 200


async def test_calls_on_one_connection_are_not_each_others(registry: Registry, guard: Guard) -> None:
    ann, bob = token(registry, "ann", "*/*"), token(registry, "bob", "*/*")
    async with serving(guard=guard) as harness:
        for secret in (ann, bob):
            await as_(harness, secret).completions.create(model="tiny", prompt="hi")
        with pytest.raises(openai.AuthenticationError):
            await harness.client.completions.create(model="tiny", prompt="hi")
    assert [request.tenant for request in harness.engine.submitted] == ["ann", "bob"]


def files(directory: Path, authority: trustme.CA) -> TlsFiles:
    leaf = authority.issue_cert("127.0.0.1")
    certificate, key = directory / "server.pem", directory / "server.key"
    for path, blobs in ((certificate, leaf.cert_chain_pems), (key, [leaf.private_key_pem])):
        aside = path.with_suffix(".new")
        aside.write_bytes(b"".join(blob.bytes() for blob in blobs))
        aside.replace(path)
    return TlsFiles(certificate, key)


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_certificates_are_replaced_under_a_running_server(tmp_path: Path) -> None:
    first, second = trustme.CA(), trustme.CA()
    async with serving(tls=files(tmp_path, first)) as harness:
        url = f"https://{harness.address}/health"
        async with httpx2.AsyncClient(verify=trusting(first)) as http:
            assert (await http.get(url)).status_code == 200
        files(tmp_path, second)
        async with httpx2.AsyncClient(verify=trusting(second)) as http:
            assert (await http.get(url)).status_code == 200
        (tmp_path / "server.key").write_text("no key")
        async with httpx2.AsyncClient(verify=trusting(second)) as http:
            assert (await http.get(url)).status_code == 200


async def test_files_that_are_no_certificate_are_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("nothing")
    with pytest.raises(OSError, match="cannot be used for TLS"):
        async with serving(tls=TlsFiles(tmp_path / "x", tmp_path / "x")):
            pass


async def test_a_taken_port_is_found_when_it_is_bound() -> None:
    async with serving() as harness:
        with pytest.raises(OSError, match="is another server running there"):
            harness.app.bind("127.0.0.1", int(harness.address.rpartition(":")[2]))
