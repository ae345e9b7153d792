"""Decode steps in buckets: fixed tensors, filled up with tokens that are nobody's, and replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from switchyard.server.gpu.graphs import Capture, Work
from switchyard.server.gpu.paged_attention import Queries
from switchyard.server.model.batch import StepBatch


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The tokens of a step on the device.

    Attributes:
        tokens: [T] int64, token ids.
        positions: [T] int64, positions in their sequences.
        rows: [T] int64, KV rows.
        queries: where each token stands.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    rows: torch.Tensor
    queries: Queries

    @classmethod
    def of(cls, batch: StepBatch, device: torch.device) -> StepInputs:
        """Of a step."""
        rows, positions = batch.kv_rows.to(device), batch.positions.to(device)
        queries = Queries(rows.to(torch.int32), (positions + 1).to(torch.int32))
        return cls(batch.tokens.to(device), positions, rows, queries)

    @classmethod
    def padding(cls, count: int, padding_row: int, device: torch.device) -> StepInputs:
        """Tokens that are nobody's: the first of the padding row."""
        zeros = torch.zeros(count, dtype=torch.int64, device=device)
        rows = torch.full_like(zeros, padding_row)
        return cls(zeros, zeros.clone(), rows, Queries(rows.to(torch.int32), (zeros + 1).to(torch.int32)))

    def first(self, count: int) -> StepInputs:
        """A copy of the first tokens."""
        tokens, positions, rows, table_rows, visible = (tensor[:count].clone() for tensor in self._tensors())
        return StepInputs(tokens, positions, rows, Queries(table_rows, visible))

    def fill(self, own: StepInputs, padding: StepInputs) -> None:
        """Takes over a step of at most as many tokens, with padding behind it."""
        count = len(own.tokens)
        for mine, theirs, rest in zip(self._tensors(), own._tensors(), padding._tensors(), strict=True):
            mine[:count].copy_(theirs)
            mine[count:].copy_(rest[count : len(mine)])

    def _tensors(self) -> tuple[torch.Tensor, ...]:
        return self.tokens, self.positions, self.rows, self.queries.table_rows, self.queries.visible


Compute = Callable[[StepInputs, bool], torch.Tensor]
"""[T, hidden] of single tokens, with adapters or without."""


class DecodeGraphs:
    """Captured decode steps, by number of tokens and by whether any of them has an adapter.

    A step without adapters does not pay for those that others have.

    Attributes:
        captured: `(tokens, adapted)` of what is captured.
        left_out: of what the memory did not suffice for; such steps take the next larger one, or none.
    """

    def __init__(
        self, compute: Compute, buckets: Sequence[int], capture: Capture, budget_bytes: int, padding: StepInputs
    ) -> None:
        """Captures, the smallest first.

        Args:
            compute: what a step does.
            buckets: numbers of tokens.
            capture: how.
            budget_bytes: device memory; once so much is taken nothing more is captured.
            padding: at least as many tokens as the largest bucket.
        """
        self._padding = padding
        self._inputs: dict[tuple[int, bool], StepInputs] = {}
        self._hidden: dict[tuple[int, bool], torch.Tensor] = {}
        self._replays: dict[tuple[int, bool], Work] = {}
        self.left_out: list[tuple[int, bool]] = []
        for size in sorted(buckets):
            for adapted in (False, True):
                if capture.spent_bytes() >= budget_bytes:
                    self.left_out.append((size, adapted))
                else:
                    self._capture(size, compute, capture, adapted=adapted)
        self.captured = tuple(self._replays)

    def run(self, own: StepInputs, *, adapted: bool) -> torch.Tensor | None:
        """Replays a step.

        Args:
            own: single tokens.
            adapted: whether any has an adapter.

        Returns:
            [T, hidden], good until the next replay; None where no captured step is large enough.
        """
        count = len(own.tokens)
        fitting = [key for key in self.captured if key[0] >= count and key[1] == adapted]
        if not fitting:
            return None
        self._inputs[fitting[0]].fill(own, self._padding)
        self._replays[fitting[0]]()
        return self._hidden[fitting[0]][:count]

    def _capture(self, size: int, compute: Compute, capture: Capture, *, adapted: bool) -> None:
        key = size, adapted
        inputs = self._inputs[key] = self._padding.first(size)

        def work() -> None:
            # Into one tensor each time: a replay must find it where the capture left it.
            hidden = compute(inputs, adapted)
            if key in self._hidden:
                self._hidden[key].copy_(hidden)
            else:
                self._hidden[key] = hidden.clone()

        self._replays[key] = capture(work)
