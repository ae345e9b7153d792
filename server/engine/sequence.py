"""One request's progress through the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from switchyard.server.engine.detokenize import Detokenizer
from switchyard.server.engine.ports import EventSink
from switchyard.server.engine.types import AdapterSlot, FinishReason, GenerateRequest, KvRow, Timing


class SequenceState(Enum):
    """Where a sequence stands."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    ENDED = "ended"


TRANSITIONS: dict[SequenceState, frozenset[SequenceState]] = {
    SequenceState.WAITING: frozenset({SequenceState.PREFILL, SequenceState.ENDED}),
    SequenceState.PREFILL: frozenset({SequenceState.DECODE, SequenceState.ENDED}),
    SequenceState.DECODE: frozenset({SequenceState.ENDED}),
    SequenceState.ENDED: frozenset(),
}


@dataclass(slots=True)
class Sequence:
    """The engine's mutable record of one accepted request.

    Attributes:
        request: what was asked.
        sink: where its events go.
        detokenizer: its text so far.
        accepted_s: engine time of acceptance.
        state: where it stands; change it with `advance`.
        kv_row: its row in the KV cache while it runs.
        adapter_slot: its adapter's slot while it runs; None for the base.
        computed: tokens whose keys and values are in the row.
        output: tokens chosen so far.
        waiting_for: why it waits: `kv_row`, `adapter` or empty.
        adapter_wait_s: seconds spent waiting for the adapter with a row at hand.
    """

    request: GenerateRequest
    sink: EventSink
    detokenizer: Detokenizer
    accepted_s: float
    state: SequenceState = SequenceState.WAITING
    kv_row: KvRow | None = None
    adapter_slot: AdapterSlot | None = None
    computed: int = 0
    output: list[int] = field(default_factory=list)
    waiting_for: str = ""
    adapter_wait_s: float = 0.0
    adapter_wait_began_s: float | None = None
    started_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None

    @property
    def adapter_key(self) -> str | None:
        """Key of the selection it is served with; None for the base."""
        return self.request.adapter.key if self.request.adapter else None

    def advance(self, state: SequenceState) -> None:
        """Moves to `state`.

        Raises:
            RuntimeError: the transition table does not allow it, which is a bug of the engine.
        """
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"sequence {self.request.request_id}: {self.state.value} -> {state.value}")
        self.state = state

    def next_chunk(self, chunk_tokens: int) -> tuple[int, ...]:
        """Tokens to process next.

        In prefill a chunk ends at a multiple of `chunk_tokens` from the start of
        the prompt, never elsewhere: a sequence's arithmetic then does not depend
        on what shares its steps.
        """
        if self.state is SequenceState.DECODE:
            return (self.output[-1],)
        end = min(len(self.request.prompt_tokens), (self.computed // chunk_tokens + 1) * chunk_tokens)
        return self.request.prompt_tokens[self.computed : end]

    def completes_prompt(self, chunk: tuple[int, ...]) -> bool:
        """Whether the logits after `chunk` choose a token."""
        return self.computed + len(chunk) >= len(self.request.prompt_tokens)

    def timing(self) -> Timing:
        """Where its time went."""
        started = self.started_s if self.started_s is not None else self.accepted_s
        first = self.first_token_s if self.first_token_s is not None else started
        last = self.last_token_s if self.last_token_s is not None else first
        return Timing(
            queue_s=started - self.accepted_s,
            adapter_wait_s=self.adapter_wait_s,
            time_to_first_token_s=first - self.accepted_s,
            decode_s=last - first,
        )

    def finish_reason(self, token: int, eos_token_ids: frozenset[int], context_tokens: int) -> FinishReason | None:
        """Why the answer ends with `token`, the newest of `output`; None when it goes on."""
        stopping = self.request.stopping
        if self.detokenizer.matched_stop or token in stopping.ending(eos_token_ids):
            return FinishReason.STOP
        if len(self.output) >= stopping.max_tokens:
            return FinishReason.LENGTH
        if len(self.request.prompt_tokens) + len(self.output) >= context_tokens:
            return FinishReason.LENGTH
        return None
