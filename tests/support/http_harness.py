"""A real HTTP listener on a free port over a fake engine and a registry of made-up versions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import openai
from fake_engine import FakeEngine
from rpc_harness import (
    BASE,
    QUANTIZATION,
    ByteTokenizer,
    FakeBlobs,
    FakeClock,
    FakeResolver,
    admission_with,
)

from switchyard.registry.records import VersionRecord
from switchyard.server.calls.answering import Answering
from switchyard.server.calls.catalog import Servable, ServablePage
from switchyard.server.calls.embedding import Embedding
from switchyard.server.calls.guard import Guard
from switchyard.server.calls.live import LiveWork
from switchyard.server.calls.quotas import Quotas
from switchyard.server.http.app import OpenAiApp, OpenAiRooms
from switchyard.server.http.chat import ChatCompletions
from switchyard.server.http.completions import Completions
from switchyard.server.http.embeddings import Embeddings
from switchyard.server.http.endpoint import Surroundings
from switchyard.server.http.metrics_page import MetricsPage
from switchyard.server.http.models import Models
from switchyard.server.http.tokenize import Tokenizing
from switchyard.server.observe.metrics import Metrics
from switchyard.server.observe.readiness import Phase, Readiness
from switchyard.server.protection import TlsFiles


class FakeCatalog:
    """Lists what it was given, two adapters to a page."""

    def __init__(self, versions: Sequence[VersionRecord]) -> None:
        self.versions = versions

    async def page(self, page_size: int, page_token: str) -> ServablePage:
        del page_size
        start = int(page_token or 0)
        rows = tuple(Servable(one, resident=False) for one in self.versions[start : start + 2])
        token = str(start + 2) if start + 2 < len(self.versions) else ""
        return ServablePage(BASE.name, BASE.digest, QUANTIZATION.label(), rows, token)


@dataclass
class Harness:
    """A running listener and everything behind it."""

    app: OpenAiApp
    engine: FakeEngine
    resolver: FakeResolver
    metrics: Metrics
    live: LiveWork
    readiness: Readiness
    clock: FakeClock
    address: str
    client: openai.AsyncOpenAI
    blobs: FakeBlobs

    @property
    def url(self) -> str:
        return f"http://{self.address}/v1"


@asynccontextmanager
async def serving(
    engine: FakeEngine | None = None,
    *versions: VersionRecord,
    guard: Guard | None = None,
    tls: TlsFiles | None = None,
    write_stall_s: float = 5.0,
    quotas: Quotas | None = None,
) -> AsyncIterator[Harness]:
    """Serves until the block ends."""
    engine = engine or FakeEngine()
    resolver, metrics, live, clock, readiness = (
        FakeResolver(*versions),
        Metrics(),
        LiveWork(),
        FakeClock(),
        Readiness(),
    )
    blobs = FakeBlobs()
    with ThreadPoolExecutor(1) as pool:
        admission = admission_with(resolver, clock, pool, blobs=blobs)
        catalog: Any = FakeCatalog(versions)
        app = OpenAiApp(readiness, Surroundings(live, metrics, guard, write_stall_s), tls)
        address = app.bind("127.0.0.1", 0)
        answering = Answering(admission, engine, live, metrics, quotas or Quotas(clock))
        app.serve(
            OpenAiRooms(
                Completions(answering, BASE.name, ByteTokenizer().text_of),
                ChatCompletions(answering, BASE.name, ByteTokenizer().text_of),
                Embeddings(Embedding(admission, answering, parallel=2), BASE.name),
                Models(catalog, admission, BASE.name, BASE.digest),
                Tokenizing(answering, BASE.name),
                MetricsPage(metrics.exposition),
            )
        )
        readiness.advance(Phase.SERVING)
        client = openai.AsyncOpenAI(api_key="none", base_url=f"http://{address}/v1", max_retries=0, timeout=20)
        try:
            async with client:
                yield Harness(app, engine, resolver, metrics, live, readiness, clock, address, client, blobs)
        finally:
            await app.stop()
