"""The forward pass of the Llama family, with adapters in the batch.

Covers Llama 2 and 3, Mistral, Qwen 2, 2.5 and 3: pre-norm decoder layers with
rotary positions, grouped-query attention and a gated MLP; biases and query-key
norms where the model has them. Activations are float32, whatever the dtype of
the files; weights stay as small as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch

from switchyard.server.lora.embedding import embed
from switchyard.server.lora.layout import GroupLayout, ModulePlace
from switchyard.server.lora.native import NativeLora
from switchyard.server.lora.ops import LoraBackend, project
from switchyard.server.lora.table import GroupTable
from switchyard.server.model.attention import Rotation, attention_for
from switchyard.server.model.batch import StepBatch, StepTensors
from switchyard.server.model.kv_cache import KvCache
from switchyard.server.model.linears import BaseLinear, dense_linear
from switchyard.server.model.pointwise import pointwise_for
from switchyard.server.native import library
from switchyard.server.native.heads import HeadNorms

GROUPS_PER_LAYER = 4
"""Query-key-value, attention output, gate-up, down."""


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes and constants of the model.

    Attributes:
        hidden_size: width of the residual stream.
        intermediate_size: width of the MLP.
        heads: query heads.
        kv_heads: key and value heads.
        head_dim: width of a head.
        norm_eps: epsilon of the root-mean-square norms.
        rope_scaling: factor of the rotation's cosines and sines.
    """

    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    rope_scaling: float


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer.

    Attributes:
        attention_norm: [hidden_size].
        mlp_norm: [hidden_size].
        query_norm: [head_dim], or None.
        key_norm: [head_dim], or None.
        qkv: hidden_size to (heads + 2 kv_heads) * head_dim.
        out: heads * head_dim to hidden_size.
        gate_up: hidden_size to 2 * intermediate_size.
        down: intermediate_size to hidden_size.
    """

    attention_norm: torch.Tensor
    mlp_norm: torch.Tensor
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    qkv: BaseLinear
    out: BaseLinear
    gate_up: BaseLinear
    down: BaseLinear

    @property
    def linears(self) -> tuple[BaseLinear, ...]:
        """Its products, in the order of their groups."""
        return self.qkv, self.out, self.gate_up, self.down


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """The frozen base model.

    Attributes:
        embedding: [vocab, hidden_size].
        layers: the decoder layers.
        final_norm: [hidden_size].
        head: [vocab, hidden_size]; the embedding itself when they are tied.
        inverse_frequencies: [head_dim / 2] float32, of the rotation.
        activation: of the gated MLP.
    """

    embedding: torch.Tensor
    layers: tuple[LayerWeights, ...]
    final_norm: torch.Tensor
    head: torch.Tensor
    inverse_frequencies: torch.Tensor
    activation: Callable[[torch.Tensor], torch.Tensor]


class SlotTable(Protocol):
    """Where the resident adapters are."""

    def group(self, index: int) -> GroupTable:
        """Adapters by slot for one fused group."""
        ...


class Decoder:
    """Runs step batches through the base, with each row's adapter added on the way.

    Attributes:
        shape: sizes of the model.
        weights: the frozen base.
        attention: how heads attend; the rows of the KV cache lie as it wants them.
        layout: where adapters can reach.
    """

    def __init__(self, shape: DecoderShape, weights: DecoderWeights) -> None:
        kernels = library.load()
        self.shape = shape
        self.weights = weights
        self.attention = attention_for(kernels, shape.heads, shape.kv_heads, shape.head_dim)
        self._pointwise = pointwise_for(kernels, weights.activation)
        self._head = dense_linear(weights.head, None)
        compiled = all(linear.compiled for layer in weights.layers for linear in layer.linears)
        compiled = compiled and self.attention.compiled and self._pointwise.compiled
        self._kernels = kernels if compiled else None
        self.layout = _layout(shape, len(weights.layers), weights.embedding.shape[0])

    def forward(self, batch: StepBatch, cache: KvCache, slots: SlotTable, add_lora: LoraBackend) -> StepTensors:
        """Logits and hidden states of the rows that are wanted.

        Args:
            batch: the step; its keys and values are written to `cache`.
            cache: the KV rows.
            slots: the resident adapters.
            add_lora: backend of the LoRA arithmetic.
        """
        weights, eps = self.weights, self.shape.norm_eps

        def adapted(linear: BaseLinear, inputs: torch.Tensor, group: int) -> torch.Tensor:
            return project(linear, inputs, batch.segments, slots.group(group), add_lora)

        add_and_norm, first_group = self._pointwise.add_and_norm, len(weights.layers) * GROUPS_PER_LAYER
        next_norms = [*(layer.attention_norm for layer in weights.layers[1:]), weights.final_norm]
        turns = Rotation.of(batch.positions, weights.inverse_frequencies, self.shape.rope_scaling)
        x = embed(batch.tokens, weights.embedding, batch.segments, slots.group(first_group))
        hidden = add_and_norm(x, None, weights.layers[0].attention_norm, eps)
        for index, (layer, next_norm) in enumerate(zip(weights.layers, next_norms, strict=True)):
            group = index * GROUPS_PER_LAYER
            norms = HeadNorms(layer.query_norm, layer.key_norm, eps)
            # A layer at a time: memory for more would not stay in the caches.
            with self._recording(add_lora):
                attended = self.attention(adapted(layer.qkv, hidden, group), index, norms, batch, cache, turns)
                hidden = add_and_norm(x, adapted(layer.out, attended, group + 1), layer.mlp_norm, eps)
                inner = self._pointwise.gate(adapted(layer.gate_up, hidden, group + 2))
                hidden = add_and_norm(x, adapted(layer.down, inner, group + 3), next_norm, eps)
        last = hidden.index_select(0, batch.sample_index)
        logits = project(self._head, last, batch.sampled_segments, slots.group(first_group + 1), add_lora)
        return StepTensors(logits, hidden.index_select(0, batch.pool_index))

    def _recording(self, add_lora: LoraBackend) -> AbstractContextManager[object]:
        """Lets the kernels of a layer run in one go, where torch has no part in it."""
        if self._kernels is None or not isinstance(add_lora, NativeLora):
            return nullcontext()
        return self._kernels.recording()


def _layout(shape: DecoderShape, layer_count: int, vocab: int) -> GroupLayout:
    """Places of all projections, under the names that the Llama family gives them."""
    attended = shape.heads * shape.head_dim
    kv = shape.kv_heads * shape.head_dim
    hidden, inner = shape.hidden_size, shape.intermediate_size
    groups = (
        (hidden, (("self_attn.q_proj", attended), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv))),
        (attended, (("self_attn.o_proj", hidden),)),
        (hidden, (("mlp.gate_proj", inner), ("mlp.up_proj", inner))),
        (inner, (("mlp.down_proj", hidden),)),
    )
    places: dict[str, ModulePlace] = {}
    for layer in range(layer_count):
        for offset, (in_features, projections) in enumerate(groups):
            start = 0
            for name, width in projections:
                place = ModulePlace(layer * GROUPS_PER_LAYER + offset, in_features, start, start + width)
                places[f"model.layers.{layer}.{name}"] = place
                start += width
    first_group = layer_count * GROUPS_PER_LAYER
    places["model.embed_tokens"] = ModulePlace(first_group, vocab, 0, hidden, embeds=True)
    places["lm_head"] = ModulePlace(first_group + 1, hidden, 0, vocab)
    return GroupLayout(places, first_group + 2)
