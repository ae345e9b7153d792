"""One answer's progress through the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from switchyard.server.engine.detokenize import Detokenizer
from switchyard.server.engine.prefix_cache import BlockKey
from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.engine.types import AdapterSlot, Choice, FinishReason, GenerateRequest, KvRow, SampledToken
from switchyard.server.engine.wait_reason import WaitReason


class SequenceState(Enum):
    """Where a sequence stands."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    ENDED = "ended"


TRANSITIONS: dict[SequenceState, frozenset[SequenceState]] = {
    SequenceState.WAITING: frozenset({SequenceState.PREFILL, SequenceState.ENDED}),
    SequenceState.PREFILL: frozenset({SequenceState.DECODE, SequenceState.WAITING, SequenceState.ENDED}),
    SequenceState.DECODE: frozenset({SequenceState.WAITING, SequenceState.ENDED}),
    SequenceState.ENDED: frozenset(),
}
"""Back to WAITING is preemption: the context is computed again later, the output stays."""


@dataclass(slots=True, eq=False)
class Sequence:
    """The engine's mutable record of one answer.

    Attributes:
        sequence_id: the request's id, with `/choice` behind it for all but the first of several answers.
        request: what was asked.
        choice: which of the request's answers it is, counted from 0.
        sampling: how its tokens are chosen.
        arrival: number of the request in order of acceptance.
        accepted_s: engine time of acceptance.
        detokenizer: its text so far.
        block_keys: keys of the whole blocks of its prompt; empty when they are not cached.
        state: where it stands; change it with `advance`.
        kv_row: its row in the KV cache while it runs.
        adapter_slot: its adapter's slot while it runs; None for the base.
        context: prompt and output, token ids.
        computed: tokens of `context` whose keys and values are in the row.
        output: tokens chosen so far.
        logprob: sum of their log-probabilities.
        scored: prompt tokens, the first left out, whose log-probabilities have been handed on.
        cached_tokens: prompt tokens that came from the prefix cache at the first start.
        preemptions: how often it was preempted.
        waiting_for: why it waits; None while it runs.
        slot_wait_began_s: since when it waits for an adapter slot, on the engine's clock.
        ended_by: why it ended; None before.
        vector: what its prompt has become, when a vector was asked for; empty before.
    """

    sequence_id: str
    request: GenerateRequest
    choice: int
    sampling: SamplingParams
    arrival: int
    accepted_s: float
    detokenizer: Detokenizer
    block_keys: tuple[BlockKey, ...] = ()
    state: SequenceState = SequenceState.WAITING
    kv_row: KvRow | None = None
    adapter_slot: AdapterSlot | None = None
    context: list[int] = field(default_factory=list)
    computed: int = 0
    output: list[int] = field(default_factory=list)
    logprob: float = 0.0
    scored: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    waiting_for: WaitReason | None = WaitReason.TURN
    adapter_wait_s: float = 0.0
    adapter_wait_began_s: float | None = None
    slot_wait_began_s: float | None = None
    started_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    ended_by: FinishReason | None = None
    vector: bytes = b""

    def __post_init__(self) -> None:
        self.context = list(self.request.prompt_tokens)

    @property
    def adapter_key(self) -> str | None:
        """Key of the selection it is served with; None for the base."""
        return self.request.adapter.key if self.request.adapter else None

    @property
    def rank(self) -> tuple[int, int, int]:
        """Sorts one tenant's sequences by priority, then by age; whoever is last is preempted first."""
        return (-self.request.priority, self.arrival, self.choice)

    @property
    def needs_every_token(self) -> bool:
        """Whether something of every prompt token is asked for, so that none may come from the cache."""
        pooling = self.request.pooling
        return self.sampling.prompt_logprobs is not None or (pooling is not None and pooling.needs_every_token)

    def advance(self, state: SequenceState) -> None:
        """Moves to `state`.

        Raises:
            RuntimeError: the transition table does not allow it, which is a bug of the engine.
        """
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"sequence {self.sequence_id}: {self.state.value} -> {state.value}")
        self.state = state

    def started(self, now: float) -> bool:
        """Notes that it entered the batch; true the first time."""
        self._end_adapter_wait(now)
        self.slot_wait_began_s = None
        self.waiting_for = None
        self.advance(SequenceState.PREFILL)
        first = self.started_s is None
        if first:
            self.started_s = now
        return first

    def preempted(self) -> None:
        """Forgets what is computed; the output, and with it the place in the random stream, stays."""
        self.advance(SequenceState.WAITING)
        self.computed = 0
        self.preemptions += 1
        self.waiting_for = WaitReason.TURN

    def waits_for(self, reason: WaitReason, now: float) -> None:
        """Notes why it could not start."""
        if reason is self.waiting_for:
            return
        self.waiting_for = reason
        needs_slot = reason is WaitReason.ADAPTER_SLOT
        if not needs_slot and reason is not WaitReason.ADAPTER:
            self._end_adapter_wait(now)
        elif self.adapter_wait_began_s is None:
            self.adapter_wait_began_s = now
        if needs_slot and self.slot_wait_began_s is None:
            self.slot_wait_began_s = now

    def _end_adapter_wait(self, now: float) -> None:
        if self.adapter_wait_began_s is not None:
            self.adapter_wait_s += now - self.adapter_wait_began_s
            self.adapter_wait_began_s = None

    def slot_wait_s(self, now: float) -> float:
        """Seconds since an adapter slot was first all that it lacked."""
        return now - self.slot_wait_began_s if self.slot_wait_began_s is not None else 0.0

    def new_scores(self, start: int, scores: tuple[SampledToken, ...]) -> tuple[SampledToken, ...]:
        """Those of a step's prompt scores that have not been handed on before, as after a preemption they can be.

        Args:
            start: position where the step's piece of the prompt began.
            scores: of the tokens after each token of that piece.
        """
        fresh = scores[max(0, self.scored - start) :]
        self.scored += len(fresh)
        return fresh

    def append(self, token: int, logprob: float) -> None:
        """Adds a chosen token."""
        self.output.append(token)
        self.context.append(token)
        self.logprob += logprob

    def chunk_end(self, most_tokens: int, block_tokens: int) -> int:
        """Where its next piece of work ends: at the end of its context, or at a whole block.

        Args:
            most_tokens: longest piece.
            block_tokens: tokens of a block.

        Returns:
            A position in `context`; `computed` or less when not even one block fits.
        """
        end = self.computed + most_tokens
        return len(self.context) if end >= len(self.context) else end // block_tokens * block_tokens

    def finish_reason(self, token: int, eos_token_ids: frozenset[int]) -> FinishReason | None:
        """Why the answer ends with `token`, the newest of `output`; None when it goes on."""
        stopping = self.request.stopping
        if self.detokenizer.matched_stop or token in stopping.ending(eos_token_ids):
            return FinishReason.STOP
        if len(self.output) >= stopping.max_tokens:
            return FinishReason.LENGTH
        return None

    def result(self, index: int) -> Choice:
        """How it ended, as the `index`-th answer.

        Raises:
            RuntimeError: it has not ended, which is a bug of the engine.
        """
        if self.ended_by is None:
            raise RuntimeError(f"sequence {self.sequence_id} has not ended")
        return Choice(index, self.ended_by, len(self.output), self.detokenizer.matched_stop, self.logprob)
