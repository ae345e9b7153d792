"""The fast path on a GPU: KV pages, adapters by kernels, decode steps replayed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from switchyard.server.gpu.graphs import Capture
from switchyard.server.gpu.paged_attention import Queries, attend_by_kernel, attend_by_torch
from switchyard.server.lora.embedding import embed
from switchyard.server.lora.layout import GroupLayout
from switchyard.server.lora.on_gpu import GpuLora, LoraBounds
from switchyard.server.lora.ops import project
from switchyard.server.model.attention import Rotation
from switchyard.server.model.batch import StepBatch, StepTensors
from switchyard.server.model.decoder import GROUPS_PER_LAYER, Decoder, LayerWeights, SlotTable
from switchyard.server.model.gpu_decode import DecodeGraphs, StepInputs
from switchyard.server.model.linears import BaseLinear
from switchyard.server.model.paged_kv import PagedKv
from switchyard.server.model.pointwise import rms_norm

Adapted = Callable[[BaseLinear, torch.Tensor, int], torch.Tensor]
"""One fused group, by its index, with what adapters do to it."""


@dataclass(frozen=True, slots=True)
class GpuOptions:
    """How a model is put on a device.

    Attributes:
        dtype: of activations and products; the residual stream is float32.
        bounds: what the memory of the LoRA kernels must be enough for.
        buckets: numbers of tokens for which decode steps are captured; none for no captures.
        graph_bytes: device memory for captures.
    """

    dtype: torch.dtype
    bounds: LoraBounds
    buckets: tuple[int, ...]
    graph_bytes: int


class GpuModel:
    """A step model on KV pages; see `StepModel` for its methods.

    Attributes:
        layout: where adapters can reach.
        kv: keys and values.
        graphs: captured decode steps.
    """

    def __init__(
        self, decoder: Decoder, kv: PagedKv, slots: SlotTable, options: GpuOptions, capture: Capture
    ) -> None:
        self.layout: GroupLayout = decoder.layout
        self.kv = kv
        self._shape, self._weights = decoder.shape, decoder.weights
        self._slots, self._dtype = slots, options.dtype
        self._device = self._weights.embedding.device
        self._groups = len(self._weights.layers) * GROUPS_PER_LAYER
        self._lora = GpuLora(options.bounds, self._device)
        self._captured_lora = GpuLora(options.bounds, self._device, fixed_grid=True)
        padding = StepInputs.padding(max(options.buckets, default=0), kv.padding_row, self._device)
        with torch.inference_mode():
            self.graphs = DecodeGraphs(self._decode, options.buckets, capture, options.graph_bytes, padding)

    @property
    def kv_bytes(self) -> int:
        """Bytes of all pages."""
        return self.kv.nbytes

    @property
    def kv_token_bytes(self) -> int:
        """Bytes of the keys and values of one token, over all layers."""
        return self.kv.token_bytes

    def compute(self, batch: StepBatch) -> StepTensors:
        """Runs the forward pass of one step."""
        self.kv.reserve(batch.lengths)
        with torch.inference_mode():
            hidden = self._replayed(batch)
            if hidden is None:
                hidden = self._eager(batch)
            last = hidden.index_select(0, batch.sample_index.to(self._device)).to(self._dtype)
            head = self._weights.head
            table = self._slots.group(self._groups + 1)
            logits = project(
                lambda x: functional.linear(x, head.to(x.dtype)), last, batch.sampled_segments, table, self._lora
            ).float()
            return StepTensors(logits, hidden.index_select(0, batch.pool_index.to(self._device)))

    def release_row(self, kv_row: int) -> None:
        """Gives back the pages of a sequence."""
        self.kv.clear(kv_row)

    def copy_out(self, row: int, start: int, block: int) -> None:
        """Keeps one block of a row's keys and values."""
        self.kv.copy_out(row, start, block)

    def copy_in(self, block: int, row: int, start: int) -> None:
        """Gives a kept block to a row."""
        self.kv.copy_in(block, row, start)

    def drop_block(self, block: int) -> None:
        """Frees a kept block."""
        self.kv.drop_block(block)

    def _replayed(self, batch: StepBatch) -> torch.Tensor | None:
        """[T, hidden] of a step of single tokens; None where it cannot be replayed."""
        if len(batch.tokens) != batch.singles or not self._replayable(batch):
            return None
        adapted = bool(batch.segments.rows_of)
        if adapted:
            self._captured_lora.prepare(batch.segments)
        return self.graphs.run(StepInputs.of(batch, self._device), adapted=adapted)

    def _replayable(self, batch: StepBatch) -> bool:
        """Whether adapters do nothing but what the kernels do."""
        own = batch.segments.rows_of.keys()
        tables = [self._slots.group(index) for index in range(self._groups)]
        if any(not (table.gained | table.replaced).isdisjoint(own) for table in tables):
            return False
        return own.isdisjoint(self._slots.group(self._groups))

    def _decode(self, inputs: StepInputs, adapted: bool) -> torch.Tensor:
        """What is captured."""

        def apply(linear: BaseLinear, x: torch.Tensor, group: int) -> torch.Tensor:
            y = linear(x)
            if adapted:
                self._captured_lora.launch(y, x, self._slots.group(group))
            return y

        x = functional.embedding(inputs.tokens, self._weights.embedding).float()
        return self._layers(x, inputs, apply, len(inputs.tokens))

    def _eager(self, batch: StepBatch) -> torch.Tensor:
        def apply(linear: BaseLinear, x: torch.Tensor, group: int) -> torch.Tensor:
            return project(linear, x, batch.segments, self._slots.group(group), self._lora)

        inputs = StepInputs.of(batch, self._device)
        x = embed(inputs.tokens, self._weights.embedding, batch.segments, self._slots.group(self._groups))
        return self._layers(x, inputs, apply, batch.singles)

    def _layers(self, x: torch.Tensor, inputs: StepInputs, adapted: Adapted, singles: int) -> torch.Tensor:
        """[T, hidden] float32 behind the last norm; the first `singles` tokens stand alone in their sequences."""
        weights, eps, dtype = self._weights, self._shape.norm_eps, self._dtype
        turns = Rotation.of(inputs.positions, weights.inverse_frequencies, self._shape.rope_scaling)
        for index, layer in enumerate(weights.layers):
            group = index * GROUPS_PER_LAYER
            projected = adapted(layer.qkv, rms_norm(x, layer.attention_norm, eps).to(dtype), group)
            attended = self._attend(projected, index, layer, inputs, turns, singles)
            x = x + adapted(layer.out, attended, group + 1).float()
            both = adapted(layer.gate_up, rms_norm(x, layer.mlp_norm, eps).to(dtype), group + 2)
            gate, up = both.chunk(2, dim=1)
            x = x + adapted(layer.down, weights.activation(gate) * up, group + 3).float()
        return rms_norm(x, weights.final_norm, eps)

    def _attend(
        self,
        projected: torch.Tensor,
        index: int,
        layer: LayerWeights,
        inputs: StepInputs,
        turns: Rotation,
        singles: int,
    ) -> torch.Tensor:
        """[T, heads * head_dim]: keeps keys and values, and attends."""
        shape, count = self._shape, len(projected)
        heads = projected.view(count, shape.heads + 2 * shape.kv_heads, shape.head_dim).float()
        query = heads[:, : shape.heads]
        key, value = heads[:, shape.heads :].chunk(2, dim=1)
        if layer.query_norm is not None and layer.key_norm is not None:
            query = rms_norm(query, layer.query_norm, shape.norm_eps)
            key = rms_norm(key, layer.key_norm, shape.norm_eps)
        self.kv.write(index, inputs.rows, inputs.positions, turns.turn(key), value)
        query, pages, scale = turns.turn(query).to(self._dtype), self.kv.layer(index), shape.head_dim**-0.5
        parts = []
        for part, attend in ((slice(singles), attend_by_kernel), (slice(singles, count), attend_by_torch)):
            own = Queries(inputs.queries.table_rows[part], inputs.queries.visible[part])
            if len(own.visible):
                parts.append(attend(query[part], pages, own, scale))
        return parts[0] if len(parts) == 1 else torch.cat(parts)
