"""A server's core without its network faces: the product's own engine, stepped by the measurement."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from switchyard.registry.base_model import describe_base
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files
from switchyard.server.calls.draft import AdapterTarget, BaseTarget, RequestDraft, StoppingDraft
from switchyard.server.calls.live import LiveWork
from switchyard.server.config import ServerConfig
from switchyard.server.engine.ports import AdapterTier
from switchyard.server.engine.types import ErrorEvent, Event, GenerateRequest, TokenEvent
from switchyard.server.faces import admission_of, renderer_of
from switchyard.server.lifecycle import StopSwitch
from switchyard.server.measure.spent import Spent
from switchyard.server.measure.workloads import Ask
from switchyard.server.observe.metrics import Metrics
from switchyard.server.resident import MonotonicClock, ServingCore, Surroundings, build_core


@dataclass(slots=True)
class Listener:
    """Hears one answer.

    Attributes:
        submitted_s: wall clock at submission.
        token_times_s: wall clock at each token.
        tokens: the tokens.
        ended: whether the terminal event came.
    """

    submitted_s: float = 0.0
    token_times_s: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    def put(self, event: Event) -> None:
        """Takes one event of the engine.

        Raises:
            ServerError: the answer failed, which no measurement expects.
        """
        if isinstance(event, TokenEvent):
            self.tokens += event.token_ids
            self.token_times_s += [time.perf_counter()] * len(event.token_ids)
            return
        self.ended = True
        if isinstance(event, ErrorEvent):
            raise event.error

    @property
    def first_token_after_s(self) -> float:
        """Submission to first token, in seconds."""
        return self.token_times_s[0] - self.submitted_s

    def gaps_s(self) -> list[float]:
        """Times between neighbouring tokens, in seconds."""
        return [later - earlier for earlier, later in zip(self.token_times_s, self.token_times_s[1:], strict=False)]


def fill(root: Path, base: Path, adapters: Sequence[Path]) -> None:
    """Publishes adapters under the names of their directories, as version 1."""
    with Registry.open(root, validate=validate_files) as registry:
        spec = registry.register_base(describe_base(base))
        for path in adapters:
            registry.publish(AdapterName.parse(path.name), path, base_digest=spec.digest, publisher="bench")


class Rig:
    """The core of one server on a filled registry; steps run in the caller's thread until `start`."""

    def __init__(self, config: ServerConfig) -> None:
        """Loads the base.

        Raises:
            ServerError: the base cannot be served.
        """
        self._loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(1)
        self._registry = Registry.open(config.registry)
        self.core: ServingCore = self._loop.run_until_complete(self._built(config))
        self.vocab = self.core.base.tokenizer.vocab_size
        self._threaded = False

    async def _built(self, config: ServerConfig) -> ServingCore:
        around = Surroundings(
            config=config,
            registry=self._registry,
            metrics=Metrics(),
            clock=MonotonicClock(),
            live=LiveWork(),
            switch=StopSwitch(config.drain_grace_s),
            registry_pool=self._pool,
            tokenizer_pool=self._pool,
        )
        core = build_core(config, self._registry, around.clock, around.metrics, around.switch.fail_from_thread)
        self._admission = admission_of(around, core.served, renderer_of(around, core.served))
        return core

    def start(self) -> None:
        """Lets the engine step in its own thread, as in a server."""
        self._threaded = True
        self.core.engine.start()

    def admitted(self, ask: Ask) -> GenerateRequest:
        """The request that a server would run, resolved in the registry."""
        target = BaseTarget() if ask.adapter is None else AdapterTarget(f"a{ask.adapter}:1")
        draft = RequestDraft(target, prompt_tokens=ask.prompt, stopping=StoppingDraft(ask.tokens, ignore_eos=True))
        return self._loop.run_until_complete(self._admission.admit(draft, remaining_s=None)).request

    def submit(self, ask: Ask) -> Listener:
        """Admits and submits one request."""
        listener = Listener()
        request = self.admitted(ask)
        listener.submitted_s = time.perf_counter()
        self.core.engine.submit_to(request, listener)
        return listener

    def prefill_and_decode(self, asks: Sequence[Ask]) -> tuple[Spent, Spent]:
        """Answers requests together, all of one length; time up to and after everybody's first token.

        Their adapters are in memory before: whoever waited for one would start later, beside the others' tokens.
        """
        self._warm(asks)
        listeners = [self.submit(ask) for ask in asks]
        began = Spent.now()
        while not all(listener.tokens for listener in listeners):
            self.core.engine.step()
        started = Spent.now()
        while not all(listener.ended for listener in listeners):
            self.core.engine.step()
        return started.since(began), Spent.now().since(started)

    def _warm(self, asks: Sequence[Ask]) -> None:
        first_of = {ask.adapter: ask for ask in reversed(asks) if ask.adapter is not None}
        selections = {number: self.admitted(ask).adapter for number, ask in first_of.items()}
        warm = {n for n, one in selections.items() if one and self.core.host.tier(one.key) is AdapterTier.MEMORY}
        cold = [ask for number, ask in first_of.items() if number not in warm]
        listeners = [self.submit(replace(ask, prompt=ask.prompt[:1], tokens=1)) for ask in cold]
        while not all(listener.ended for listener in listeners):
            self.core.engine.step()

    def closed_loop(self, asks: Sequence[Ask], in_flight: int) -> Spent:
        """Answers requests with so many under way at any time."""
        began = Spent.now()
        waiting, running = list(reversed(asks)), list[Listener]()
        while waiting or running:
            running = [listener for listener in running if not listener.ended]
            while waiting and len(running) < in_flight:
                running.append(self.submit(waiting.pop()))
            self.core.engine.step()
        return Spent.now().since(began)

    def close(self) -> None:
        """Stops the threads and closes the registry."""
        if self._threaded:
            self.core.engine.stop()
        self.core.close()
        self._registry.close()
        self._pool.shutdown()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
