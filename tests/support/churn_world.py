"""A served registry under random work: requests, cancels, promotions, unloads, few slots, two tenants.

Everything that is answered is held to an oracle that serves one request at a time. A world is driven from one
seed; only the moment at which a loader thread finishes is the machine's.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from switchyard.registry.base_model import describe_base
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files
from switchyard.server import resident
from switchyard.server.adapters.slots import AdapterSlots
from switchyard.server.calls.admission import Admission
from switchyard.server.calls.draft import AdapterTarget, BaseTarget, RequestDraft, SamplingDraft, StoppingDraft
from switchyard.server.calls.live import LiveWork
from switchyard.server.config import ServerConfig
from switchyard.server.engine.types import ErrorEvent, Event, FinishedEvent, GenerateRequest, TokenEvent
from switchyard.server.errors import AdapterInUse, Cancelled
from switchyard.server.faces import admission_of, renderer_of
from switchyard.server.lifecycle import StopSwitch
from switchyard.server.measure.material import make_adapters
from switchyard.server.model.fast_model import FastModel
from switchyard.server.model.runner import ModelRunner
from switchyard.server.observe.metrics import Metrics
from switchyard.server.resident import MonotonicClock, ServingCore, Surroundings, build_core

NAMES = 8
VERSIONS = 8
RANKS = (1, 2, 4, 8, 16, 3, 5, 32)
TENANTS = ("red", "blue")
PROMPTS = 6
_POPULAR_SHARE = 0.2
TOKENS = 24


def publish_all(root: Path, base: Path) -> None:
    """Publishes 64 adapters of mixed ranks, eight versions under each of eight names, `prod` on the first."""
    with Registry.open(root / "registry", validate=validate_files) as registry:
        spec = registry.register_base(describe_base(base))
        ranks = [RANKS[index % len(RANKS)] for index in range(NAMES * VERSIONS)]
        paths = make_adapters(root / "adapters", spec.modules, ranks=ranks, scale=0.15)
        for index, path in enumerate(paths):
            name = AdapterName.parse(f"n{index % NAMES}")
            registry.publish(name, path, base_digest=spec.digest, publisher="churn")
        for index in range(NAMES):
            registry.aliases.move(AdapterName.parse(f"n{index}"), "prod", 1, actor="churn", reason="first")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the prompt and the way tokens are chosen."""

    prompt: tuple[int, ...]
    temperature: float
    seed: int


def questions(vocab: int) -> list[Question]:
    """Prompts of mixed lengths, some longer than a chunk, two with the same beginning, some sampled."""
    dice = random.Random(5)  # noqa: S311 - a test's own dice
    shared = tuple(dice.randrange(5, vocab) for _ in range(130))
    lengths = (3, 17, 70, 64)
    prompts = [tuple(dice.randrange(5, vocab) for _ in range(length)) for length in lengths]
    prompts += [(*shared, 7, 8), (*shared, 9)]
    return [Question(prompt, 0.8 if index % 3 == 2 else 0.0, index) for index, prompt in enumerate(prompts)]


@dataclass(slots=True)
class Heard:
    """One request and what came back."""

    request: GenerateRequest
    question: int
    tokens: list[int] = field(default_factory=list)
    ending: Event | None = None

    @property
    def key(self) -> str:
        return self.request.adapter.key if self.request.adapter else ""

    def put(self, event: Event) -> None:
        if self.ending is not None:
            raise AssertionError(f"{event} after the terminal {self.ending}")
        if isinstance(event, TokenEvent):
            self.tokens += event.token_ids
        else:
            self.ending = event


class World:
    """One core on the published adapters; steps by hand."""

    def __init__(self, root: Path, base: Path, **settings: object) -> None:
        config = ServerConfig(base=str(base), registry=root / "registry", threads=1, **settings)  # type: ignore[arg-type]
        self.metrics = Metrics()
        self.loop = asyncio.new_event_loop()
        self.pool = ThreadPoolExecutor(1)
        self.registry = Registry.open(config.registry)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resident, "AdapterSlots", partial(AdapterSlots, poison=True))
            self.core, self.admission = self.loop.run_until_complete(self._built(config))
        self._poison_rows()
        self.questions = questions(self.core.base.tokenizer.vocab_size)
        self.live: dict[str, Heard] = {}
        self.heard: list[Heard] = []
        self._count = 0

    async def _built(self, config: ServerConfig) -> tuple[ServingCore, Admission]:
        around = Surroundings(
            config=config,
            registry=self.registry,
            metrics=self.metrics,
            clock=MonotonicClock(),
            live=LiveWork(),
            switch=StopSwitch(1.0),
            registry_pool=self.pool,
            tokenizer_pool=self.pool,
        )
        core = build_core(config, self.registry, around.clock, around.metrics, around.switch.fail_from_thread)
        return core, admission_of(around, core.served, renderer_of(around, core.served))

    def _poison_rows(self) -> None:
        """Lets what is unused in the KV rows be NaN, where the attention reads nothing that it masks."""
        runner = self.core.engine._runner
        if isinstance(runner, ModelRunner) and isinstance(runner.model, FastModel) and runner.model.cache.tiled:
            runner.model.cache.poison()

    def ask(self, ref: str | None, question: int, tenant: str = "", priority: int = 0) -> Heard:
        """Admits and submits one request; the base is asked when there is no ref."""
        asked = self.questions[question]
        draft = RequestDraft(
            AdapterTarget(ref) if ref else BaseTarget(),
            prompt_tokens=asked.prompt,
            sampling=SamplingDraft(temperature=asked.temperature, seed=asked.seed),
            stopping=StoppingDraft(TOKENS, ignore_eos=True),
            priority=priority,
            request_id=f"r{self._count}",
        )
        self._count += 1
        admitted = self.loop.run_until_complete(self.admission.admit(draft, tenant=tenant))
        heard = Heard(admitted.request, question)
        self.core.engine.submit_to(heard.request, heard)
        self.live[heard.request.request_id] = heard
        self.heard.append(heard)
        return heard

    def step(self) -> None:
        """One step; lets the loader threads have the processor when there is nothing to compute."""
        if not self.core.engine.step().slices:
            time.sleep(0)
        for request_id in [name for name, heard in self.live.items() if heard.ending is not None]:
            del self.live[request_id]

    def drain(self) -> None:
        """Steps until nothing is left."""
        while self.live:
            self.step()

    def counted(self, metric: str) -> float:
        """Sum of a metric over its labels."""
        lines = self.metrics.exposition()[0].decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric))

    def close(self) -> None:
        self.core.host.close()
        self.registry.close()
        self.pool.shutdown()
        self.loop.close()


