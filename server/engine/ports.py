"""What the engine needs from the rooms that hold tensors, sockets and clocks.

The engine sees the model, the adapters and the outside only through these
protocols, so that its whole loop runs in tests without torch.
"""

from __future__ import annotations

from collections.abc import Set
from enum import Enum
from typing import Protocol

from switchyard.server.engine.types import (
    AdapterSelection,
    AdapterSlot,
    Digest,
    Event,
    StepOutput,
    StepPlan,
)


class Clock(Protocol):
    """A monotonic clock."""

    def now(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        ...


class Runner(Protocol):
    """Executes step plans on the base model."""

    def execute(self, plan: StepPlan) -> StepOutput:
        """Runs one forward pass and chooses tokens.

        Mutates the KV rows named in `plan`. A row whose logits are not finite
        is reported in `StepOutput.faults` and gets no token.
        """
        ...

    def release_row(self, kv_row: int) -> None:
        """Clears what a sequence left in its KV row."""
        ...

    def copy_out(self, row: int, start: int, block: int) -> None:
        """Keeps the keys and values of tokens [start, start + BLOCK_TOKENS) of a row as `block`."""
        ...

    def copy_in(self, block: int, row: int, start: int) -> None:
        """Writes a kept block to positions [start, start + BLOCK_TOKENS) of a row."""
        ...

    def drop_block(self, block: int) -> None:
        """Frees a kept block."""
        ...

    def forget(self, request_id: str) -> None:
        """Drops what choosing tokens has remembered of a sequence that has ended; unknown ids are ignored."""
        ...


class AdapterTier(Enum):
    """How near an adapter is."""

    ABSENT = "absent"
    COMING = "coming"
    MEMORY = "memory"


class AdapterPool(Protocol):
    """Brings adapters into slots and keeps them there while they are pinned.

    All methods are called on the engine thread only.
    """

    def tier(self, key: Digest) -> AdapterTier:
        """Where the weights are now; ABSENT also after a load that failed."""
        ...

    def prefetch(self, selection: AdapterSelection, now: float) -> None:
        """Starts bringing the weights to host memory; returns at once.

        Raises:
            AdapterUnavailable: the last attempt failed and it is too early for another.
        """
        ...

    def acquire(self, selection: AdapterSelection, now: float) -> AdapterSlot | None:
        """Pins the adapter and returns its slot, or None while it is on its way or every slot is pinned.

        Raises:
            AdapterUnavailable: it could not be loaded.
        """
        ...

    def release(self, key: Digest, now: float) -> None:
        """Undoes one `acquire`."""
        ...

    def poll(self, now: float, awaited: Set[Digest]) -> None:
        """Takes in what the loader pool has finished since the last call.

        Args:
            now: time on the engine's clock.
            awaited: keys for which a sequence waits; their weights are kept until it has used them.
        """
        ...


class TextDecoder(Protocol):
    """Turns token ids into text."""

    def decode(self, token_ids: list[int]) -> str:
        """Text of `token_ids`; an incomplete character shows as U+FFFD."""
        ...

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ...


class EventSink(Protocol):
    """Where the events of one request go."""

    def put(self, event: Event) -> None:
        """Takes one event; called on the engine thread and never blocks it."""
        ...


class EngineObserver(Protocol):
    """Hears what the engine does; used for metrics."""

    def queued(self, adapter_key: str | None) -> None:
        """A request was accepted."""
        ...

    def started(self, adapter_key: str | None, queue_s: float, adapter_wait_s: float) -> None:
        """A request entered the batch."""
        ...

    def first_token(self, adapter_key: str | None, ttft_s: float) -> None:
        """The first token of an answer was chosen, `ttft_s` after acceptance."""
        ...

    def token(self, adapter_key: str | None, itl_s: float) -> None:
        """A later token was chosen, `itl_s` after the one before it."""
        ...

    def finished(self, adapter_key: str | None, outcome: str, prompt_tokens: int, completion_tokens: int) -> None:
        """A request ended; `outcome` is a finish reason or an error reason."""
        ...

    def step(self, duration_s: float, sequences: int, tokens: int) -> None:
        """One step ran."""
        ...

    def prefix(self, cached_tokens: int) -> None:
        """A sequence started, with so many tokens of its prompt from the prefix cache."""
        ...

    def preempted(self) -> None:
        """A running sequence gave up its place; it goes on later."""
        ...

    def shed(self) -> None:
        """A waiting request was ended because it could not be answered in time."""
        ...


class NullObserver:
    """An observer for engines that nobody measures."""

    def queued(self, adapter_key: str | None) -> None:
        """Ignores the event."""

    def started(self, adapter_key: str | None, queue_s: float, adapter_wait_s: float) -> None:
        """Ignores the event."""

    def first_token(self, adapter_key: str | None, ttft_s: float) -> None:
        """Ignores the event."""

    def token(self, adapter_key: str | None, itl_s: float) -> None:
        """Ignores the event."""

    def finished(self, adapter_key: str | None, outcome: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Ignores the event."""

    def step(self, duration_s: float, sequences: int, tokens: int) -> None:
        """Ignores the event."""

    def prefix(self, cached_tokens: int) -> None:
        """Ignores the event."""

    def preempted(self) -> None:
        """Ignores the event."""

    def shed(self) -> None:
        """Ignores the event."""
