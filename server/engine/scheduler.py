"""Who runs in the next step, and with how many tokens.

Decodes come first, one token each; prefill chunks fill what is left of the
step's token budget. A request whose adapter is still on its way waits aside
and never holds up the ones behind it. `plan` changes nothing but its own
bookkeeping of why requests wait, and is a function of the queues, the free
rows and the resident adapters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from switchyard.server.engine.kv_rows import KvRows
from switchyard.server.engine.ports import AdapterPool
from switchyard.server.engine.sequence import Sequence, SequenceState
from switchyard.server.engine.types import SequenceSlice, StepPlan
from switchyard.server.errors import ServerError


@dataclass(frozen=True, slots=True)
class StepLimits:
    """Bounds of one step.

    Attributes:
        max_sequences: sequences in the batch; also the number of KV rows.
        max_step_tokens: tokens processed in one step.
        prefill_chunk_tokens: longest piece of a prompt in one step.
    """

    max_sequences: int
    max_step_tokens: int
    prefill_chunk_tokens: int

    def __post_init__(self) -> None:
        if self.max_step_tokens < self.max_sequences + self.prefill_chunk_tokens:
            raise ValueError(
                f"max_step_tokens={self.max_step_tokens} cannot hold {self.max_sequences} decodes and one "
                f"prefill chunk of {self.prefill_chunk_tokens} tokens; raise it or lower the others"
            )


class Scheduler:
    """Owns the waiting queue and the running batch."""

    def __init__(self, limits: StepLimits, rows: KvRows, adapters: AdapterPool) -> None:
        self.limits = limits
        self.rows = rows
        self.adapters = adapters
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self.waiting

    def add(self, sequence: Sequence) -> None:
        """Puts an accepted sequence at the end of the queue."""
        self.waiting.append(sequence)

    def admit(self, now: float) -> tuple[list[Sequence], list[tuple[Sequence, ServerError]]]:
        """Moves waiting sequences into the batch, in order of arrival.

        Returns:
            The sequences that started, and those whose adapter cannot be had, with the reason.
        """
        started: list[Sequence] = []
        refused: list[tuple[Sequence, ServerError]] = []
        still: deque[Sequence] = deque()
        while self.waiting:
            sequence = self.waiting.popleft()
            try:
                ready = self._try_start(sequence, now)
            except ServerError as error:
                refused.append((sequence, error))
                continue
            (started if ready else still).append(sequence)
        self.waiting = still
        self.running.extend(started)
        return started, refused

    def plan(self) -> StepPlan:
        """Chooses the work of the next step; says why the others wait."""
        slices = [self._slice(sequence, (sequence.output[-1],)) for sequence in self._in(SequenceState.DECODE)]
        budget = self.limits.max_step_tokens - len(slices)
        waiting = {s.request.request_id: s.waiting_for for s in self.waiting}
        for sequence in self._in(SequenceState.PREFILL):
            chunk = sequence.next_chunk(self.limits.prefill_chunk_tokens)
            if len(chunk) > budget:
                waiting[sequence.request.request_id] = "token_budget"
                continue
            budget -= len(chunk)
            slices.append(self._slice(sequence, chunk))
        return StepPlan(tuple(slices), waiting)

    def remove(self, sequence: Sequence, now: float) -> None:
        """Takes an ended sequence out and gives back its row and its adapter pin."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence.kv_row is not None:
            self.rows.release(sequence.kv_row)
            sequence.kv_row = None
        if sequence.adapter_slot is not None and sequence.request.adapter is not None:
            self.adapters.release(sequence.request.adapter.key, now)
            sequence.adapter_slot = None

    def _in(self, state: SequenceState) -> list[Sequence]:
        return [sequence for sequence in self.running if sequence.state is state]

    def _try_start(self, sequence: Sequence, now: float) -> bool:
        adapter = sequence.request.adapter
        if self.rows.used >= self.rows.count:
            sequence.waiting_for = "kv_row"
            if adapter is not None:
                self.adapters.prefetch(adapter, now)
            return False
        if adapter is not None:
            slot = self.adapters.acquire(adapter, now)
            if slot is None:
                sequence.waiting_for = "adapter"
                if sequence.adapter_wait_began_s is None:
                    sequence.adapter_wait_began_s = now
                return False
            sequence.adapter_slot = slot
        if sequence.adapter_wait_began_s is not None:
            sequence.adapter_wait_s = now - sequence.adapter_wait_began_s
        sequence.kv_row = self.rows.allocate(sequence.request.request_id)
        sequence.waiting_for = ""
        sequence.started_s = now
        sequence.advance(SequenceState.PREFILL)
        return True

    def _slice(self, sequence: Sequence, tokens: tuple[int, ...]) -> SequenceSlice:
        if sequence.kv_row is None:
            raise RuntimeError(f"sequence {sequence.request.request_id} runs without a KV row")
        return SequenceSlice(
            request_id=sequence.request.request_id,
            kv_row=sequence.kv_row,
            start=sequence.computed,
            tokens=tokens,
            adapter_slot=sequence.adapter_slot,
            sample=sequence.state is SequenceState.DECODE or sequence.completes_prompt(tokens),
            sampling=sequence.request.sampling,
            sample_index=len(sequence.output),
            stopping=sequence.request.stopping,
            prompt=sequence.request.prompt_tokens,
            output=sequence.output,
        )
