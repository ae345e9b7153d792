"""From the hidden states of a prompt to one vector.

A prompt may be computed in several steps. Means are summed block by block, in
order, so that their bits do not depend on how the prompt was cut.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from switchyard.server.engine.pooling import Pooling
from switchyard.server.engine.types import BLOCK_TOKENS, SequenceSlice


def pooled_tokens(piece: SequenceSlice) -> range:
    """Tokens of a slice, counted within it, whose hidden states its vector needs; empty when it needs none."""
    if piece.pooling is None:
        return range(0)
    count = len(piece.tokens)
    if piece.pooling.pooling is Pooling.MEAN:
        return range(count)
    return range(count - 1, count) if piece.ends_prompt else range(0)


class Pooler:
    """Makes vectors of hidden states and keeps the sums of prompts that are not whole; engine thread only."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}

    @property
    def remembered(self) -> frozenset[str]:
        """Ids of the sequences that it remembers something of."""
        return frozenset(self._sums)

    def take(self, piece: SequenceSlice, hidden: torch.Tensor) -> torch.Tensor | None:
        """Takes in a slice.

        Args:
            piece: of a prompt.
            hidden: [n, hidden_size] float32, of its `pooled_tokens`.

        Returns:
            [hidden_size] float32 once the prompt is whole; None before, and when no vector is wanted.
        """
        params = piece.pooling
        if params is None:
            return None
        if params.pooling is Pooling.LAST:
            vector = hidden[-1]
        else:
            self._add(piece, hidden)
            if not piece.ends_prompt:
                return None
            vector = self._sums.pop(piece.request_id) / len(piece.prompt)
        # A vector of zeros has no direction; it stays what it is.
        return vector / vector.norm().clamp_min(torch.finfo(vector.dtype).tiny) if params.normalize else vector

    def forget(self, sequence_id: str) -> None:
        """Drops what it remembers of a sequence; unknown ids are ignored."""
        self._sums.pop(sequence_id, None)

    def _add(self, piece: SequenceSlice, hidden: torch.Tensor) -> None:
        """Adds the blocks of a slice; one that begins the prompt begins the sum anew, as after a preemption."""
        known = None if piece.start == 0 else self._sums[piece.request_id]
        for begin, end in _blocks(piece.start, len(piece.tokens)):
            part = hidden[begin:end].sum(dim=0)
            known = part if known is None else known + part
        if known is not None:
            self._sums[piece.request_id] = known


def _blocks(start: int, count: int) -> Iterator[tuple[int, int]]:
    """Cuts a slice at whole blocks of its sequence."""
    begin = 0
    while begin < count:
        end = min(count, (start + begin) // BLOCK_TOKENS * BLOCK_TOKENS + BLOCK_TOKENS - start)
        yield begin, end
        begin = end
