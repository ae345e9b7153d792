"""A whole engine on a tiny base, stepped by hand, with adapters read from directories."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fake_runner import ListSink

from switchyard.registry.errors import BlobCorrupt
from switchyard.server.adapters.composition import composed, single
from switchyard.server.adapters.host import AdapterHost
from switchyard.server.adapters.loader import AdapterLoader
from switchyard.server.adapters.slots import AdapterSlots
from switchyard.server.adapters.tiers import ResidencyLimits
from switchyard.server.engine.engine import Engine
from switchyard.server.engine.limits import KvLimits, StepLimits
from switchyard.server.engine.pooling import PoolingParams
from switchyard.server.engine.recipe import SUM, Recipe
from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.types import (
    AdapterPart,
    AdapterSelection,
    Digest,
    GenerateRequest,
    TokenEvent,
)
from switchyard.server.lora.ops import best_backend
from switchyard.server.model.loading import LoadedBase
from switchyard.server.model.runner import ModelRunner
from switchyard.server.model.sampling.sampler import Sampler


class SystemClock:
    def now(self) -> float:
        return time.monotonic()


class DirectoryBlobs:
    """A blob source over adapter directories; counts reads."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.reads: list[str] = []
        self.broken: set[str] = set()

    def add(self, path: Path) -> str:
        content = path.read_bytes()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return digest

    def read_blob(self, digest: str) -> bytes:
        self.reads.append(digest)
        if digest in self.broken:
            raise BlobCorrupt("disk on fire")
        return self.blobs[digest]

    @contextmanager
    def read_ahead(self, digest: str, buffer: memoryview) -> Iterator[None]:
        buffer[:] = self.read_blob(digest)
        yield


class TinyEngine:
    """The real engine, host, slots and runner; `run` steps until everything has ended."""

    def __init__(
        self,
        base: LoadedBase,
        *,
        slots: int = 4,
        host_bytes: int = 1 << 30,
        adapter_bytes: int | None = None,
        sequences: int = 8,
        cached_blocks: int = 0,
        kv_blocks: int | None = None,
        chunk: int = 64,
    ) -> None:
        self.base = base
        self.clock = SystemClock()
        self.source = DirectoryBlobs()
        layout = base.resident.layout
        self.slots = AdapterSlots(slots, layout.group_count, poison=True)
        self.loader = AdapterLoader(self.source, layout, base.resident, self.clock)
        self.host = AdapterHost(
            self.loader, self.slots, ResidencyLimits(slots, host_bytes, adapter_bytes), self.clock
        )
        step_model = base.step_model(sequences, self.slots, best_backend())
        self.runner = ModelRunner(step_model, Sampler(base.tokenizer.eos_token_ids))
        self.engine = Engine(
            self.runner,
            self.host,
            base.tokenizer,
            self.clock,
            StepLimits(sequences, chunk + sequences, chunk),
            max_context_tokens=base.max_context_tokens,
            max_queue=1000,
            memory=KvLimits(kv_blocks or sequences * 8 + cached_blocks, cached_blocks),
        )
        self._count = 0

    def part(self, directory: Path, weight: float = 1.0) -> AdapterPart:
        weights = self.source.add(directory / "adapter_model.safetensors")
        config = self.source.add(directory / "adapter_config.json")
        size = (directory / "adapter_model.safetensors").stat().st_size
        return AdapterPart("default", directory.name, 1, Digest(weights), "", 0, weight, 8, weights, config, size)

    def adapter(self, directory: Path) -> AdapterSelection:
        return single(self.part(directory))

    def composition(self, *parts: tuple[Path, float], recipe: Recipe = SUM) -> AdapterSelection:
        return composed([self.part(directory, weight) for directory, weight in parts], recipe)

    def submit(
        self,
        prompt: tuple[int, ...],
        adapter: AdapterSelection | None = None,
        *,
        max_tokens: int = 12,
        sampling: SamplingParams | None = None,
        stopping: StoppingParams | None = None,
        n: int = 1,
        best_of: int | None = None,
        priority: int = 0,
        pooling: PoolingParams | None = None,
    ) -> ListSink:
        self._count += 1
        sink = ListSink()
        self.engine.submit_to(
            GenerateRequest(
                request_id=f"r{self._count}",
                prompt_tokens=prompt,
                adapter=adapter,
                sampling=sampling or SamplingParams(),
                stopping=stopping or StoppingParams(max_tokens, ignore_eos=True),
                n=n,
                best_of=best_of or n,
                priority=priority,
                pooling=pooling,
            ),
            sink,
        )
        return sink

    def run(self) -> None:
        """Steps until no request is left; waits for loader threads in between."""
        while self.engine.load().running_sequences or self.engine.load().waiting_requests:
            if not self.engine.step().slices:
                time.sleep(0)
            self.engine.check_integrity()

    def tokens(self, *args: object, **kwargs: object) -> tuple[int, ...]:
        sink = self.submit(*args, **kwargs)  # type: ignore[arg-type]
        self.run()
        return output(sink)


def output(sink: ListSink, index: int = 0) -> tuple[int, ...]:
    """All tokens of an answer."""
    events = [event for event in sink.events if isinstance(event, TokenEvent) and event.index == index]
    return tuple(token for event in events for token in event.token_ids)
