"""The general path: a model of transformers, one sequence after the other.

A sequence is computed alone, in pieces that end on multiples of BLOCK_TOKENS
and, past its prompt, token by token. Its bits then depend on nothing but its
own tokens: not on the batch, not on how its prompt was cut into steps, and not
on whether it was computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from switchyard.server.engine.types import BLOCK_TOKENS, SequenceSlice
from switchyard.server.lora.layout import GroupLayout
from switchyard.server.lora.ops import LoraBackend
from switchyard.server.model.batch import StepBatch, StepTensors
from switchyard.server.model.decoder import SlotTable
from switchyard.server.model.general.rows import Block, RowCache
from switchyard.server.model.general.wrapping import Wrapped


class GeneralModel:
    """A step model on transformers' own modules; see `StepModel` for its methods."""

    def __init__(
        self,
        wrapped: Wrapped,
        kv_token_bytes: int,
        hidden_size: int,
        max_context_tokens: int,
        slots: SlotTable,
        add_lora: LoraBackend,
    ) -> None:
        self.kv_token_bytes = kv_token_bytes
        self._wrapped = wrapped
        self._hidden_size = hidden_size
        self._capacity = -(-max_context_tokens // BLOCK_TOKENS) * BLOCK_TOKENS
        self._rows: dict[int, RowCache] = {}
        self._blocks: dict[int, Block] = {}
        self._bound = (slots, add_lora)

    @property
    def layout(self) -> GroupLayout:
        """Where adapters can reach."""
        return self._wrapped.layout

    @property
    def kv_bytes(self) -> int:
        """Bytes of the keys and values written, and of the cached blocks."""
        kept = (tensor for block in self._blocks.values() for pair in block.values() for tensor in pair)
        return sum(row.nbytes for row in self._rows.values()) + sum(tensor.nbytes for tensor in kept)

    def compute(self, batch: StepBatch) -> StepTensors:
        """Runs the forward passes of one step."""
        # Several models may be served on the same weights.
        self._wrapped.current.bind(*self._bound)
        sampled, pooled = batch.sample_index.tolist(), batch.pool_index.tolist()
        wanted = {*sampled, *pooled}
        found: dict[int, torch.Tensor] = {}
        first = 0
        with torch.inference_mode():
            for piece in batch.slices:
                indices = [index for index in range(len(piece.tokens)) if first + index in wanted]
                for index, row in self._sequence(piece, indices):
                    found[first + index] = row
                first += len(piece.tokens)
        return StepTensors(
            _stacked([found[index] for index in sampled], self._wrapped.vocab_size),
            _stacked([found[index] for index in pooled], self._hidden_size),
        )

    def release_row(self, kv_row: int) -> None:
        """Frees what a sequence left in its KV row."""
        self._rows.pop(kv_row, None)

    def copy_out(self, row: int, start: int, block: int) -> None:
        """Keeps one block of a row's keys and values."""
        self._blocks[block] = self._rows[row].block(start)

    def copy_in(self, block: int, row: int, start: int) -> None:
        """Writes a kept block behind what a row holds."""
        cache = self._row(row, start)
        cache.append_block(self._blocks[block])

    def drop_block(self, block: int) -> None:
        """Frees a kept block."""
        del self._blocks[block]

    def _row(self, row: int, start: int) -> RowCache:
        """The cache of a row that holds `start` tokens."""
        cache = self._rows.setdefault(row, RowCache(self._wrapped.layer_count, self._capacity))
        if cache.length != start:
            raise RuntimeError(f"KV row {row} holds {cache.length} tokens, and the step begins at {start}")
        return cache

    def _sequence(self, piece: SequenceSlice, indices: list[int]) -> Iterator[tuple[int, torch.Tensor]]:
        """Runs one slice; yields the row of each token at `indices`, float32.

        A row is the token's logits, [vocab]; of a prompt that becomes a vector its hidden state, [hidden_size].
        """
        cache = self._row(piece.kv_row, piece.start)
        self._wrapped.current.choose(piece.adapter_slot)
        for begin, end in pieces(piece.start, len(piece.tokens), len(piece.prompt)):
            own = [index for index in indices if begin <= index < end]
            keep = end - own[0] if own else 1
            tokens = torch.tensor([piece.tokens[begin:end]])
            if piece.pooling is None:
                rows = self._wrapped.model(
                    input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=keep
                ).logits
            else:
                rows = self._wrapped.model.base_model(
                    input_ids=tokens, past_key_values=cache, use_cache=True
                ).last_hidden_state
            for index in own:
                yield index, rows[0, index - end].float()


def _stacked(rows: list[torch.Tensor], width: int) -> torch.Tensor:
    return torch.stack(rows) if rows else torch.empty(0, width)


def pieces(start: int, count: int, prompt_length: int) -> Iterator[tuple[int, int]]:
    """Cuts a slice into what runs at once.

    Args:
        start: position of its first token.
        count: its tokens.
        prompt_length: tokens of the sequence's prompt.

    Yields:
        `(begin, end)`, indices into the slice.
    """
    begin = 0
    while begin < count:
        position = start + begin
        border = (position // BLOCK_TOKENS + 1) * BLOCK_TOKENS
        end = min(border, prompt_length, start + count) if position < prompt_length else position + 1
        yield begin, end - start
        begin = end - start
