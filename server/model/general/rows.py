"""Keys and values of one sequence, as transformers' attention layers keep them.

Every layer keeps all positions, also where the model looks at a window only:
the masks of transformers leave out what lies outside, and a row whose positions
stand on their own can be copied block by block into another.
"""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from switchyard.server.engine.types import BLOCK_TOKENS

Block = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of BLOCK_TOKENS tokens by layer, each [1, kv_heads, BLOCK_TOKENS, head_dim]."""


class RowLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer of one sequence: room for `capacity` tokens, taken when the first is written.

    Attributes:
        length: tokens written.
    """

    is_sliding = False

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Takes the room; its pages cost nothing until they are written."""
        self.keys = _room(key_states, self.capacity)
        self.values = _room(value_states, self.capacity)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends [1, kv_heads, T, head_dim] of a step; returns all that is written, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        stop = self.length + key_states.shape[2]
        self.keys[:, :, self.length : stop] = key_states
        self.values[:, :, self.length : stop] = value_states
        self.length = stop
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a step of `query_length` tokens sees."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens written."""
        return self.length

    def get_max_length(self) -> int:
        """No bound of its own; the scheduler keeps sequences within the context."""
        return -1


class RowCache(Cache):  # type: ignore[misc]
    """All layers of one sequence."""

    def __init__(self, layer_count: int, capacity: int) -> None:
        super().__init__(layers=[RowLayer(capacity) for _ in range(layer_count)])

    @property
    def length(self) -> int:
        """Tokens written; layers that use another layer's keys write none."""
        return max(int(layer.length) for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens written."""
        return sum(
            layer.length * (layer.keys[:, :, 0].nbytes + layer.values[:, :, 0].nbytes)
            for layer in self._own().values()
        )

    def block(self, start: int) -> Block:
        """Copies of tokens [start, start + BLOCK_TOKENS) of every layer."""
        stop = start + BLOCK_TOKENS
        return {
            index: (layer.keys[:, :, start:stop].clone(), layer.values[:, :, start:stop].clone())
            for index, layer in self._own().items()
        }

    def append_block(self, block: Block) -> None:
        """Writes a copied block behind what the row holds."""
        for index, (keys, values) in block.items():
            self.layers[index].update(keys, values)

    def _own(self) -> dict[int, RowLayer]:
        return {index: layer for index, layer in enumerate(self.layers) if layer.is_initialized}


def _room(states: torch.Tensor, capacity: int) -> torch.Tensor:
    _, heads, _, width = states.shape
    return states.new_empty(1, heads, capacity, width)