@contextmanager
def world(root: Path, base: Path, **settings: object) -> Iterator[World]:
    """A world that is closed at the end."""
    made = World(root, base, **settings)
    try:
        yield made
    finally:
        made.close()


class Oracle:
    """Every answer there can be, each from a server that does nothing else meanwhile; asked for once."""

    def __init__(self, alone: World) -> None:
        self._alone = alone
        self._answers: dict[tuple[str, int], tuple[int, ...]] = {}
        self._refs: dict[str, str | None] = {"": None}
        for index in range(NAMES):
            name = AdapterName.parse(f"n{index}")
            for version in range(1, VERSIONS + 1):
                record = alone.registry.resolve(AdapterRef.parse(f"{name}:{version}")).version
                self._refs[record.digest] = f"{name}:{version}"

    @property
    def digests(self) -> list[str]:
        """Who can be asked; empty for the base."""
        return list(self._refs)

    def answer(self, digest: str, question: int) -> tuple[int, ...]:
        """The tokens that this adapter gives to this question."""
        if (digest, question) not in self._answers:
            heard = self._alone.ask(self._refs[digest], question)
            self._alone.drain()
            self._answers[digest, question] = tuple(heard.tokens)
        return self._answers[digest, question]


@dataclass(slots=True)
class Tally:
    """What a run of churn saw."""

    tokens: int = 0
    wrong: list[str] = field(default_factory=list)
    finished: int = 0
    cancelled: int = 0
    promotions: int = 0
    unloads: int = 0
    refused_unloads: int = 0


def churn(made: World, oracle: Oracle, *, tokens: int, seed: int, in_flight: int = 24) -> Tally:
    """Random work until so many tokens have been checked."""
    dice, tally = random.Random(seed), Tally()  # noqa: S311 - a test's own dice
    while tally.tokens < tokens:
        while len(made.live) < in_flight:
            if dice.random() < _POPULAR_SHARE:
                # Asked again and again by one tenant: its beginning is in the prefix cache.
                made.ask("n0:1", PROMPTS - 1, TENANTS[0])
                continue
            ref = None if dice.random() < 0.1 else f"n{dice.randrange(NAMES)}" + _suffix(dice)
            made.ask(ref, dice.randrange(PROMPTS), dice.choice(TENANTS), dice.choice((0, 0, 0, 1)))
        _disturb(made, dice, tally)
        made.step()
        made.core.engine.check_integrity()
        made.core.host.check_integrity()
        _judge(made, oracle, tally)
    made.drain()
    _judge(made, oracle, tally)
    return tally


def _suffix(dice: random.Random) -> str:
    return "@prod" if dice.random() < 0.7 else f":{dice.randrange(VERSIONS) + 1}"


def _disturb(made: World, dice: random.Random, tally: Tally) -> None:
    if dice.random() < 0.05:
        made.core.engine.abort(dice.choice(list(made.live)))
    if dice.random() < 0.05:
        name = AdapterName.parse(f"n{dice.randrange(NAMES)}")
        made.registry.aliases.move(name, "prod", dice.randrange(VERSIONS) + 1, actor="churn", reason="churn")
        tally.promotions += 1
    statuses = made.core.host.statuses()
    if statuses and dice.random() < 0.25:
        try:
            made.core.host.unload(dice.choice(statuses).key)
            tally.unloads += 1
        except AdapterInUse:
            tally.refused_unloads += 1


def _judge(made: World, oracle: Oracle, tally: Tally) -> None:
    """Checks what has ended, and forgets it."""
    ended, made.heard = [h for h in made.heard if h.ending], [h for h in made.heard if not h.ending]
    for heard in ended:
        expected = oracle.answer(heard.key, heard.question)
        got = tuple(heard.tokens)
        tally.tokens += len(got)
        complete = isinstance(heard.ending, FinishedEvent)
        tally.finished += complete
        if isinstance(heard.ending, ErrorEvent):
            tally.cancelled += 1
            if not isinstance(heard.ending.error, Cancelled):
                tally.wrong.append(f"{heard.key} ended with {heard.ending.error!r}")
        if got != (expected if complete else expected[: len(got)]):
            tally.wrong.append(f"{heard.key} question {heard.question}: {got} instead of {expected}")
