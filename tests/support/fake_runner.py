"""An engine's surroundings without torch: a runner, an adapter pool, a clock, a decoder."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field

from switchyard.server.engine.ports import AdapterTier
from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.types import (
    BLOCK_TOKENS,
    AdapterPart,
    AdapterSelection,
    AdapterSlot,
    Digest,
    Event,
    GenerateRequest,
    SampledToken,
    SequenceSlice,
    StepOutput,
    StepPlan,
)
from switchyard.server.errors import AdapterUnavailable


@dataclass
class FakeClock:
    time_s: float = 0.0

    def now(self) -> float:
        return self.time_s


@dataclass
class ListSink:
    events: list[Event] = field(default_factory=list)

    def put(self, event: Event) -> None:
        self.events.append(event)


@dataclass
class LetterDecoder:
    """Token n is the n-th letter; token 0 ends an answer."""

    eos_token_ids: frozenset[int] = frozenset({0})

    def decode(self, token_ids: list[int]) -> str:
        return "".join(chr(ord("a") + token - 1) for token in token_ids if token)


@dataclass
class FakeRunner:
    """Chooses the token that `choose(request_id, sample_index)` names; remembers plans, rows and blocks.

    A row holds the adapter and the tokens that were written to it, so that a copied block shows
    whose keys and values it is.
    """

    choose: Callable[[str, int], int] = lambda request_id, index: index + 1
    logprob: Callable[[str, int], float] = lambda request_id, index: 0.0
    block_tokens: int = BLOCK_TOKENS
    plans: list[StepPlan] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    contexts: dict[int, list[tuple[int | None, int]]] = field(default_factory=dict)
    blocks: dict[int, list[tuple[int | None, int]]] = field(default_factory=dict)
    copied_in: int = 0
    faults: set[str] = field(default_factory=set)
    failure: Exception | None = None

    def execute(self, plan: StepPlan) -> StepOutput:
        if self.failure is not None:
            raise self.failure
        self.plans.append(plan)
        for piece in plan.slices:
            context = self.contexts.setdefault(piece.kv_row, [])
            assert len(context) == piece.start, "a slice must continue where its row ends"
            context.extend((piece.adapter_slot, token) for token in piece.tokens)
            if piece.sample:
                whole = [(piece.adapter_slot, token) for token in (*piece.prompt, *piece.output)]
                assert context == whole, "a row must hold this sequence's context, computed with its adapter"
        sampled = [piece for piece in plan.slices if piece.sample]
        return StepOutput(
            {
                p.request_id: SampledToken(
                    self.choose(p.request_id, p.sample_index), self.logprob(p.request_id, p.sample_index)
                )
                for p in sampled
            },
            frozenset(p.request_id for p in sampled if p.request_id in self.faults),
            {p.request_id: self._scores(p) for p in plan.slices if p.sampling.prompt_logprobs is not None},
        )

    def _scores(self, piece: SequenceSlice) -> tuple[SampledToken, ...]:
        """The token itself stands for its score."""
        first, end = piece.start + 1, piece.start + len(piece.tokens) + 1
        return tuple(SampledToken(token) for token in piece.prompt[first:end])

    def release_row(self, kv_row: int) -> None:
        self.released.append(kv_row)
        self.contexts.pop(kv_row, None)

    def copy_out(self, row: int, start: int, block: int) -> None:
        assert block not in self.blocks, "a block is kept once"
        kept = self.contexts[row][start : start + self.block_tokens]
        assert len(kept) == self.block_tokens, "only whole blocks are kept"
        self.blocks[block] = kept

    def copy_in(self, block: int, row: int, start: int) -> None:
        context = self.contexts.setdefault(row, [])
        assert len(context) == start, "blocks are filled in from the start of an empty row"
        context.extend(self.blocks[block])
        self.copied_in += 1

    def drop_block(self, block: int) -> None:
        del self.blocks[block]

    def forget(self, request_id: str) -> None:
        self.forgotten.append(request_id)


@dataclass
class FakePool:
    """Adapters become resident when a test says so; pins are counted."""

    ready: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    wanted: list[str] = field(default_factory=list)
    pins: dict[str, int] = field(default_factory=dict)
    slots: int = 1_000
    awaited: Set[Digest] = frozenset()
    seats: dict[str, int] = field(default_factory=dict)

    def tier(self, key: Digest) -> AdapterTier:
        if key in self.ready:
            return AdapterTier.MEMORY
        return AdapterTier.COMING if key in self.wanted and key not in self.broken else AdapterTier.ABSENT

    def prefetch(self, selection: AdapterSelection, now: float) -> None:
        self.wanted.append(selection.key)
        if selection.key in self.broken:
            raise AdapterUnavailable("broken file", cause_reason="BLOB_CORRUPT", retry_after_s=1.0)

    def acquire(self, selection: AdapterSelection, now: float) -> AdapterSlot | None:
        assert selection.key in self.ready, "only what is in memory is pinned"
        pinned = {key for key, count in self.pins.items() if count}
        if selection.key not in pinned and len(pinned) >= self.slots:
            return None
        self.pins[selection.key] = self.pins.get(selection.key, 0) + 1
        return AdapterSlot(self.seats.setdefault(selection.key, len(self.seats)))

    def release(self, key: Digest, now: float) -> None:
        self.pins[key] -= 1
        assert self.pins[key] >= 0

    def poll(self, now: float, awaited: Set[Digest]) -> None:
        self.awaited = awaited


def selection(name: str, rank: int = 8) -> AdapterSelection:
    part = AdapterPart("default", name, 1, Digest(name), "prod", 1, 1.0, rank, f"w-{name}", f"c-{name}", 100)
    return AdapterSelection(Digest(name), (part,), rank)


def request(
    request_id: str,
    prompt: int | tuple[int, ...] = 3,
    *,
    adapter: str | None = None,
    max_tokens: int = 4,
    stop: tuple[str, ...] = (),
    ignore_eos: bool = False,
    stop_token_ids: tuple[int, ...] = (),
    deadline_s: float | None = None,
    tenant: str = "",
    priority: int = 0,
    n: int = 1,
    best_of: int = 1,
    sampling: SamplingParams | None = None,
) -> GenerateRequest:
    tokens = tuple(range(1, prompt + 1)) if isinstance(prompt, int) else prompt
    return GenerateRequest(
        request_id=request_id,
        prompt_tokens=tokens,
        adapter=selection(adapter) if adapter else None,
        sampling=sampling or SamplingParams(),
        stopping=StoppingParams(max_tokens, stop, ignore_eos, 0, stop_token_ids),
        deadline_s=deadline_s,
        tenant=tenant,
        priority=priority,
        n=n,
        best_of=best_of,
    )
