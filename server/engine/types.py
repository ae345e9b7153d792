"""What crosses the engine's borders: requests in, events out, one plan per step.

Everything here is immutable and free of tensors, so that it can pass between
the event loop, the engine thread and the loader pool without locks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NewType

from switchyard.server.engine.pooling import PoolingParams
from switchyard.server.engine.recipe import SUM, Recipe
from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.wait_reason import WaitReason
from switchyard.server.errors import ServerError

Digest = NewType("Digest", str)
"""`sha256:<64 hex>` of a version's manifest, or of a composition's recipe."""

AdapterSlot = NewType("AdapterSlot", int)
"""Index of a resident adapter; stable while it is resident."""

KvRow = NewType("KvRow", int)
"""Index of one sequence's row in the KV cache."""

BLOCK_TOKENS = 64
"""Tokens of one cached block; prefill chunks and prefix hits end on multiples of it."""


class FinishReason(Enum):
    """Why a finished answer ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class AdapterPart:
    """One version in an adapter selection, with its factor.

    Attributes:
        namespace: namespace of the adapter.
        adapter: name of the adapter.
        version: number of the version, counted from 1.
        digest: digest of the version's manifest.
        alias: alias that was asked for; empty for other refs.
        alias_generation: generation of that alias at admission.
        weight: factor of this part's delta; 1 outside compositions.
        rank: largest rank over the modules.
        weights_digest: digest of the safetensors blob.
        config_digest: digest of the `adapter_config.json` blob.
        weights_bytes: size of the safetensors blob, in bytes.
        canary: whether it is the second version of the alias's split.
        features: features of PEFT that the version uses; see `AdapterShape.features`.
        contract_digest: digest of the `serving.json` blob; empty without one.
    """

    namespace: str
    adapter: str
    version: int
    digest: Digest
    alias: str
    alias_generation: int
    weight: float
    rank: int
    weights_digest: str
    config_digest: str
    weights_bytes: int
    canary: bool = False
    features: tuple[str, ...] = ()
    contract_digest: str = ""


@dataclass(frozen=True, slots=True)
class AdapterSelection:
    """The weights that a request is served with, fixed at admission.

    Attributes:
        key: identity in every cache: the version's digest, or the recipe's.
        parts: the versions that take part, in recipe order.
        rank: of the factors that an adapter slot gets.
        recipe_digest: digest of the composition; empty for a single version.
        recipe: how the parts become one; means nothing for a single version.
    """

    key: Digest
    parts: tuple[AdapterPart, ...]
    rank: int
    recipe_digest: str = ""
    recipe: Recipe = SUM


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One accepted request.

    Attributes:
        request_id: unique while the request lives.
        prompt_tokens: token ids of the prompt, at least one.
        adapter: the selection to serve with; None asks for the base model.
        sampling: how tokens are chosen.
        stopping: when the answer ends.
        deadline_s: time on the engine's clock after which it ends with an error; None for never.
        tenant: who asked, as proven; empty when nobody has to say.
        priority: higher goes first, among the requests of one tenant.
        n: answers to give.
        best_of: answers to make, of which the `n` most probable are given.
        pooling: the vector that is wanted instead of answers; None for answers.
    """

    request_id: str
    prompt_tokens: tuple[int, ...]
    adapter: AdapterSelection | None
    sampling: SamplingParams
    stopping: StoppingParams
    deadline_s: float | None = None
    tenant: str = ""
    priority: int = 0
    n: int = 1
    best_of: int = 1
    pooling: PoolingParams | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one answer went, in seconds.

    Attributes:
        queue_s: accepted to first planned.
        adapter_wait_s: part of `queue_s` spent waiting for the adapter.
        time_to_first_token_s: accepted to first token.
        decode_s: first token to last.
    """

    queue_s: float
    adapter_wait_s: float
    time_to_first_token_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class SampledToken:
    """One token and how probable the model found it.

    Attributes:
        token: token id.
        logprob: natural logarithm of its probability before anything the request asked
            for changed the distribution; 0 when nobody asked for logprobs.
        top: the most probable tokens at its place with their logprobs, most probable first.
    """

    token: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """New output of one request.

    Attributes:
        text: whole characters that are safe to show; may be empty.
        token_ids: tokens produced since the last event.
        index: which of the request's answers they belong to, counted from 0.
        logprobs: the same tokens with their logprobs; empty when nobody asked for them.
        prompt_logprobs: tokens of the prompt scored since the last event, the first of all left out.
    """

    text: str
    token_ids: tuple[int, ...]
    index: int = 0
    logprobs: tuple[SampledToken, ...] = ()
    prompt_logprobs: tuple[SampledToken, ...] = ()

    def followed_by(self, event: TokenEvent) -> TokenEvent:
        """This event and a later one of the same answer, as one."""
        return TokenEvent(
            self.text + event.text,
            self.token_ids + event.token_ids,
            self.index,
            self.logprobs + event.logprobs,
            self.prompt_logprobs + event.prompt_logprobs,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """How one of a request's answers ended.

    Attributes:
        index: which one, counted from 0.
        reason: why it ended.
        completion_tokens: tokens produced.
        matched_stop: the stop string that ended the text, or empty.
        cumulative_logprob: sum of its tokens' logprobs; 0 when nothing asked for them.
    """

    index: int
    reason: FinishReason
    completion_tokens: int
    matched_stop: str = ""
    cumulative_logprob: float = 0.0


@dataclass(frozen=True, slots=True)
class FinishedEvent:
    """The terminal event of a request that ended as asked.

    Attributes:
        reason: why the first answer ended.
        prompt_tokens: tokens of the prompt.
        completion_tokens: tokens produced, over all answers, also those that are not given.
        timing: where the time went.
        matched_stop: the stop string that ended the first answer, or empty.
        choices: every answer given, in order; empty when there is one.
        cached_prompt_tokens: tokens of the prompt that were not computed again.
        vector: little-endian float32, when the request asked for a vector; empty otherwise.
    """

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    timing: Timing
    matched_stop: str = ""
    choices: tuple[Choice, ...] = ()
    cached_prompt_tokens: int = 0
    vector: bytes = b""


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """The terminal event of an answer that failed.

    Attributes:
        error: what went wrong.
        prompt_tokens: tokens of the prompt.
        completion_tokens: tokens produced before the failure.
    """

    error: ServerError
    prompt_tokens: int
    completion_tokens: int


Event = TokenEvent | FinishedEvent | ErrorEvent


@dataclass(frozen=True, slots=True)
class SequenceSlice:
    """The work of one sequence in one step.

    Attributes:
        request_id: whose work it is; the first answer has the request's id, the others one derived from it.
        kv_row: row of the KV cache that holds its context.
        start: position of the first token, equal to the context already in the row.
        tokens: token ids to process.
        adapter_slot: slot of its adapter; None for the base model.
        sample: whether the last token's logits choose a token.
        sampling: how; used when `sample` is true.
        sample_index: how many tokens this request has sampled before.
        stopping: when its answer ends, which tells the sampler what is too early; None: nothing is.
        prompt: its whole prompt, and
        output: its answer so far: views for the sampler, valid during the step only.
        choice: which of the request's answers it is; each has a random stream of its own.
        pooling: the vector that its prompt is to become; None when tokens are wanted.
    """

    request_id: str
    kv_row: KvRow
    start: int
    tokens: tuple[int, ...]
    adapter_slot: AdapterSlot | None
    sample: bool
    sampling: SamplingParams
    sample_index: int
    stopping: StoppingParams | None = None
    prompt: Sequence[int] = ()
    output: Sequence[int] = ()
    choice: int = 0
    pooling: PoolingParams | None = None

    @property
    def scored_tokens(self) -> tuple[int, ...]:
        """Tokens of the prompt that this slice's logits tell the probabilities of: those after its own."""
        if self.sampling.prompt_logprobs is None:
            return ()
        return tuple(self.prompt[self.start + 1 : self.start + len(self.tokens) + 1])

    @property
    def ends_prompt(self) -> bool:
        """Whether nothing of the prompt comes after it."""
        return self.start + len(self.tokens) == len(self.prompt)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Everything the runner needs for one step.

    Attributes:
        slices: one entry per sequence that takes part, decodes before prefills.
        waiting: why each sequence that takes no part waits, by its id.
    """

    slices: tuple[SequenceSlice, ...]
    waiting: dict[str, WaitReason] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens that the step computes."""
        return sum(len(piece.tokens) for piece in self.slices)

    @property
    def decodes(self) -> int:
        """Slices of one token: sequences that get their next one."""
        return sum(len(piece.tokens) == 1 for piece in self.slices)


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What one step produced.

    Attributes:
        tokens: chosen token by the slice's id, for slices with `sample`.
        faults: ids of slices of which a row of logits had NaN or +inf, or nothing but -inf.
        prompt_logprobs: tokens of the prompt scored in this step by the slice's id, in order;
            a slice [start, end) of a prompt that asks for them scores the tokens after its own.
        refused: slices for which there was no token to choose, by id, with the reason.
        vectors: little-endian float32 of the prompts that became a vector, by id.
    """

    tokens: dict[str, SampledToken]
    faults: frozenset[str] = frozenset()
    prompt_logprobs: dict[str, tuple[SampledToken, ...]] = field(default_factory=dict)
    refused: dict[str, ServerError] = field(default_factory=dict)
    vectors: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """A snapshot of the engine for operators.

    Attributes:
        waiting_requests: accepted, not yet running.
        running_sequences: in the batch.
        kv_rows_used: rows in use.
        kv_rows_total: rows there are.
        draining: whether new requests are refused.
        kv_blocks_running: blocks of KV memory that running sequences hold.
        kv_blocks_cached: blocks that cached prefixes take.
        kv_blocks_total: blocks there are.
        waiting_for: how many sequences the last step left out, by why.
    """

    waiting_requests: int
    running_sequences: int
    kv_rows_used: int
    kv_rows_total: int
    draining: bool
    kv_blocks_running: int = 0
    kv_blocks_cached: int = 0
    kv_blocks_total: int = 0
    waiting_for: Mapping[WaitReason, int] = field(default_factory=dict)
