"""What the demo shows on the running server: one batch, a promote under a stream, a composition."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from switchyard.clients.admin import AdminClient
from switchyard.clients.answers import Answer
from switchyard.clients.asking import Asking
from switchyard.clients.async_inference import AsyncInferenceClient
from switchyard.clients.demo.scoring import Row, is_right
from switchyard.clients.inference import InferenceClient
from switchyard.clients.records import Version
from switchyard.clients.registry import RegistryClient

_WATCH_S = 0.01


@dataclass(frozen=True, slots=True)
class Target:
    """Who is asked.

    Attributes:
        label: what tables call it.
        asking: the part of a request that names it.
        digest: identity of the version that must answer; empty for the base.
    """

    label: str
    asking: Asking
    digest: str


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One answer of the mixed batch.

    Attributes:
        target: who was asked.
        row: what was asked.
        answer: what came back.
        same_alone: whether the same request alone gave the same tokens.
    """

    target: Target
    row: Row
    answer: Answer
    same_alone: bool

    @property
    def right(self) -> bool:
        """Whether the answer is the row's completion."""
        return is_right(self.answer.text, self.row.completion)

    @property
    def served_as_asked(self) -> bool:
        """Whether exactly the asked version, or the base alone, answered."""
        digests = [one.digest for one in self.answer.served_by.adapters]
        return digests == ([self.target.digest] if self.target.digest else [])


@dataclass(frozen=True, slots=True)
class MixedBatch:
    """All prompts for all targets at once.

    Attributes:
        lines: every answer, target by target.
        most_running: sequences that were seen in the engine's batch at one time.
    """

    lines: tuple[BatchLine, ...]
    most_running: int


@dataclass(frozen=True, slots=True)
class PromoteScene:
    """A promote while a stream runs.

    Attributes:
        stream: the answer that was under way.
        tokens_before: its tokens when the alias moved.
        after: the next answer through the same alias.
        old: version that the alias pointed at.
        new: version that it points at after the move.
    """

    stream: Answer
    tokens_before: int
    after: Answer
    old: Version
    new: Version

    @property
    def held(self) -> bool:
        """Whether the stream ended on the old version and the next answer came from the new one."""
        served = [[one.digest for one in answer.served_by.adapters] for answer in (self.stream, self.after)]
        still_running = self.tokens_before < self.stream.usage.completion_tokens
        return still_running and served == [[self.old.digest], [self.new.digest]]


@dataclass(frozen=True, slots=True)
class ComposedScene:
    """A composition whose result is known: half of a version plus the whole of its half-strength sibling.

    Attributes:
        composed: the answer of 0.5 x the version + 1 x its half.
        whole: the answer of the version alone.
    """

    composed: Answer
    whole: Answer

    @property
    def equal(self) -> bool:
        """Whether both gave the same tokens, and the first was a composition."""
        is_composition = bool(self.composed.served_by.recipe_digest)
        return is_composition and self.composed.token_ids == self.whole.token_ids


async def ask_mixed(address: str, targets: Sequence[Target], rows: Sequence[Row], max_tokens: int) -> MixedBatch:
    """Sends every row to every target at once, then each again on its own."""
    pairs = [(target, row) for target in targets for row in rows]
    async with AsyncInferenceClient(address) as client:

        async def ask(target: Target, row: Row) -> Answer:
            asking = Asking(temperature=0.0, max_tokens=max_tokens) | target.asking
            stream = await client.stream(row.prompt, **asking)
            async for _ in stream:
                pass
            return stream.answer

        watching = asyncio.create_task(_watch_load(address))
        together = await asyncio.gather(*(ask(target, row) for target, row in pairs))
        watching.cancel()
        most_running = await watching
        alone = [await ask(target, row) for target, row in pairs]
    lines = tuple(
        BatchLine(target, row, answer, answer.token_ids == again.token_ids)
        for (target, row), answer, again in zip(pairs, together, alone, strict=True)
    )
    return MixedBatch(lines, most_running)


def promote_under_stream(
    client: InferenceClient, registry: RegistryClient, prompt: str, alias: str, versions: tuple[Version, Version]
) -> PromoteScene:
    """Moves `alias` from the first to the second version while a stream through it runs, then moves it back."""
    old, new = versions
    asking = Asking(adapter=f"{old.name}@{alias}", temperature=0.0, max_tokens=96, ignore_eos=True)
    with client.stream(prompt, **asking) as stream:
        next(stream)
        tokens_before = stream.tokens
        registry.promote(old.name, alias, new.version, reason="demo: promote under a running stream")
        for _ in stream:
            pass
    after = client.generate(prompt, **asking)
    registry.promote(old.name, alias, old.version, reason="demo: roll back")
    return PromoteScene(stream.answer, tokens_before, after, old, new)


def compose(client: InferenceClient, prompt: str, versions: tuple[Version, Version], limit: int) -> ComposedScene:
    """Asks for a version as the sum of its half and half of itself, and for the version alone."""
    whole, half = versions
    rest = Asking(temperature=0.0, max_tokens=limit)
    both = Asking(composition=[(whole.ref, 0.5), (half.ref, 1.0)])
    alone = Asking(adapter=whole.ref)
    return ComposedScene(client.generate(prompt, **rest | both), client.generate(prompt, **rest | alone))


async def _watch_load(address: str) -> int:
    """Looks at the engine's load again and again until it is cancelled; returns the most seen."""
    most = 0
    with AdminClient(address) as client:
        try:
            while True:
                load = await asyncio.to_thread(client.load)
                most = max(most, load.running_sequences)
                await asyncio.sleep(_WATCH_S)
        except asyncio.CancelledError:
            return most
